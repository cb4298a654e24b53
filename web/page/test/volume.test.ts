/** Many records, and many pages. */
import assert from "node:assert/strict";
import { test } from "node:test";

import type { Page } from "playwright-core";

import { comlog, holds, lines, openPage, openTab, records, startBrowser, startServer, topicUrl } from "./support.js";

/** What a page that holds its 100,000 records of about 100 bytes may use; said in the README. */
const HEAP_MAX = 128 * 1024 * 1024;
const ROWS_MAX = 100_000;
const PAD = "x".repeat(90);

const server = await startServer();
const browser = await startBrowser();

test("a tail of 300,000 records keeps 100,000, in bounded memory, and scrolls", async () => {
  await comlog(server, ["produce", "long", "--no-progress"], lines(ROWS_MAX, PAD));
  const page = await openPage(browser, topicUrl(server, "long", "&offset=earliest"));
  await holds(page, ROWS_MAX);
  const full = await heap(page);
  await comlog(server, ["produce", "long", "--no-progress"], lines(2 * ROWS_MAX, PAD));
  await page.locator(".line .offset", { hasText: /^299999$/ }).waitFor();
  const after = await heap(page);
  console.log(`heap: ${mib(full)} with 100,000 records, ${mib(after)} after 300,000`);
  assert.ok(Math.max(full, after) < HEAP_MAX, `${mib(full)}, ${mib(after)}`);

  assert.ok((await page.locator(".line").count()) < 100, "only lines in sight are elements");
  const grid = page.getByRole("grid");
  assert.equal(await grid.getAttribute("aria-rowcount"), String(ROWS_MAX + 1));
  await grid.focus();
  await page.keyboard.press("Home");
  await page.locator(".line .offset", { hasText: /^200000$/ }).waitFor();
  await grid.evaluate((element) => element.scrollTo(0, element.scrollHeight / 2));
  await page.locator(".line .offset", { hasText: /^250000$/ }).waitFor();
  const held = (await records(page)).map(({ offset }) => offset);
  assert.deepEqual(
    held,
    Array.from({ length: ROWS_MAX }, (_, index) => 2 * ROWS_MAX + index),
  );
});

test("scrolled up, the list stands still while records come", async () => {
  await comlog(server, ["produce", "still", "--no-progress"], lines(400));
  const page = await openPage(browser, topicUrl(server, "still"));
  await holds(page, 400);
  const grid = page.getByRole("grid");
  await grid.evaluate((element) => element.scrollTo(0, 100 * 26));
  const line = page.locator(".line .offset", { hasText: /^105$/ });
  const before = await line.boundingBox();
  await comlog(server, ["produce", "still", "--no-progress"], lines(400));
  await holds(page, 800);
  assert.deepEqual(await line.boundingBox(), before);
  await page.getByRole("button", { name: "To the end" }).click();
  await page.locator(".line .offset", { hasText: /^799$/ }).waitFor();
});

test("a record that is opened stays where it is while records come", async () => {
  await comlog(server, ["produce", "opened", "--no-progress"], lines(400));
  const page = await openPage(browser, topicUrl(server, "opened"));
  await holds(page, 400);
  const offset = page.locator(".offset", { hasText: /^395$/ });
  const line = page.locator(".line", { has: offset });
  await line.click();
  const before = await line.boundingBox();
  await comlog(server, ["produce", "opened", "--no-progress"], lines(400));
  await holds(page, 800);
  assert.deepEqual(await line.boundingBox(), before);
  await page.getByRole("button", { name: "To the end" }).click();
  await page.locator(".line .offset", { hasText: /^799$/ }).waitFor();
  await comlog(server, ["produce", "opened", "--no-progress"], lines(400));
  await page.locator(".line .offset", { hasText: /^1199$/ }).waitFor();
  await page.getByRole("grid").press("Enter");
  await line.waitFor();
  assert.equal(await line.getAttribute("aria-selected"), "true");
});

test("beside ten tabs that tail over plain HTTP a call is answered within a second", async () => {
  await comlog(server, ["topic", "create", "crowd", "--partitions", "3"]);
  const context = await browser.newContext();
  const tabs: Page[] = [];
  for (let tab = 0; tab < 10; tab += 1) tabs.push(await openTab(await context.newPage(), topicUrl(server, "crowd")));
  await comlog(server, ["produce", "crowd", "--no-progress", "--partition", "1"], lines(20));
  for (const tab of tabs) await holds(tab, 20);
  // A call that has to wait for a connection waits until it is given up, as no tail ends; one of several may be slow
  // because the machine is busy.
  const calls: number[] = [];
  for (let call = 0; call < 5; call += 1) calls.push(await (tabs[9] as Page).evaluate(callNow));
  const took = Math.min(...calls);
  console.log(`the fastest call beside ten tails took ${took.toFixed(0)} ms`);
  assert.ok(took < 1_000, `${took} ms`);
  await comlog(server, ["produce", "crowd", "--no-progress", "--partition", "2"], lines(20));
  for (const tab of tabs) {
    await holds(tab, 40);
    const seen = (await records(tab)).map(({ partition, offset }) => `${partition}/${offset}`);
    assert.deepEqual(
      seen.slice(20),
      Array.from({ length: 20 }, (_, offset) => `2/${offset}`),
    );
  }
  await context.close();
});

/** In the page: how long ListTopics takes, in milliseconds. */
async function callNow(): Promise<number> {
  const started = performance.now();
  const answer = await fetch("/comlog.v1.TopicService/ListTopics", {
    method: "POST",
    headers: { "content-type": "application/grpc-web+proto", "x-grpc-web": "1" },
    body: new Uint8Array(5),
    signal: AbortSignal.timeout(30_000),
  });
  await answer.arrayBuffer();
  return performance.now() - started;
}

/** Bytes of JavaScript's heap, what nobody holds any more collected. */
async function heap(page: Page): Promise<number> {
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.collectGarbage");
  const {
    usedSize,
    embedderHeapUsedSize = 0,
    backingStorageSize = 0,
  } = (await session.send("Runtime.getHeapUsage")) as {
    usedSize: number;
    embedderHeapUsedSize?: number;
    backingStorageSize?: number;
  };
  await session.detach();
  return usedSize + embedderHeapUsedSize + backingStorageSize;
}

function mib(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(0)} MiB`;
}
