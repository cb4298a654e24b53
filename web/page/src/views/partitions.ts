// The partitions of a topic: where they stand, how they grow, whether they are well.

import type { PartitionInfo } from "comlog";

import { isTroubled } from "../api";
import { h, setText } from "../dom";
import { count, rate, size } from "../format";
import { Meter } from "../meter";
import { formatRoute, topicRoute } from "../route";

const HEADS = ["P", "Start", "End", "Durable", "Size", "Segm.", "Rec/s"];

export class PartitionTable {
  readonly element: HTMLElement;
  readonly #body = h("tbody");
  readonly #topic: string;
  readonly #lines = new Map<number, { row: HTMLElement; cells: HTMLElement[]; note: HTMLElement; meter: Meter }>();

  constructor(topic: string) {
    this.#topic = topic;
    const heads = HEADS.map((head, index) => h("th", { scope: "col", class: index === 0 ? "" : "number" }, head));
    const table = h("table", { class: "partitions" }, h("thead", {}, h("tr", {}, ...heads)), this.#body);
    this.element = h("div", { class: "scroll" }, table);
  }

  show(partitions: PartitionInfo[]): void {
    for (const info of partitions) this.#show(info);
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

  #add(partition: number): { row: HTMLElement; cells: HTMLElement[]; note: HTMLElement; meter: Meter } {
    const only = formatRoute({ ...topicRoute(this.#topic), partitions: [partition] });
    const link = h("a", { href: only, title: `Follow partition ${partition} alone` }, String(partition));
    const cells = HEADS.slice(1).map(() => h("td", { class: "number" }));
    const row = h("tr", {}, h("th", { scope: "row" }, link), ...cells);
    const note = h("td", { class: "bad", colspan: HEADS.length });
    this.#body.append(row, h("tr", { hidden: true }, note));
    const line = { row, cells, note, meter: new Meter() };
    this.#lines.set(partition, line);
    return line;
  }
}

function troubles(info: PartitionInfo): string {
  const ranges = info.damaged.map((range) => `offsets ${range.start} to ${range.end} are damaged`);
  return [info.failure, ...ranges].filter(Boolean).join("; ");
}
