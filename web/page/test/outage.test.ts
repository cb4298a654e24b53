/** A server that goes away under an open page, and comes back. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { append, comlog, holds, lines, openPage, records, startBrowser, startServer, topicUrl } from "./support.js";

const browser = await startBrowser();

test("a restart under an open tail loses and doubles nothing", async () => {
  const server = await startServer();
  await comlog(server, ["topic", "create", "tail", "--partitions", "2"]);
  await comlog(server, ["produce", "tail", "--no-progress"], lines(100, "before "));
  const page = await openPage(browser, topicUrl(server, "tail", "&offset=earliest"));
  await holds(page, 100);
  for (let round = 1; round <= 2; round += 1) {
    await server.kill();
    await page.getByText("No connection to").waitFor();
    await server.restart();
    await comlog(server, ["produce", "tail", "--no-progress"], lines(50, `round ${round} `));
    await page.getByText("Connected", { exact: true }).waitFor();
    await holds(page, 100 + 50 * round);
  }
  const seen = (await records(page)).map(({ partition, offset, value }) => `${partition}/${offset} ${value}`);
  const all = await comlog(server, ["consume", "tail", "--format", "%p/%o %v\\n"]);
  assert.deepEqual(seen.toSorted(), all.trim().split("\n").toSorted());
});

test("a record sent while the server is away arrives once", async () => {
  const server = await startServer();
  await comlog(server, ["topic", "create", "patient"]);
  const page = await openPage(browser, topicUrl(server, "patient"));
  await append(page, "first");
  await server.kill();
  await page.getByText("No connection to").waitFor();
  await page.getByLabel("Value", { exact: true }).fill("second");
  await page.getByLabel("Value", { exact: true }).press("Control+Enter");
  await server.restart();
  await holds(page, 2);
  assert.equal(await comlog(server, ["consume", "patient"]), "first\nsecond\n");
});
