// A segment file, dropped onto the page: read in this tab, sent nowhere.

import type { ComlogError } from "comlog";
import { init, Segment, type Damage, type SegmentBatch, type SegmentItem } from "comlog/log";

import { explain, isAbort } from "../api";
import { fill, h, newId, setText } from "../dom";
import { count, plural, size, time } from "../format";
import { RecordBrowser } from "../records/browser";
import { Detail } from "../records/detail";
import { ROW_BYTES_MAX, ROWS_MAX, Rows } from "../records/rows";
import { trouble } from "../shell";
import { Tabs } from "../tabs";

/** Batches that the table shows; the others are counted. */
const BATCHES_SHOWN = 500;
/** Batches read before the page has its turn. */
const TURN_BATCHES = 64;

export async function segmentView(lifetime: AbortSignal): Promise<HTMLElement> {
  return new SegmentView(lifetime).element;
}

class SegmentView {
  readonly element: HTMLElement;
  readonly #lifetime: AbortSignal;
  readonly #summary = h("p", { class: "summary", role: "status" });
  readonly #content = h("div", { class: "content" });
  #reading = new AbortController();

  constructor(lifetime: AbortSignal) {
    this.#lifetime = lifetime;
    lifetime.addEventListener("abort", () => this.#reading.abort(), { once: true });
    const choose = h("input", { type: "file", accept: ".log", id: newId(), class: "spoken" });
    const button = h("label", { class: "button", htmlFor: choose.id }, "Choose a file");
    choose.addEventListener("change", () => {
      const file = choose.files?.[0];
      if (file) void this.#read(file);
      choose.value = "";
    });
    const title = h(
      "div",
      { class: "title" },
      h("h1", {}, "Segment file"),
      this.#summary,
      h("div", { class: "actions" }, choose, button),
    );
    fill(
      this.#content,
      h(
        "div",
        { class: "drop" },
        h("p", {}, "Drop a .log file here: a segment of comlog, or of any log that keeps Kafka's record batches."),
        h("p", { class: "hint" }, "It is read in this tab and sent nowhere. Damaged parts are named and skipped."),
      ),
    );
    this.element = h("section", { class: "view topic segment" }, title, this.#content);
    this.#acceptDrops();
  }

  #acceptDrops(): void {
    const options = { signal: this.#lifetime };
    document.addEventListener(
      "dragover",
      (event) => {
        event.preventDefault();
        this.element.toggleAttribute("data-drop", true);
      },
      options,
    );
    document.addEventListener("dragleave", () => this.element.toggleAttribute("data-drop", false), options);
    document.addEventListener(
      "drop",
      (event) => {
        event.preventDefault();
        this.element.toggleAttribute("data-drop", false);
        const file = event.dataTransfer?.files[0];
        if (file) void this.#read(file);
      },
      options,
    );
  }

  async #read(file: File): Promise<void> {
    this.#reading.abort();
    this.#reading = new AbortController();
    const { signal } = this.#reading;
    setText(this.#summary, `Reading ${file.name}…`);
    try {
      await init();
      const segment = await Segment.open(file);
      try {
        const contents = new Contents(file, signal);
        fill(this.#content, contents.element);
        for await (const item of segment.scan({ signal })) {
          await contents.take(item);
          setText(this.#summary, contents.summary());
        }
        contents.done();
        setText(this.#summary, contents.summary());
      } finally {
        segment.close();
      }
    } catch (error) {
      if (isAbort(error) || signal.aborted) return;
      setText(this.#summary, "");
      fill(this.#content, trouble(`${file.name} cannot be read: ${explain(error)}`));
    }
  }
}

function unreadable(baseOffset: bigint, error: ComlogError): string {
  const what = error.reason === "BATCH_TOO_LARGE" ? "a record is left out" : "records cannot be read";
  return `Batch at offset ${baseOffset}: ${what}: ${error.message}`;
}

/** What is in the file, as far as it was read. */
class Contents {
  readonly element: HTMLElement;
  readonly #file: File;
  readonly #rows = new Rows();
  readonly #browser: RecordBrowser;
  readonly #detail = new Detail();
  readonly #batchRows = h("tbody");
  readonly #tabs: Tabs;
  #batches = 0;
  #records = 0;
  #damages = 0;
  /** The next item is more of the same batch. */
  #isGoingOn = false;
  #first: bigint | undefined;
  #next = 0n;

  constructor(file: File, signal: AbortSignal) {
    this.#file = file;
    this.#browser = new RecordBrowser(
      this.#rows,
      {
        name: file.name.replace(/\.log$/, ""),
        partitions: false,
        follow: false,
        onOpen: (row) => {
          this.#detail.show(row, file.name);
          this.#browser.list.mark(row);
          this.#tabs.reveal("record");
        },
      },
      signal,
    );
    const heads = ["Base offset", "Records", "Bytes", "Codec", "Newest"].map((head, index) =>
      h("th", { scope: "col", class: index === 1 || index === 2 ? "number" : "" }, head),
    );
    const table = h("table", { class: "partitions" }, h("thead", {}, h("tr", {}, ...heads)), this.#batchRows);
    this.#tabs = new Tabs("Segment", [
      { id: "batches", label: "Batches", panel: h("div", {}, table) },
      { id: "record", label: "Record", panel: h("div", {}, this.#detail.element) },
    ]);
    setText(this.#browser.status, "Reading…");
    this.element = h("div", { class: "columns" }, this.#browser.element, this.#tabs.element);
  }

  async take(item: SegmentItem): Promise<void> {
    if (item.kind === "batch") this.#takeBatch(item);
    else if (item.kind === "damage") this.#takeDamage(item);
    if (this.#batches % TURN_BATCHES !== 0) return;
    this.#browser.refresh();
    await new Promise((resolve) => setTimeout(resolve));
  }

  done(): void {
    const cut = this.#records > ROWS_MAX || this.#rows.bytes >= ROW_BYTES_MAX;
    setText(this.#browser.status, cut ? "The first of the file" : "Whole file");
    this.#browser.explainEmpty(this.#records === 0 ? "There are no records in this file." : undefined);
    this.#browser.refresh();
  }

  summary(): string {
    const range = this.#first === undefined ? "" : ` · offsets ${count(this.#first)} to ${count(this.#next - 1n)}`;
    const damage = this.#damages > 0 ? ` · ${plural(this.#damages, "damaged part")}` : "";
    return `${this.#file.name} · ${size(this.#file.size)} · ${plural(this.#batches, "batch", "batches")} · ${plural(this.#records, "record")}${range}${damage}`;
  }

  #takeBatch(batch: SegmentBatch): void {
    // A batch that decompresses to much comes in several items.
    const isNew = !this.#isGoingOn;
    this.#isGoingOn = batch.more;
    if (isNew) {
      this.#batches += 1;
      this.#first ??= batch.baseOffset;
      this.#next = batch.nextOffset;
      this.#records += batch.recordCount;
    }
    if (batch.error) this.#notice(unreadable(batch.baseOffset, batch.error));
    for (const record of batch.records) {
      // The list keeps the first, as a file is read from its beginning.
      if (this.#rows.end >= ROWS_MAX || this.#rows.bytes >= ROW_BYTES_MAX) break;
      this.#rows.push({ ...record, partition: 0, timestamp: Number(record.timestamp) });
    }
    if (!isNew || this.#batches > BATCHES_SHOWN) return;
    const cells = [count(batch.recordCount), count(batch.bytes)].map((text) => h("td", { class: "number" }, text));
    const newest = h("td", { class: "number" }, time(Number(batch.maxTimestamp)).slice(11));
    this.#batchRows.append(
      h("tr", {}, h("th", { scope: "row" }, count(batch.baseOffset)), ...cells, h("td", {}, batch.compression), newest),
    );
  }

  #takeDamage(damage: Damage): void {
    this.#damages += 1;
    const until = damage.nextOffset === undefined ? "" : ` up to ${count(damage.nextOffset)}`;
    this.#notice(
      `Damaged: bytes ${count(damage.start)} to ${count(damage.end)}, offsets from ${count(damage.firstOffset)}${until}: ${damage.reason}`,
    );
  }

  #notice(text: string): void {
    this.#browser.notices.append(h("p", { class: "trouble", role: "alert" }, text));
  }
}
