/** Keys, names, colours, zones: what it is like to use. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { append, comlog, holds, lines, openPage, startBrowser, startServer, topicUrl } from "./support.js";

const server = await startServer();
const browser = await startBrowser();

test("records are found and opened by keyboard alone", async () => {
  await comlog(server, ["produce", "keys", "--no-progress"], '{"a":[1,{}],"big":12345678901234567890}\nplain\n');
  const page = await openPage(browser, topicUrl(server, "keys"));
  await holds(page, 2);
  await page.getByLabel("Filter records").focus();
  await page.keyboard.press("Tab");
  const grid = page.getByRole("grid");
  assert.ok(await grid.evaluate((element) => element === document.activeElement), "the list is the next stop");
  await page.keyboard.press("Home");
  await page.keyboard.press("Enter");
  const value = page.getByLabel("Value", { exact: true }).and(page.locator("pre"));
  await value.waitFor();
  assert.equal(await value.textContent(), '{\n  "a": [\n    1,\n    {}\n  ],\n  "big": 12345678901234567890\n}');
  assert.match(page.url(), /record=0\/0/);
  await page.getByRole("button", { name: "Hex" }).click();
  assert.match((await value.textContent()) ?? "", /^00000000 {2}7b 22 61 22.{22}\n00000008 /);
  const isWrapped = await value.evaluate((element) => {
    const height = element.clientHeight;
    element.style.whiteSpace = "pre";
    return element.clientHeight !== height || element.scrollWidth > element.clientWidth;
  });
  assert.ok(!isWrapped, "a row of hex fits a line");
  const active = await grid.getAttribute("aria-activedescendant");
  assert.equal(await page.locator(`[id="${active}"]`).getAttribute("aria-selected"), "true");
});

test("partitions that are added while a topic is followed are read from their beginning", async () => {
  await comlog(server, ["produce", "grows", "--no-progress"], "first\n");
  const page = await openPage(browser, topicUrl(server, "grows"));
  await holds(page, 1);
  await comlog(server, ["topic", "alter", "grows", "--partitions", "3"]);
  await comlog(server, ["produce", "grows", "--no-progress", "--partition", "2"], "second\n");
  await holds(page, 2);
  await page.locator(".line", { hasText: "second" }).waitFor();
});

test("a link opens the record it names", async () => {
  await comlog(server, ["produce", "linked", "--no-progress"], lines(900, "value "));
  const page = await openPage(browser, topicUrl(server, "linked", "&record=0/7"));
  await page.locator("pre.value", { hasText: /^value 7$/ }).waitFor();
});

test("a large value is shown in part and saved whole, a binary one is shown as hex", async () => {
  const large = Buffer.alloc(1_000_000, "0123456789");
  const binary = Buffer.from([0xff, 0x00, 0x80]);
  const frames = [large, binary].flatMap((value) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(value.length);
    return [length, value];
  });
  await comlog(server, ["produce", "sizes", "--no-progress", "--framing", "length"], Buffer.concat(frames));
  const page = await openPage(browser, topicUrl(server, "sizes", "&record=0/0"));
  await page.getByText("The first 128.0 KiB of 976.6 KiB.").waitFor();
  const saving = page.waitForEvent("download");
  await page.getByRole("button", { name: "Save", exact: true }).and(page.locator(".detail button")).click();
  assert.deepEqual(await readFile(await (await saving).path()), large);
  await page.locator(".line", { hasText: "ff 00 80" }).click();
  await page.locator("pre.value", { hasText: /^00000000 {2}ff 00 80 +\.\.\.$/ }).waitFor();
});

test("the time zone is chosen and remembered", async () => {
  await comlog(server, ["produce", "zones", "--no-progress"], lines(1));
  const page = await openPage(browser, topicUrl(server, "zones"));
  await holds(page, 1);
  const [line] = (await comlog(server, ["consume", "zones", "-o", "json"])).split("\n");
  const there = new Date(JSON.parse(line as string).timestamp_ms + 9 * 3_600_000)
    .toISOString()
    .replace("T", " ")
    .replace("Z", "");
  await page.getByLabel("Time zone").selectOption("Asia/Tokyo");
  await page.locator(".line .time", { hasText: there }).waitFor();
  await page.reload();
  await page.locator(".line .time", { hasText: there }).waitFor();
});

test("the command that is copied reads what the page reads", async () => {
  await comlog(server, ["produce", "copied", "--no-progress"], lines(5));
  const permissions = ["clipboard-read", "clipboard-write"];
  const page = await openPage(browser, topicUrl(server, "copied", "&partition=0&offset=3"), { permissions });
  await holds(page, 2);
  await page.getByRole("button", { name: "Copy command" }).click();
  await page.getByRole("status").getByText("Command copied").waitFor();
  const command = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(command, `comlog consume copied --partition 0 --server ${server.url} --from 3 --follow`);
  const words = command
    .split(" ")
    .slice(1)
    .filter((word) => word !== "--follow");
  assert.equal(await comlog(server, words), "3\n4\n");
});

test("every control has a name and the contrast is enough, in both colour schemes", async () => {
  await comlog(server, ["produce", "seen", "--no-progress"], lines(5));
  for (const colorScheme of ["light", "dark"] as const) {
    const page = await openPage(browser, topicUrl(server, "seen"), { colorScheme });
    await holds(page, 5);
    for (const tab of ["Append", "Partitions", "Settings"]) {
      await page.getByRole("tab", { name: tab }).click();
      assert.deepEqual(await page.evaluate(unnamed), [], `without a name (${tab})`);
      assert.deepEqual(await page.evaluate(faint), [], `below 4.5:1 (${colorScheme}, ${tab})`);
    }
  }
});

test("nothing sticks out of a narrow window", async () => {
  await comlog(server, ["produce", "narrow", "--no-progress", "--key-separator", ":"], "key:value\n");
  const page = await openPage(browser, topicUrl(server, "narrow"), { viewport: { width: 360, height: 740 } });
  await append(page, "x".repeat(500));
  await holds(page, 2);
  for (const url of [page.url(), server.url]) {
    await page.goto(url);
    await page.getByRole("heading", { level: 1 }).waitFor();
    const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok((wide as number) <= (room as number), `${url}: ${wide} in ${room}`);
  }
});

/** In the page: controls that a screen reader cannot name. */
function unnamed(): string[] {
  const controls = document.querySelectorAll<HTMLElement>("button, input, select, textarea, a, summary");
  return [...controls]
    .filter((control) => {
      const labels = (control as HTMLInputElement).labels;
      return ![control.getAttribute("aria-label"), control.textContent, labels?.[0]?.textContent].some((name) =>
        name?.trim(),
      );
    })
    .map((control) => control.outerHTML);
}

/** In the page: texts whose colour is too near to what is behind them (WCAG 2, level AA). */
function faint(): string[] {
  const numbers = (color: string): number[] => (color.match(/[\d.]+/g) ?? []).map(Number);
  const light = (color: string): number => {
    const [r = 0, g = 0, b = 0] = numbers(color).map((part) => {
      const value = part / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element: Element | null): string => {
    if (!element) return "rgb(255, 255, 255)";
    const color = getComputedStyle(element).backgroundColor;
    return (numbers(color)[3] ?? 1) > 0 ? color : behind(element.parentElement);
  };
  const shown = [...document.querySelectorAll<HTMLElement>("body *")].filter((element) => {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent?.trim());
    return own && element.checkVisibility() && !element.matches(":disabled, option");
  });
  return shown.flatMap((element) => {
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    return ratio < 4.5 ? [`${ratio.toFixed(1)} ${element.outerHTML.slice(0, 120)}`] : [];
  });
}
