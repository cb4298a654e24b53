// The partitions of a topic: where they stand, how they grow, whether they are well.

import type { PartitionInfo } from "comlog";

import { isTroubled } from "../api";
import { h, setText } from "../dom";
import { count, plural, rate, size } from "../format";
import { Meter } from "../meter";
import { formatRoute, topicRoute } from "../route";

/** Partitions that are shown, besides those in trouble; the others are counted. */
const SHOWN_MAX = 500;
const HEADS = ["P", "Start", "End", "Durable", "Size", "Segm.", "Rec/s"];

interface Line {
  cells: HTMLElement[];
  /** What is wrong with it, in a row of its own. */
  note: HTMLElement;
  meter: Meter;
}

export class PartitionTable {
  readonly element: HTMLElement;
  readonly #body = h("tbody");
  readonly #more = h("p", { class: "hint", hidden: true });
  readonly #topic: string;
  readonly #lines = new Map<number, Line>();

  constructor(topic: string) {
    this.#topic = topic;
    const heads = HEADS.map((head, index) => h("th", { scope: "col", class: index === 0 ? "" : "number" }, head));
    const table = h("table", { class: "partitions" }, h("thead", {}, h("tr", {}, ...heads)), this.#body);
    this.element = h("div", { class: "scroll" }, table, this.#more);
  }

  show(partitions: PartitionInfo[]): void {
    const shown = partitions.filter((info, index) => index < SHOWN_MAX || isTroubled(info));
    for (const info of shown) this.#show(info);
    const more = partitions.length - shown.length;
    this.#more.hidden = more <= 0;
    if (more > 0) setText(this.#more, `and ${plural(more, "partition")} more, see comlog topic describe`);
  }

  #show(info: PartitionInfo): void {
    const line = this.#lines.get(info.partition) ?? this.#add(info.partition);
    line.meter.note(performance.now(), info.highWatermark);
    const texts = [
      count(info.logStartOffset),
      count(info.highWatermark),
      count(info.durableOffset),
      size(info.sizeBytes),
      count(info.segments),
      rate(line.meter.perSecond),
    ];
    line.cells.forEach((cell, index) => setText(cell, texts[index] ?? ""));
    const troubled = isTroubled(info);
    line.note.parentElement?.toggleAttribute("hidden", !troubled);
    if (troubled) setText(line.note, troubles(info));
  }

  #add(partition: number): Line {
    const only = formatRoute({ ...topicRoute(this.#topic), partitions: [partition] });
    const link = h("a", { href: only, title: `Follow partition ${partition} alone` }, String(partition));
    const cells = HEADS.slice(1).map(() => h("td", { class: "number" }));
    const row = h("tr", {}, h("th", { scope: "row" }, link), ...cells);
    const note = h("td", { class: "bad", colspan: HEADS.length });
    this.#body.append(row, h("tr", { hidden: true }, note));
    const line = { cells, note, meter: new Meter() };
    this.#lines.set(partition, line);
    return line;
  }
}

function troubles(info: PartitionInfo): string {
  const ranges = info.damaged.map((range) => `offsets ${range.start} to ${range.end} are damaged`);
  return [info.failure, ...ranges].filter(Boolean).join("; ");
}
