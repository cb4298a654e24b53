// The controls that say where reading starts and which partitions are read.

import { choice, field } from "../dialog";
import { h, newId } from "../dom";
import { plural } from "../format";
import { formatStart, parsePartitions, parseStart, RECENT, type Start } from "../route";

const KINDS: [string, string][] = [
  ["recent", "Newest 500, then live"],
  ["latest", "Live from now"],
  ["earliest", "From the first"],
  ["offset", "From an offset"],
  ["time", "From a time"],
];
const HINTS: Record<string, string> = { offset: "1000", time: "-15m or 2026-11-23T10:00Z" };

/** Asks where to start; `onChange` is called once the answer is whole. */
export function startControl(start: Start, onChange: (start: Start) => void): HTMLElement {
  const kind = choice(KINDS, start.kind);
  kind.setAttribute("aria-label", "Start");
  const at = h("input", { type: "text", spellcheck: false, autocomplete: "off", class: "at" });
  const go = h("button", { type: "submit" }, "Go");
  const text = formatStart(start);
  at.value = start.kind === "time" ? text.slice(1) : start.kind === "offset" ? text : "";
  const arrange = (): void => {
    const exact = kind.value === "offset" || kind.value === "time";
    at.hidden = !exact;
    go.hidden = !exact;
    at.placeholder = HINTS[kind.value] ?? "";
    at.setAttribute("aria-label", kind.value === "time" ? "Time" : "Offset");
  };
  const submit = (event: Event): void => {
    event.preventDefault();
    const typed = kind.value === "time" ? `@${at.value.trim()}` : at.value;
    const next = parseStart(typed);
    at.setCustomValidity(next ? "" : `For example ${HINTS[kind.value]}`);
    if (next) onChange(next);
    else at.reportValidity();
  };
  at.addEventListener("input", () => at.setCustomValidity(""));
  kind.addEventListener("change", () => {
    arrange();
    if (!at.hidden) at.focus();
    else onChange(kind.value === "recent" ? RECENT : { kind: kind.value as "earliest" | "latest" });
  });
  arrange();
  return h("form", { class: "start", onsubmit: submit }, kind, at, go);
}

/** Partitions up to which each has a box; of more their numbers are typed. */
const BOXES_MAX = 64;

/** A menu to choose partitions from; none chosen means all. */
export function partitionControl(count: number, chosen: number[], onChange: (chosen: number[]) => void): HTMLElement {
  const { element, read } = count > BOXES_MAX ? typed(chosen) : boxes(count, chosen);
  const apply = (): void => {
    const now = read().filter((partition) => partition < count);
    onChange(now.length === count ? [] : now);
  };
  const label = chosen.length === 0 ? `All ${plural(count, "partition")}` : `Partition ${chosen.join(", ")}`;
  const id = newId();
  const menu = h("details", { class: "menu" }, h("summary", { id }, label));
  const use = h("button", { type: "button", class: "primary", onclick: apply }, "Follow these");
  const all = h("button", { type: "button", onclick: () => onChange([]) }, "All");
  const buttons = h("div", { class: "buttons" }, all, use);
  menu.append(h("div", { class: "sheet", role: "group", "aria-labelledby": id }, element, buttons));
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.open = false;
    menu.querySelector("summary")?.focus();
  });
  return menu;
}

interface Choice {
  element: HTMLElement;
  read: () => number[];
}

function boxes(count: number, chosen: number[]): Choice {
  const all = Array.from({ length: count }, (_, partition) =>
    h("input", { type: "checkbox", value: String(partition), checked: chosen.includes(partition) }),
  );
  const labels = all.map((box) => h("label", {}, box, ` ${box.value}`));
  return {
    element: h("div", { class: "boxes" }, ...labels),
    read: () => all.filter((box) => box.checked).map((box) => Number(box.value)),
  };
}

function typed(chosen: number[]): Choice {
  const input = h("input", { type: "text", value: chosen.join(", "), autocomplete: "off", spellcheck: false });
  return { element: field("Partitions", input, "Their numbers: 0, 17, 230"), read: () => parsePartitions(input.value) };
}
