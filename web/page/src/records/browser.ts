// A list of records with its toolbar line: filter, pause, what is shown, export. What feeds it with
// rows is another's business.

import { copy } from "../announce";
import { h, setText } from "../dom";
import { zone } from "../format";
import { jsonLine } from "../export";
import { saveAs } from "./detail";
import { parseFilter } from "./filter";
import { RecordList, shownText } from "./list";
import type { Row, Rows } from "./rows";

export interface BrowserOptions {
  /** What the log is called, for labels and file names. */
  name: string;
  partitions: boolean;
  follow: boolean;
  filter?: string;
  /** Controls in front of the filter. */
  controls?: HTMLElement[];
  onOpen: (row: Row) => void;
  onFilter?: (text: string) => void;
  /** The command that reads the same. */
  command?: () => string;
}

/** Lines of an export that become one part of its file. */
const PART_LINES = 1_000;

export class RecordBrowser {
  readonly element: HTMLElement;
  readonly list: RecordList;
  /** What the source of the rows is doing; kept short. */
  readonly status = h("span", { class: "follow", role: "status" });
  /** Where the source says what keeps it from going on. */
  readonly notices = h("div", { class: "notices" });
  readonly #rows: Rows;
  readonly #options: BrowserOptions;
  readonly #shown = h("span", { class: "shown" });
  readonly #empty = h("p", { class: "empty", hidden: true });

  constructor(rows: Rows, options: BrowserOptions, lifetime: AbortSignal) {
    this.#rows = rows;
    this.#options = options;
    this.list = new RecordList(rows, { ...options, label: `Records of ${options.name}` });
    const filter = this.#filter(options.filter ?? "");
    const bar = h(
      "div",
      { class: "bar", role: "toolbar", "aria-label": "Records" },
      ...(options.controls ?? []),
      filter,
    );
    const end = h("button", { type: "button", class: "plain", onclick: () => this.list.toEnd() }, "To the end");
    const save = h("button", { type: "button", class: "plain", onclick: () => this.#save() }, "Save as NDJSON");
    const foot = h(
      "div",
      { class: "foot" },
      this.status,
      this.#shown,
      h("span", { class: "actions" }, this.#commandButton(), save, end),
    );
    this.element = h(
      "section",
      { class: "browser", "aria-label": "Records" },
      bar,
      this.notices,
      this.list.element,
      this.#empty,
      foot,
    );
    zone.watch(lifetime, () => this.list.refresh());
    this.refresh();
  }

  /** Takes up rows that came or went. */
  refresh(): void {
    this.list.refresh();
    requestAnimationFrame(() => setText(this.#shown, shownText(this.list.shown, this.#rows.end - this.#rows.first)));
  }

  /** Says why there is nothing to see; undefined when there is. */
  explainEmpty(text: string | undefined): void {
    this.#empty.hidden = text === undefined;
    if (text) setText(this.#empty, text);
  }

  #filter(text: string): HTMLElement {
    const input = h("input", {
      type: "search",
      class: "filter",
      placeholder: "Filter: text or /pattern/",
      "aria-label": "Filter records",
      spellcheck: false,
      value: text,
    });
    const apply = (): void => {
      const match = parseFilter(input.value);
      input.setCustomValidity(match instanceof Error ? match.message : "");
      if (match instanceof Error) return;
      this.list.filter(match);
      this.refresh();
    };
    input.addEventListener("input", () => {
      apply();
      this.#options.onFilter?.(input.value);
    });
    if (text) apply();
    return input;
  }

  #commandButton(): HTMLElement | undefined {
    const { command } = this.#options;
    if (!command) return undefined;
    return h(
      "button",
      { type: "button", class: "plain", onclick: () => void copy(command(), "Command") },
      "Copy command",
    );
  }

  /** Saves the rows the filter lets through, as `comlog consume -o json` prints them. */
  #save(): void {
    const parts: string[] = [];
    let lines: string[] = [];
    for (const row of this.list.rows()) {
      lines.push(jsonLine(row, this.#options.name));
      if (lines.length < PART_LINES) continue;
      parts.push(`${lines.join("\n")}\n`);
      lines = [];
    }
    if (lines.length > 0) parts.push(`${lines.join("\n")}\n`);
    saveAs(new Blob(parts, { type: "application/x-ndjson" }), `${this.#options.name}.ndjson`);
  }
}
