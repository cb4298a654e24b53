// Every topic, and how fast it grows.

import type { Topic, TopicDescription } from "comlog";

import { client, explain, isAbort, reach, totals, wait, type Totals } from "../api";
import { Chart } from "../chart";
import { fill, h, setText } from "../dom";
import { count, plural, rate, size } from "../format";
import { Meter } from "../meter";
import { formatRoute, topicRoute } from "../route";
import { trouble } from "../shell";
import { createTopic } from "./create";

/** Between two looks at all topics. */
const ROUND_MS = 1_000;
/** Topics whose partitions are looked at in one round; the others follow in the next. */
const LOOKS_MAX = 100;

type Column = "name" | "partitions" | "records" | "bytes" | "rate" | "state";

const COLUMNS: { id: Column; label: string; numeric: boolean }[] = [
  { id: "name", label: "Topic", numeric: false },
  { id: "partitions", label: "Partitions", numeric: true },
  { id: "records", label: "Records", numeric: true },
  { id: "bytes", label: "Size", numeric: true },
  { id: "rate", label: "Records/s", numeric: true },
  { id: "state", label: "State", numeric: false },
];

/** One line of the table. */
class Line {
  readonly element: HTMLElement;
  readonly meter = new Meter();
  readonly #cells: HTMLElement[];
  totals: Totals | undefined;
  partitions = 0;

  constructor(readonly name: string) {
    const link = h("a", { href: formatRoute(topicRoute(name)) }, name);
    this.#cells = COLUMNS.slice(1).map((column) => h("td", { class: column.numeric ? "number" : "" }));
    this.element = h("tr", {}, h("th", { scope: "row" }, link), ...this.#cells);
  }

  show(topic: TopicDescription): void {
    this.totals = totals(topic);
    this.partitions = topic.partitions.length;
    this.meter.note(performance.now(), this.totals.appended);
    const { records, bytes, troubled } = this.totals;
    const state = troubled === 0 ? "ok" : `${plural(troubled, "partition")} in trouble`;
    const texts = [count(this.partitions), count(records), size(bytes), rate(this.meter.perSecond), state];
    this.#cells.forEach((cell, index) => setText(cell, texts[index] ?? ""));
    this.#cells[4]?.classList.toggle("bad", troubled > 0);
  }

  /** What the table is sorted by. */
  value(column: Column): string | number {
    const { records = 0n, bytes = 0n, troubled = 0 } = this.totals ?? {};
    const values = {
      partitions: this.partitions,
      records: Number(records),
      bytes: Number(bytes),
      rate: this.meter.perSecond,
      state: troubled,
    };
    return column === "name" ? this.name : values[column];
  }
}

export function topicsView(lifetime: AbortSignal): HTMLElement {
  return new TopicsView(lifetime).element;
}

class TopicsView {
  readonly element: HTMLElement;
  readonly #lines = new Map<string, Line>();
  readonly #body = h("tbody");
  readonly #summary = h("p", { class: "summary" });
  readonly #state = h("div", { class: "state" }, "Loading topics…");
  readonly #chart = new Chart("Appended, all topics", [{ label: "records/s", class: "a" }], rate);
  readonly #find = h("input", { type: "search", placeholder: "Find a topic", "aria-label": "Find a topic" });
  readonly #table: HTMLElement;
  #sort: { column: Column; down: boolean } = { column: "name", down: false };
  #next = 0;

  constructor(lifetime: AbortSignal) {
    const create = h("button", { type: "button", class: "primary", onclick: () => void createTopic() }, "New topic");
    const head = h(
      "div",
      { class: "title" },
      h("h1", {}, "Topics"),
      this.#summary,
      h("div", { class: "actions" }, this.#find, create),
    );
    this.#table = h("table", { class: "topics" }, h("thead", {}, this.#head()), this.#body);
    this.#table.hidden = true;
    this.#find.addEventListener("input", () => this.#arrange());
    this.element = h(
      "section",
      { class: "view" },
      head,
      this.#chart.element,
      h("div", { class: "scroll" }, this.#table),
      this.#state,
    );
    void this.#run(lifetime);
  }

  async #run(lifetime: AbortSignal): Promise<void> {
    while (!lifetime.aborted) {
      if (!document.hidden) await this.#round(lifetime);
      await wait(ROUND_MS, lifetime);
    }
  }

  async #round(signal: AbortSignal): Promise<void> {
    try {
      const topics = await client.listTopics({ signal });
      this.#keep(topics);
      for (const topic of this.#due(topics)) await this.#look(topic.name, signal);
      this.#arrange();
      this.#sum(topics.length);
    } catch (error) {
      if (isAbort(error)) return;
      if (this.#lines.size === 0)
        fill(this.#state, reach.value.state === "down" ? "Waiting for the server…" : trouble(explain(error)));
    }
  }

  /** One by one: a topic deleted meanwhile is no trouble. */
  async #look(name: string, signal: AbortSignal): Promise<void> {
    try {
      this.#lines.get(name)?.show(await client.describeTopic(name, { signal }));
    } catch (error) {
      if ((error as { code?: string }).code !== "NOT_FOUND") throw error;
    }
  }

  /** The topics whose turn it is: all, while there are few. */
  #due(topics: Topic[]): Topic[] {
    if (topics.length <= LOOKS_MAX) return topics;
    this.#next %= topics.length;
    const due = [...topics, ...topics].slice(this.#next, this.#next + LOOKS_MAX);
    this.#next += LOOKS_MAX;
    return due;
  }

  #keep(topics: Topic[]): void {
    const names = new Set(topics.map((topic) => topic.name));
    for (const name of this.#lines.keys()) if (!names.has(name)) this.#lines.delete(name);
    for (const name of names) if (!this.#lines.has(name)) this.#lines.set(name, new Line(name));
    this.#table.hidden = names.size === 0;
  }

  /** Puts the lines into order; those that stand right are not touched, so that a focus stays. */
  #arrange(): void {
    const wanted = this.#find.value.toLowerCase();
    const { column, down } = this.#sort;
    const lines = [...this.#lines.values()].filter((line) => line.name.toLowerCase().includes(wanted));
    lines.sort((a, b) => compare(a.value(column), b.value(column)) || compare(a.name, b.name));
    if (down) lines.reverse();
    const elements = lines.map((line) => line.element);
    const same =
      elements.length === this.#body.children.length &&
      elements.every((element, at) => this.#body.children[at] === element);
    if (!same) fill(this.#body, ...elements);
    this.#explainNothing(lines.length);
  }

  /** A server has a topic of its own from the start: what counts is whether there is a record. */
  #explainNothing(shown: number): void {
    const isEmpty = [...this.#lines.values()].every((line) => line.totals?.records === 0n);
    this.#state.hidden = shown > 0 && !isEmpty;
    if (shown === 0 && this.#lines.size > 0) {
      setText(this.#state, "No topic has such a name.");
    } else if (isEmpty && !this.#state.querySelector("pre")) {
      const example = h("pre", {}, "echo hello | comlog produce greetings");
      fill(this.#state, h("p", {}, "No records yet. Create a topic, or let the first append make it:"), example);
    }
  }

  #sum(topics: number): void {
    const lines = [...this.#lines.values()];
    const records = lines.reduce((sum, line) => sum + (line.totals?.records ?? 0n), 0n);
    const bytes = lines.reduce((sum, line) => sum + (line.totals?.bytes ?? 0n), 0n);
    const perSecond = lines.reduce((sum, line) => sum + line.meter.perSecond, 0);
    setText(
      this.#summary,
      topics === 0 ? "" : `${plural(topics, "topic")}, ${plural(records, "record")}, ${size(bytes)}`,
    );
    this.#chart.add(perSecond);
  }

  #head(): HTMLElement {
    const row = h("tr");
    for (const column of COLUMNS) {
      const button = h("button", { type: "button", class: "sort" }, column.label);
      const cell = h("th", { scope: "col", class: column.numeric ? "number" : "" }, button);
      button.addEventListener("click", () => {
        const again = this.#sort.column === column.id;
        this.#sort = { column: column.id, down: again ? !this.#sort.down : column.numeric };
        for (const other of row.children) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", this.#sort.down ? "descending" : "ascending");
        this.#arrange();
      });
      row.append(cell);
    }
    return row;
  }
}

function compare(a: string | number, b: string | number): number {
  if (typeof a === "string" && typeof b === "string") return a.localeCompare(b);
  return Number(a) - Number(b);
}
