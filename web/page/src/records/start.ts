// The controls that say where reading starts and which partitions are read.

import { choice } from "../dialog";
import { fill, h, newId } from "../dom";
import { plural } from "../format";
import { formatStart, parseStart, RECENT, type Start } from "../route";

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

/** A menu to choose partitions from; none chosen means all. */
export function partitionControl(count: number, chosen: number[], onChange: (chosen: number[]) => void): HTMLElement {
  const boxes = Array.from({ length: count }, (_, partition) => {
    const box = h("input", { type: "checkbox", value: String(partition), checked: chosen.includes(partition) });
    return h("label", {}, box, ` ${partition}`);
  });
  const apply = (): void => {
    const now = boxes.flatMap((label, partition) => (label.querySelector("input")?.checked ? [partition] : []));
    onChange(now.length === count ? [] : now);
  };
  const label = chosen.length === 0 ? `All ${plural(count, "partition")}` : `Partition ${chosen.join(", ")}`;
  const id = newId();
  const menu = h("details", { class: "menu" }, h("summary", { id }, label));
  const use = h("button", { type: "button", class: "primary", onclick: apply }, "Follow these");
  const all = h("button", { type: "button", onclick: () => onChange([]) }, "All");
  const list = h("div", { class: "boxes" });
  fill(list, ...boxes);
  menu.append(
    h("div", { class: "sheet", role: "group", "aria-labelledby": id }, list, h("div", { class: "buttons" }, all, use)),
  );
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.open = false;
    menu.querySelector("summary")?.focus();
  });
  return menu;
}
