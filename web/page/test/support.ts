/** Chromium on one side, the command line on the other, the real server between them. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after } from "node:test";

import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";

import { comlog as run, type Line } from "../../packages/comlog/test/cli.js";
import { Server } from "../../packages/comlog/test/server.js";

export { Server, type Line };

/** Longer than anything here takes; what waits this long has failed. */
export const PATIENCE = 60_000;
const WIDE = { width: 1440, height: 900 };
const ARGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export async function startServer(...args: string[]): Promise<Server> {
  const server = await Server.start(...args);
  after(() => server.stop());
  return server;
}

/** A browser with a profile of its own, for the tests of one file. */
export async function startBrowser(): Promise<Browser> {
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ARGS });
  after(() => browser.close());
  return browser;
}

/** What a page complained about: refused by its policy, or never caught. */
const complaints: string[] = [];
after(() => assert.deepEqual(complaints, []));

/** A page of a browser profile of its own. */
export async function openPage(browser: Browser, url: string, options: BrowserContextOptions = {}): Promise<Page> {
  const context = await browser.newContext({ viewport: WIDE, ...options });
  return openTab(await context.newPage(), url);
}

/** Loads the page in a tab, and listens to what it complains about. */
export async function openTab(page: Page, url: string): Promise<Page> {
  page.setDefaultTimeout(PATIENCE);
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (line) => {
    if (/Content Security Policy|Trusted Type/.test(line.text())) complaints.push(line.text());
  });
  await page.goto(url);
  await page.getByText("Connected", { exact: true }).waitFor();
  return page;
}

/** Runs `comlog`, and gives what it wrote; fails when it does. */
export function comlog(server: Server, args: string[], input: string | Uint8Array = ""): Promise<string> {
  return run(server.url, args, input);
}

/** Every record that a page holds, as it saves them. */
export async function records(page: Page): Promise<Line[]> {
  const saving = page.waitForEvent("download");
  await page.getByRole("button", { name: "Save as NDJSON" }).click();
  const path = await (await saving).path();
  const text = await readFile(path, "utf8");
  return text
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line);
}

/** Waits until a page holds this many records. */
export async function holds(page: Page, count: number): Promise<void> {
  const text = `${count.toLocaleString("en")} record${count === 1 ? "" : "s"}`;
  await page.locator(".shown", { hasText: new RegExp(`^${text}$`) }).waitFor();
}

/** Appends a value in the page and waits until it is acknowledged. */
export async function append(page: Page, value: string): Promise<void> {
  await page.getByRole("tab", { name: "Append" }).click();
  await page.getByLabel("Value", { exact: true }).fill(value);
  await page.getByLabel("Value", { exact: true }).press("Control+Enter");
  await page.locator(".produce .result", { hasText: "acknowledged" }).first().waitFor();
}

/** `0` to `count - 1`, one on each line. */
export function lines(count: number, prefix = ""): string {
  return Array.from({ length: count }, (_, index) => `${prefix}${index}\n`).join("");
}

export function topicUrl(server: Server, topic: string, query = ""): string {
  return `${server.url}/?topic=${topic}${query}`;
}
