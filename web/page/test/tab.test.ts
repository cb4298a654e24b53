/** The log in the tab, and segment files. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import type { Page } from "playwright-core";

import { archivedTopic } from "../../packages/comlog/test/archived.js";
import { consumed } from "../../packages/comlog/test/cli.js";
import { append, comlog, holds, lines, openPage, records, startBrowser, startServer, type Line } from "./support.js";

const server = await startServer();
const browser = await startBrowser();
const folder = await mkdtemp(join(tmpdir(), "comlog-page-"));
after(() => rm(folder, { recursive: true }));

test("records appended without a connection are copied to the server when it is back", async () => {
  const page = await openPage(browser, `${server.url}/?view=tab`);
  await server.kill();
  await page.getByText("No connection to").waitFor();
  await page.getByLabel("Key", { exact: true }).fill("k");
  await page.getByLabel("Headers", { exact: true }).fill("from=tab");
  await append(page, "offline");
  await page.getByLabel("A record for each line").check();
  await append(page, "one\ntwo");
  await holds(page, 3);
  const local = await records(page);
  await server.restart();
  await page.getByText("Connected", { exact: true }).waitFor();
  await transfer(page, "landed", "To the server");
  await page.getByText("3 records copied to landed/0.").waitFor();
  const read = await consumed(server.url, "landed");
  assert.deepEqual(withoutTopic(read), withoutTopic(local), "keys, values, headers and timestamps");
});

test("records of the server are copied into the tab, from an offset on", async () => {
  await comlog(server, ["produce", "source", "--no-progress", "--compression", "zstd"], lines(5000, "value "));
  const page = await openPage(browser, `${server.url}/?view=tab`);
  await page.getByText("The log is empty.").waitFor();
  await transfer(page, "source", "From the server", 4000);
  await page.getByText("1,000 records copied from source/0.").waitFor();
  await holds(page, 1000);
  const values = (await records(page)).map(({ value }) => value);
  assert.deepEqual(
    values,
    Array.from({ length: 1000 }, (_, index) => `value ${4000 + index}`),
  );
});

test("a segment saved from the tab is read by the command line and by the page", async () => {
  const page = await openPage(browser, `${server.url}/?view=tab`);
  await page.getByLabel("Compression").selectOption("gzip");
  await page.getByLabel("A record for each line").check();
  await append(page, lines(300, "line "));
  await holds(page, 300);
  const inTab = await records(page);
  await page.getByRole("tab", { name: "Segments" }).click();
  const saving = page.waitForEvent("download");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  const path = join(folder, (await saving).suggestedFilename());
  await (await saving).saveAs(path);
  assert.match(path, /0{20}\.log$/);
  assert.match(await comlog(server, ["inspect", path]), /300/);
  await page.goto(`${server.url}/?view=segment`);
  await page.setInputFiles('input[type="file"]', path);
  await holds(page, 300);
  assert.deepEqual(withoutTopic(await records(page)), withoutTopic(inTab));
});

test("a segment the server wrote shows the same records, and where it is damaged", async () => {
  for (let batch = 0; batch < 3; batch += 1) {
    await comlog(server, ["produce", "kept", "--no-progress", "--compression", "zstd"], lines(100, `batch ${batch} `));
  }
  const written = await consumed(server.url, "kept");
  const path = await segmentOf("kept");
  const page = await openPage(browser, `${server.url}/?view=segment`);
  await page.setInputFiles('input[type="file"]', path);
  await page.getByText(/ · \d+ batches · 300 records · offsets 0 to 299$/).waitFor();
  assert.deepEqual(withoutTopic(await records(page)), withoutTopic(written));

  const bytes = await readFile(path);
  const second = 12 + bytes.readInt32BE(8);
  const first = Number(bytes.readBigInt64BE(second));
  const last = first + bytes.readInt32BE(second + 23);
  bytes[second + 80] = (bytes[second + 80] as number) ^ 0xff;
  const damaged = join(folder, "00000000000000000000.log");
  await writeFile(damaged, bytes);
  await page.setInputFiles('input[type="file"]', damaged);
  await page.getByRole("alert").getByText("Damaged:").waitFor();
  await page.getByText(`${300 - (last - first + 1)} records · `).waitFor();
  const around = withoutTopic(written).filter(({ offset }) => offset < first || offset > last);
  assert.deepEqual(withoutTopic(await records(page)), around, "what is around the damage is read");
});

test("a segment of the archive that is dropped onto the page shows the records of the command line", async () => {
  const archived = await archivedTopic();
  after(() => archived.remove());
  const page = await openPage(browser, `${server.url}/?view=segment`);
  let next = 0;
  for (const name of archived.segments) {
    await drop(page, name, await readFile(join(archived.folder, archived.partition, name)));
    const end = Number(name.split("-")[1]);
    await page.getByText(`${(end - next).toLocaleString("en")} records · offsets ${next.toLocaleString("en")} to`).waitFor();
    assert.deepEqual(withoutTopic(await records(page)), withoutTopic(archived.records.slice(next, end)), name);
    next = end;
  }
  assert.equal(next, archived.records.length, "the segments are the whole topic");
});

test("what is no segment is refused", async () => {
  const path = join(folder, "notes.log");
  await writeFile(path, "these are notes, and no batches at all\n".repeat(50));
  const page = await openPage(browser, `${server.url}/?view=segment`);
  await page.setInputFiles('input[type="file"]', path);
  await page.getByText("There are no records in this file.").waitFor();
  await page.getByRole("alert").getByText("Damaged:").waitFor();
});

async function transfer(page: Page, topic: string, button: string, from = 0): Promise<void> {
  await page.getByRole("tab", { name: "Copy" }).click();
  await page.getByLabel("Topic", { exact: true }).fill(topic);
  await page.getByLabel("From offset").fill(String(from));
  await page.getByRole("button", { name: button }).click();
}

function withoutTopic(all: readonly Line[]): Omit<Line, "topic">[] {
  return all.map(({ topic: _, ...rest }) => rest);
}

/** The segment file of a topic: its folder bears the topic's id. */
async function segmentOf(topic: string): Promise<string> {
  const described = await comlog(server, ["topic", "describe", topic, "-o", "json"]);
  const id = /"id":\s*"([0-9a-f]{32})"/.exec(described)?.[1] ?? "";
  const at = join(server.data, "topics", id, "0");
  const name = (await readdir(at)).find((file) => file.endsWith(".log")) ?? "";
  return join(at, name);
}

/** Drops a file onto the page, as a person does. */
async function drop(page: Page, name: string, content: Buffer): Promise<void> {
  const transfer = await page.evaluateHandle(
    ([fileName, base64]) => {
      const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
      const carried = new DataTransfer();
      carried.items.add(new File([bytes], fileName));
      return carried;
    },
    [name, content.toString("base64")] as const,
  );
  const target = page.locator(".view.segment");
  for (const event of ["dragenter", "dragover", "drop"]) await target.dispatchEvent(event, { dataTransfer: transfer });
}
