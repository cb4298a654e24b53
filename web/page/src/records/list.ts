// A list of many records of which only those in sight are elements.

import { preview } from "../bytes";
import { h, newId, setText } from "../dom";
import { count, plural, size, time } from "../format";
import { Filtered, type Match } from "./filter";
import { rowBytes, type Row, type Rows } from "./rows";

/** Height of a line in pixels; the style sheet has the same. */
const LINE = 26;
/** Lines kept above and below what is in sight. */
const OVERSCAN = 8;
/** Bytes of a key or value that its cell shows. */
const PREVIEW_BYTES = 240;

export interface ListOptions {
  label: string;
  /** Whether there is a column for the partition. */
  partitions: boolean;
  /** Whether it begins at its end, to follow what comes. */
  follow: boolean;
  onOpen: (row: Row) => void;
}

const CELLS = ["time", "part", "offset", "key", "value", "bytes"] as const;
const TITLES = { time: "Time", part: "P", offset: "Offset", key: "Key", value: "Value", bytes: "Size" };
const NAMES: Partial<Record<(typeof CELLS)[number], string>> = { part: "Partition" };

/**
 * The list as a grid with one tab stop: arrows, Page Up and Down, Home and End move, Enter opens.
 * At its end it follows what comes; scrolled up, or once a record is opened, it stands still, whatever
 * comes or is dropped.
 */
export class RecordList {
  readonly element: HTMLElement;
  readonly #grid: HTMLElement;
  readonly #space: HTMLElement;
  readonly #lines: HTMLElement[] = [];
  readonly #filtered: Filtered;
  readonly #id = newId();
  readonly #options: ListOptions;
  /** The number of the row that is active (focused, not opened). */
  #active: number | undefined;
  #opened: Row | undefined;
  #following: boolean;
  /** How far it was scrolled when that was last set or looked at. */
  #top = 0;
  #frame = 0;

  constructor(rows: Rows, options: ListOptions) {
    this.#options = options;
    this.#following = options.follow;
    this.#filtered = new Filtered(rows);
    this.#space = h("div", { class: "space", role: "rowgroup" });
    const titles = CELLS.map((cell) =>
      h("span", { class: cell, role: "columnheader", title: NAMES[cell] ?? "" }, TITLES[cell]),
    );
    const head = h("div", { class: "head", role: "row", "aria-rowindex": 1 }, ...titles);
    this.#grid = h(
      "div",
      {
        class: "grid",
        role: "grid",
        tabIndex: 0,
        "aria-label": options.label,
        "aria-colcount": options.partitions ? CELLS.length : CELLS.length - 1,
        onscroll: () => this.#scrolled(),
        onkeydown: (event: KeyboardEvent) => this.#key(event),
        onclick: (event: MouseEvent) => this.#click(event),
      },
      head,
      this.#space,
    );
    this.element = h("div", { class: options.partitions ? "records" : "records single" }, this.#grid);
    new ResizeObserver(() => this.refresh()).observe(this.#grid);
  }

  /** How many rows the filter lets through. */
  get shown(): number {
    return this.#filtered.length;
  }

  get following(): boolean {
    return this.#following;
  }

  /** The rows the filter lets through, oldest first. */
  *rows(): IterableIterator<Row> {
    for (let index = 0; index < this.#filtered.length; index += 1) {
      const row = this.#filtered.rows.get(this.#filtered.at(index) ?? -1);
      if (row) yield row;
    }
  }

  filter(match: Match | undefined): void {
    this.#filtered.set(match);
    this.#following = this.#options.follow;
    this.refresh();
  }

  /** Goes to the end and follows it. */
  toEnd(): void {
    this.#following = true;
    this.refresh();
  }

  /** Marks the record that is open beside the list. */
  mark(row: Row | undefined): void {
    this.#opened = row;
    this.refresh();
  }

  focus(): void {
    this.#grid.focus({ preventScroll: true });
  }

  /** Draws what is in sight, once in the next frame. */
  refresh(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #draw(): void {
    const dropped = this.#filtered.update();
    const length = this.#filtered.length;
    this.#space.style.height = `${length * LINE}px`;
    this.#grid.setAttribute("aria-rowcount", String(length + 1));
    if (this.#following) this.#scrollTo(this.#grid.scrollHeight);
    else if (dropped > 0) this.#scrollTo(this.#grid.scrollTop - dropped * LINE);
    const wanted = Math.ceil(this.#grid.clientHeight / LINE) + 2 * OVERSCAN;
    const inSight = Math.floor(this.#grid.scrollTop / LINE) - OVERSCAN;
    const first = Math.max(0, Math.min(inSight, length - wanted));
    const last = Math.min(length, first + wanted);
    this.#size(last - first);
    this.#space.style.setProperty("--first", `${first * LINE}px`);
    this.#lines.forEach((line, index) => this.#drawLine(line, first + index));
    this.#grid.toggleAttribute("data-following", this.#following);
  }

  #size(lines: number): void {
    while (this.#lines.length > lines) this.#lines.pop()?.remove();
    while (this.#lines.length < lines) {
      const cells = CELLS.map((cell) => h("span", { class: cell, role: "gridcell" }));
      cells[0]?.append(h("span", { class: "day" }), h("span"));
      const line = h("div", { class: "line", role: "row" }, ...cells);
      this.#lines.push(line);
      this.#space.append(line);
    }
  }

  #drawLine(line: HTMLElement, index: number): void {
    const number = this.#filtered.at(index);
    const row = number === undefined ? undefined : this.#filtered.rows.get(number);
    if (number === undefined || !row) return;
    const active = number === this.#active;
    line.id = `${this.#id}-${number}`;
    line.dataset["number"] = String(number);
    line.setAttribute("aria-rowindex", String(index + 2));
    line.setAttribute("aria-selected", String(row === this.#opened));
    line.classList.toggle("active", active);
    if (active) this.#grid.setAttribute("aria-activedescendant", line.id);
    const [at, part, offset, key, value, bytes] = line.children as unknown as HTMLElement[];
    const shown = time(row.timestamp);
    const clock = shown.lastIndexOf(" ") + 1;
    setText(at?.firstElementChild as Element, shown.slice(0, clock));
    setText(at?.lastElementChild as Element, shown.slice(clock));
    setText(part as HTMLElement, String(row.partition));
    setText(offset as HTMLElement, row.offset.toString());
    drawBytes(key as HTMLElement, row.key, "no key");
    drawBytes(value as HTMLElement, row.value, "no value");
    setText(bytes as HTMLElement, size(rowBytes(row)));
  }

  #scrolled(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.#grid;
    // An event that is only the late news of #scrollTo says nothing of what the user wants.
    if (scrollTop !== this.#top) this.#following = scrollTop + clientHeight >= scrollHeight - LINE;
    this.#top = scrollTop;
    this.refresh();
  }

  #scrollTo(top: number): void {
    this.#grid.scrollTop = top;
    this.#top = this.#grid.scrollTop;
  }

  #bringInSight(index: number): void {
    const top = index * LINE;
    const room = this.#grid.clientHeight - 2 * LINE;
    if (top < this.#grid.scrollTop) this.#scrollTo(top);
    else if (top > this.#grid.scrollTop + room) this.#scrollTo(top - room);
  }

  #click(event: MouseEvent): void {
    const line = (event.target as Element).closest<HTMLElement>(".line");
    if (!line) return;
    this.#active = Number(line.dataset["number"]);
    this.#open();
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.#grid.clientHeight / LINE) - 2);
    const steps: Record<string, number> = {
      ArrowUp: -1,
      ArrowDown: 1,
      PageUp: -page,
      PageDown: page,
      Home: -Infinity,
      End: Infinity,
    };
    const step = steps[event.key];
    if (step !== undefined) this.#move(step);
    else if (event.key === "Enter") this.#open();
    else return;
    event.preventDefault();
  }

  #move(step: number): void {
    const length = this.#filtered.length;
    if (length === 0) return;
    const from = this.#active === undefined ? length : this.#filtered.indexOf(this.#active);
    const index = Math.min(length - 1, Math.max(0, from + step));
    this.#active = this.#filtered.at(index);
    this.#following = index === length - 1;
    this.#bringInSight(index);
    this.refresh();
  }

  #open(): void {
    const row = this.#active === undefined ? undefined : this.#filtered.rows.get(this.#active);
    if (!row || this.#active === undefined) return;
    this.#following = false;
    this.#bringInSight(this.#filtered.indexOf(this.#active));
    this.#options.onOpen(row);
    this.refresh();
  }
}

function drawBytes(cell: HTMLElement, bytes: Uint8Array | null, absent: string): void {
  cell.classList.toggle("absent", bytes === null);
  setText(cell, bytes ? preview(bytes, PREVIEW_BYTES) : absent);
}

/** `120 of 4,000 records`, or without a filter `4,000 records`. */
export function shownText(shown: number, held: number): string {
  const all = plural(held, "record");
  return shown === held ? all : `${count(shown)} of ${all}`;
}
