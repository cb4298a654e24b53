/** Records between the page, the command line and other pages. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { append, comlog, holds, lines, openPage, records, startBrowser, startServer, topicUrl } from "./support.js";

const server = await startServer();
const browser = await startBrowser();

test("what is produced in the page is read by the command line", async () => {
  await comlog(server, ["topic", "create", "out", "--partitions", "3"]);
  const page = await openPage(browser, topicUrl(server, "out"));
  await page.getByLabel("Key", { exact: true }).fill("alice");
  await page.getByLabel("Headers", { exact: true }).fill("source=page\nempty");
  await append(page, 'größe: 2 "apples"');
  await page.getByLabel("A record for each line").check();
  await append(page, "one\ntwo\nthree");
  await holds(page, 4);
  const read = (await comlog(server, ["consume", "out", "-o", "json"]))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    read.map(({ value }) => value),
    ['größe: 2 "apples"', "one", "two", "three"],
  );
  assert.deepEqual(new Set(read.map(({ key }) => key)), new Set(["alice"]));
  assert.deepEqual(read[0].headers, [
    { name: "source", value: "page" },
    { name: "empty", value: null },
  ]);
  assert.deepEqual(await records(page), read, "the page saves what the command prints");
});

test("what the command line produces is seen in the page as it comes", async () => {
  await comlog(server, ["produce", "in", "--no-progress"], "before\n");
  const page = await openPage(browser, topicUrl(server, "in"));
  await holds(page, 1);
  await comlog(server, ["produce", "in", "--no-progress", "--key-separator", ":"], "k:after\n");
  await holds(page, 2);
  const seen = await records(page);
  assert.deepEqual(
    seen.map(({ key, value }) => [key, value]),
    [
      [null, "before"],
      ["k", "after"],
    ],
  );
});

test("two pages see each other's records, in the same order", async () => {
  await comlog(server, ["topic", "create", "shared"]);
  const first = await openPage(browser, topicUrl(server, "shared"));
  const second = await openPage(browser, topicUrl(server, "shared"));
  for (let number = 0; number < 5; number += 1) {
    await Promise.all([append(first, `first ${number}`), append(second, `second ${number}`)]);
  }
  await Promise.all([holds(first, 10), holds(second, 10)]);
  const [a, b] = [await records(first), await records(second)];
  assert.deepEqual(a, b);
  assert.deepEqual(
    a.map(({ offset }) => offset),
    Array.from({ length: 10 }, (_, offset) => offset),
  );
});

test("a rate of records is kept up and acknowledged", async () => {
  await comlog(server, ["topic", "create", "rate"]);
  const page = await openPage(browser, topicUrl(server, "rate"));
  await page.getByRole("spinbutton", { name: "Records/s" }).fill("50");
  await page.getByRole("button", { name: "Start" }).click();
  await page.locator(".produce .result", { hasText: /\d+ acknowledged, .*p99/ }).waitFor();
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByRole("button", { name: "Start" }).waitFor();
  const read = (await comlog(server, ["consume", "rate"]))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line).n);
  assert.ok(read.length > 0);
  assert.deepEqual(
    read,
    Array.from(read, (_, n) => n),
    "each once, in order",
  );
});

test("partitions, offset and filter of the address decide what is read", async () => {
  await comlog(server, ["topic", "create", "many", "--partitions", "2"]);
  await comlog(server, ["produce", "many", "--no-progress", "--partition", "0"], lines(20, "zero "));
  await comlog(server, ["produce", "many", "--no-progress", "--partition", "1"], lines(20, "one "));
  const page = await openPage(browser, topicUrl(server, "many", "&partition=1&offset=15"));
  await holds(page, 5);
  assert.deepEqual(
    (await records(page)).map(({ value }) => value),
    ["one 15", "one 16", "one 17", "one 18", "one 19"],
  );
  await page.getByLabel("Filter records").fill("/1[78]$/");
  await page.getByText("2 of 5 records").waitFor();
  await page.reload();
  await page.getByText("2 of 5 records").waitFor();
  assert.match(page.url(), /partition=1&offset=15&filter=/);
});

test("partitions are chosen in the menu, by box or by number", async () => {
  for (const [topic, partitions] of [
    ["few", 3],
    ["hundred", 100],
  ] as const) {
    await comlog(server, ["topic", "create", topic, "--partitions", String(partitions)]);
    for (const partition of [0, 1, 2]) {
      await comlog(server, ["produce", topic, "--no-progress", "--partition", String(partition)], `in ${partition}\n`);
    }
    const page = await openPage(browser, topicUrl(server, topic));
    await holds(page, 3);
    await page.getByText(`All ${partitions} partitions`).click();
    if (topic === "few") {
      await page.getByRole("checkbox", { name: "0" }).check();
      await page.getByRole("checkbox", { name: "2" }).check();
    } else {
      await page.getByRole("textbox", { name: "Partitions" }).fill("2, 0, 4711");
    }
    await page.getByRole("button", { name: "Follow these" }).click();
    await holds(page, 2);
    assert.deepEqual(
      (await records(page)).map(({ value }) => value),
      ["in 0", "in 2"],
    );
    assert.match(page.url(), /partition=0,2/);
  }
});

test("the past of several partitions is shown by time", async () => {
  await comlog(server, ["topic", "create", "woven", "--partitions", "3"]);
  for (const [partition, value] of [
    [2, "first"],
    [0, "second"],
    [1, "third"],
    [0, "fourth"],
    [2, "fifth"],
  ] as const) {
    await comlog(server, ["produce", "woven", "--no-progress", "--partition", String(partition)], `${value}\n`);
  }
  const page = await openPage(browser, topicUrl(server, "woven"));
  await holds(page, 5);
  assert.deepEqual(
    (await records(page)).map(({ value }) => value),
    ["first", "second", "third", "fourth", "fifth"],
  );
});

test("a start in time is found", async () => {
  for (const value of ["old", "older", "young"])
    await comlog(server, ["produce", "timed", "--no-progress"], `${value}\n`);
  const all = (await comlog(server, ["consume", "timed", "-o", "json"]))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.notEqual(all[1].timestamp_ms, all[2].timestamp_ms, "the command takes longer than a millisecond to start");
  const at = new Date(all[2].timestamp_ms).toISOString();
  const page = await openPage(browser, topicUrl(server, "timed", `&offset=@${at}`));
  await holds(page, 1);
  assert.deepEqual(await records(page), [all[2]]);
});

test("paused, the list stands still, and resumed it misses nothing", async () => {
  await comlog(server, ["produce", "pausing", "--no-progress"], lines(10));
  const page = await openPage(browser, topicUrl(server, "pausing"));
  await holds(page, 10);
  await page.getByRole("button", { name: "Pause" }).click();
  await comlog(server, ["produce", "pausing", "--no-progress"], lines(10, "more "));
  await page.getByText("20 records ·").waitFor();
  await holds(page, 10);
  await page.getByRole("button", { name: "Resume" }).click();
  await holds(page, 20);
  assert.deepEqual(
    (await records(page)).map(({ offset }) => offset),
    Array.from({ length: 20 }, (_, offset) => offset),
  );
});
