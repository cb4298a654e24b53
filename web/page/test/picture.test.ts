/** The pictures of the README, taken of the real page; `npm run picture` puts them there. */
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";

import { append, comlog, openPage, startBrowser, startServer, topicUrl } from "./support.js";

const FOLDER = process.env["PICTURES"] ?? "build/pictures";
/** How long records come before the pictures are taken, so that the charts show something. */
const SECONDS = 14;
const FRUIT = ["apples", "pears", "plums", "quinces", "medlars"];

const server = await startServer();
const browser = await startBrowser();

/** Orders of a shop, as JSON. */
function orders(from: number, count: number): string {
  const line = (n: number): string => {
    const order = { order: 4000 + n, item: FRUIT[n % FRUIT.length], amount: 1 + ((n * 7) % 12), paid: n % 4 !== 0 };
    return `customer-${(n * 13) % 29}:${JSON.stringify(order)}\n`;
  };
  return Array.from({ length: count }, (_, index) => line(from + index)).join("");
}

test("the page as a picture", async () => {
  await comlog(server, ["topic", "create", "orders", "--partitions", "4", "--retention-time", "30d"]);
  const produce = ["produce", "orders", "--no-progress", "--key-separator", ":", "--header", "source=shop"];
  await comlog(server, produce, orders(0, 2000));
  const size = { viewport: { width: 1280, height: 760 } };
  const pages = await Promise.all([
    openPage(browser, topicUrl(server, "orders"), { ...size, colorScheme: "light" }),
    openPage(browser, topicUrl(server, "orders"), { ...size, colorScheme: "dark" }),
  ]);
  for (let second = 0; second < SECONDS; second += 1) {
    await comlog(server, produce, orders(2000 + second * 90, 60 + 30 * ((second * 5) % 7)));
    for (const page of pages) await append(page, JSON.stringify({ order: second, item: "apples", note: "by hand" }));
    await wait(1_000);
  }
  await mkdir(FOLDER, { recursive: true });
  for (const [page, name] of [
    [pages[0], "light"],
    [pages[1], "dark"],
  ] as const) {
    await page.getByRole("grid").press("End");
    for (let up = 0; up < 4; up += 1) await page.keyboard.press("ArrowUp");
    await page.keyboard.press("Enter");
    await page.locator("pre.value", { hasText: "order" }).waitFor();
    const picture = await page.screenshot({ path: `${FOLDER}/page-${name}.png` });
    assert.ok(picture.length > 10_000);
  }
});
