// A log that runs in this tab: the server's own engine, in wasm, in memory.

import type { MemoryLog } from "comlog/log";

import { announce } from "../announce";
import { client, explain, isAbort } from "../api";
import { field, openDialog } from "../dialog";
import { fill, h, setText } from "../dom";
import { count, plural, size } from "../format";
import { BYTES_MAX, changes, closeLocalLog, LocalTarget, localLog } from "../local_log";
import { RecordBrowser } from "../records/browser";
import { Detail, saveAs } from "../records/detail";
import { Rows } from "../records/rows";
import { go } from "../route";
import { trouble } from "../shell";
import { Tabs } from "../tabs";
import { copyFromServer, copyToServer, type OnStep, type Place } from "../transfer";
import { ProducePanel, type Compression } from "./produce";

/** Bytes of records taken into the list in one turn. */
const TURN_BYTES = 512 * 1024;
const NAME = "tab";
/** What the wasm build can write; it reads all. */
const COMPRESSIONS: Compression[] = ["none", "gzip", "snappy", "lz4"];

export async function tabView(lifetime: AbortSignal): Promise<HTMLElement> {
  try {
    return new TabView(await localLog(), lifetime).element;
  } catch (error) {
    const text = `The log could not be loaded: ${explain(error)}`;
    return h(
      "section",
      { class: "view" },
      h("h1", {}, "Log in this tab"),
      trouble(text, () => go({ view: "tab" })),
    );
  }
}

class TabView {
  readonly element: HTMLElement;
  readonly #log: MemoryLog;
  readonly #lifetime: AbortSignal;
  readonly #rows = new Rows();
  readonly #browser: RecordBrowser;
  readonly #detail = new Detail();
  readonly #tabs: Tabs;
  readonly #summary = h("p", { class: "summary" });
  readonly #facts = h("div");
  #next: bigint;
  #reading = false;

  constructor(log: MemoryLog, lifetime: AbortSignal) {
    this.#log = log;
    this.#lifetime = lifetime;
    this.#next = log.stats().startOffset;
    this.#browser = new RecordBrowser(
      this.#rows,
      {
        name: NAME,
        partitions: false,
        follow: true,
        onOpen: (row) => {
          this.#detail.show(row, NAME);
          this.#browser.list.mark(row);
          this.#tabs.reveal("record");
        },
      },
      lifetime,
    );
    const produce = new ProducePanel(new LocalTarget(log), { partitions: false, compressions: COMPRESSIONS }, lifetime);
    this.#tabs = new Tabs("Log in this tab", [
      { id: "append", label: "Append", panel: h("div", {}, produce.element) },
      { id: "record", label: "Record", panel: h("div", {}, this.#detail.element) },
      { id: "copy", label: "Copy", panel: h("div", {}, this.#copyForm()) },
      { id: "segments", label: "Segments", panel: h("div", {}, this.#facts) },
    ]);
    const close = h("button", { type: "button", onclick: () => void this.#close() }, "Close the log…");
    const title = h(
      "div",
      { class: "title" },
      h("h1", {}, "Log in this tab"),
      this.#summary,
      h("div", { class: "actions" }, close),
    );
    const about = h(
      "p",
      { class: "hint" },
      "The server's own engine, compiled to wasm, in this tab's memory. It needs no connection, and is gone when the tab is closed.",
    );
    this.element = h(
      "section",
      { class: "view topic" },
      title,
      about,
      h("div", { class: "columns" }, this.#browser.element, this.#tabs.element),
    );
    changes.watch(lifetime, () => void this.#read());
  }

  /** Takes what was appended into the list. */
  async #read(): Promise<void> {
    if (this.#reading || this.#log.closed) return;
    this.#reading = true;
    const { startOffset } = this.#log.stats();
    if (this.#next < startOffset) this.#next = startOffset;
    while (!this.#lifetime.aborted && !this.#log.closed && this.#next < this.#log.stats().endOffset) {
      const { records, nextOffset } = this.#log.read(this.#next, { maxBytes: TURN_BYTES });
      for (const record of records) this.#rows.push({ ...record, partition: 0, timestamp: Number(record.timestamp) });
      this.#next = nextOffset;
      this.#browser.refresh();
      await new Promise((resolve) => requestAnimationFrame(resolve));
    }
    this.#reading = false;
    this.#show();
  }

  #show(): void {
    if (this.#log.closed) return;
    const stats = this.#log.stats();
    const records = stats.endOffset - stats.startOffset;
    const offsets = records > 0n ? ` · offsets ${count(stats.startOffset)} to ${count(stats.endOffset - 1n)}` : "";
    setText(this.#summary, `${plural(records, "record")}${offsets} · ${size(stats.bytes)} of ${size(BYTES_MAX)}`);
    this.#browser.explainEmpty(
      this.#rows.end > this.#rows.first
        ? undefined
        : "The log is empty. Append to it, or copy records from the server.",
    );
    setText(this.#browser.status, "In memory");
    fill(this.#facts, this.#segments(stats));
  }

  #segments(stats: ReturnType<MemoryLog["stats"]>): HTMLElement {
    const rows = stats.segments.map((segment) => {
      const save = h(
        "button",
        { type: "button", class: "plain", onclick: () => this.#saveSegment(segment.baseOffset) },
        "Save",
      );
      return h(
        "tr",
        {},
        h("th", { scope: "row" }, count(segment.baseOffset)),
        h("td", { class: "number" }, size(segment.bytes)),
        h("td", { class: "number" }, save),
      );
    });
    const head = h(
      "tr",
      {},
      h("th", { scope: "col" }, "Base offset"),
      h("th", { scope: "col", class: "number" }, "Size"),
      h("th", { scope: "col" }),
    );
    const memory = h(
      "p",
      { class: "hint" },
      `wasm holds ${size(stats.memoryBytes)}. A saved segment can be read by comlog inspect, by any tool for Kafka's batches, and under Segment file here.`,
    );
    return h(
      "div",
      { class: "settings" },
      h("table", { class: "partitions" }, h("thead", {}, head), h("tbody", {}, ...rows)),
      memory,
    );
  }

  #saveSegment(baseOffset: bigint): void {
    const bytes = this.#log.exportSegment(baseOffset);
    saveAs(new Blob([bytes as BlobPart]), `${String(baseOffset).padStart(20, "0")}.log`);
  }

  #copyForm(): HTMLElement {
    const topic = h("input", { type: "text", required: true, autocomplete: "off", spellcheck: false, list: "topics" });
    const topics = h("datalist", { id: "topics" });
    const partition = h("input", { type: "number", min: "0", value: "0", required: true });
    const from = h("input", { type: "text", value: "0", required: true, pattern: "\\d{1,19}", title: "An offset" });
    const told = h("p", { class: "result", role: "status" });
    const place = (): Place => ({ topic: topic.value, partition: partition.valueAsNumber });
    const up = h("button", { type: "submit", class: "primary", value: "up" }, "To the server");
    const down = h("button", { type: "submit", value: "down" }, "From the server");
    const form = h(
      "form",
      {},
      h(
        "p",
        { class: "hint" },
        "Keys, values, headers and timestamps are copied; the log they arrive in gives them its own offsets.",
      ),
      field("Topic", topic),
      topics,
      h(
        "div",
        { class: "fields" },
        field("Partition", partition),
        field("From offset", from, "Below the first: from the first"),
      ),
      h("div", { class: "buttons" }, told, down, up),
    );
    topic.addEventListener("focus", () => void suggest(topics));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const toServer = event.submitter === up;
      void this.#copy(toServer, place(), BigInt(from.value), told, [up, down]);
    });
    return form;
  }

  async #copy(
    toServer: boolean,
    place: Place,
    from: bigint,
    told: HTMLElement,
    buttons: HTMLButtonElement[],
  ): Promise<void> {
    const copy = toServer ? copyToServer : copyFromServer;
    let copied = 0;
    const onStep: OnStep = (now) => {
      copied = now;
      setText(told, `${plural(now, "record")} copied…`);
      if (!toServer) changes.value += 1;
    };
    for (const button of buttons) button.disabled = true;
    try {
      await copy(this.#log, from, place, onStep, this.#lifetime);
      setText(
        told,
        `${plural(copied, "record")} copied ${toServer ? "to" : "from"} ${place.topic}/${place.partition}.`,
      );
    } catch (error) {
      if (!isAbort(error)) setText(told, `${plural(copied, "record")} copied, then: ${explain(error)}`);
    }
    for (const button of buttons) button.disabled = false;
  }

  async #close(): Promise<void> {
    const { startOffset, endOffset } = this.#log.stats();
    const closed = await openDialog({
      title: "Close the log?",
      body: [
        h("p", {}, `Its ${plural(endOffset - startOffset, "record")} are in this tab's memory only, and are gone.`),
      ],
      action: "Close",
      danger: true,
      run: async () => closeLocalLog(),
    });
    if (!closed) return;
    announce("The log is closed, its memory given back");
    go({ view: "tab" });
  }
}

/** Names to choose from; without a server there are none. */
async function suggest(list: HTMLElement): Promise<void> {
  const topics = await client.listTopics().catch(() => []);
  fill(list, ...topics.map((topic) => h("option", { value: topic.name })));
}
