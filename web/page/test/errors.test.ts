/** What the server refuses, and how the page says so. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";

import { comlog, holds, lines, openPage, PATIENCE, startBrowser, startServer, topicUrl } from "./support.js";

const server = await startServer();
const browser = await startBrowser();

test("a server without records says how to begin", async () => {
  const page = await openPage(browser, server.url);
  await page.getByText("No records yet.").waitFor();
  await page.getByLabel("Find a topic").fill("nothing like it");
  await page.getByText("No topic has such a name.").waitFor();
  await comlog(server, ["produce", "begun", "--no-progress"], lines(3));
  await page.getByLabel("Find a topic").fill("begu");
  const row = page.getByRole("row", { name: /^begun 1 3 / });
  await row.waitFor();
  assert.ok(await page.getByText("No records yet.").isHidden());
  await row.getByRole("link").click();
  await holds(page, 3);
});

test("a topic that is not there is offered to be created", async () => {
  const page = await openPage(browser, topicUrl(server, "absent"));
  await page.getByText("There is no topic absent.").waitFor();
  await page.getByRole("button", { name: "Create it…" }).click();
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByText("The topic is empty.").waitFor();
  assert.match(await comlog(server, ["topic", "list"]), /^absent/m);
});

test("a name taken already is refused with its code, and the dialog stays", async () => {
  await comlog(server, ["topic", "create", "taken"]);
  const page = await openPage(browser, server.url);
  await page.getByRole("button", { name: "New topic" }).click();
  await page.getByLabel("Name").fill("taken");
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("alert").getByText("(TOPIC_EXISTS)").waitFor();
  await page.getByLabel("Name").fill("free");
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("heading", { name: "free" }).waitFor();
});

test("an offset outside of a partition is named, and the way on works", async () => {
  await comlog(server, ["produce", "short", "--no-progress"], lines(10));
  const page = await openPage(browser, topicUrl(server, "short", "&offset=99"));
  await page.getByText("(OFFSET_OUT_OF_RANGE)").waitFor();
  await page.getByRole("button", { name: "Go on at 10" }).click();
  await comlog(server, ["produce", "short", "--no-progress"], "next\n");
  await holds(page, 1);
});

test("a topic deleted elsewhere ends its view", async () => {
  await comlog(server, ["produce", "doomed", "--no-progress"], lines(3));
  const page = await openPage(browser, topicUrl(server, "doomed"));
  await holds(page, 3);
  await comlog(server, ["topic", "delete", "doomed", "--yes"]);
  await page.getByText("There is no topic doomed.").waitFor();
});

test("deleting asks first, and for the name", async () => {
  await comlog(server, ["produce", "precious", "--no-progress"], lines(3));
  const page = await openPage(browser, topicUrl(server, "precious"));
  await page.getByRole("tab", { name: "Settings" }).click();
  await page.getByRole("button", { name: "Delete topic…" }).click();
  await page.getByLabel("Type precious to confirm").fill("other");
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await page.getByText("That is not the topic's name.").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  assert.match(await comlog(server, ["topic", "list"]), /^precious/m);
  await page.getByRole("button", { name: "Delete topic…" }).click();
  await page.getByLabel("Type precious to confirm").fill("precious");
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await page.getByRole("heading", { name: "Topics" }).waitFor();
  assert.doesNotMatch(await comlog(server, ["topic", "list"]), /^precious/m);
});

test("a configuration is changed, refused and reset", async () => {
  await comlog(server, ["topic", "create", "settled"]);
  const page = await openPage(browser, topicUrl(server, "settled"));
  await page.getByRole("tab", { name: "Settings" }).click();
  await page.getByLabel("Keep for").fill("7 d");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("kept for 7 d").waitFor();
  await page.getByLabel("Segment size").fill("5 KiB");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("(INVALID_REQUEST)").waitFor();
  await page.getByLabel("Segment size").fill("");
  await page.getByLabel("Keep for").fill("");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("kept for ever").waitFor();
});

test("what of a topic is archived, and stays here, is set and reset", async () => {
  await comlog(server, ["topic", "create", "stored"]);
  const page = await openPage(browser, topicUrl(server, "stored"));
  await page.getByRole("tab", { name: "Settings" }).click();
  await page.getByLabel("Archive", { exact: true }).selectOption("off");
  await page.getByLabel("Keep archived here for").fill("1 d");
  await page.getByLabel("Keep archived here at most").fill("0");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await isConfigured("stored", { archive: false, local_retention_bytes: 0, local_retention_ms: 86_400_000 });
  await page.reload();
  await page.getByRole("tab", { name: "Settings" }).click();
  assert.equal(await page.getByLabel("Archive", { exact: true }).inputValue(), "off");
  assert.equal(await page.getByLabel("Keep archived here at most").inputValue(), "0 B");
  await page.getByLabel("Archive", { exact: true }).selectOption("on");
  await page.getByLabel("Keep archived here for").fill("");
  await page.getByLabel("Keep archived here at most").fill("");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await isConfigured("stored", { archive: true });
});

/** Waits until the command line shows these settings of a topic, and no others. */
async function isConfigured(topic: string, expected: object): Promise<void> {
  const until = Date.now() + PATIENCE;
  for (;;) {
    const { config } = JSON.parse(await comlog(server, ["topic", "describe", topic, "-o", "json"]));
    if (isDeepStrictEqual(config, expected)) return;
    assert.ok(Date.now() < until, `configured as ${JSON.stringify(config)}`);
    await setTimeout(50);
  }
}
