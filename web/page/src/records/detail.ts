// One record, opened: as text, as JSON, as hex.

import { copy } from "../announce";
import { asText, decode, hexDump, prettyJson, preview } from "../bytes";
import { fill, h } from "../dom";
import { plural, size, time } from "../format";
import { rowBytes, type Row } from "./rows";

/** Bytes of a value that are laid out; the rest can be saved. */
const TEXT_MAX = 128 * 1024;
const HEX_MAX = 16 * 1024;

type Form = "text" | "json" | "hex";

const FORMS: [Form, string][] = [
  ["text", "Text"],
  ["json", "JSON"],
  ["hex", "Hex"],
];

export class Detail {
  readonly element = h("div", { class: "detail" });
  #row: Row | undefined;
  #form: Form | undefined;
  #of = "";

  constructor() {
    this.show(undefined, "");
  }

  /** `of` names the log the record is from. */
  show(row: Row | undefined, of: string): void {
    this.#row = row;
    this.#of = of;
    this.#draw();
  }

  #draw(): void {
    const row = this.#row;
    if (!row) {
      fill(this.element, h("p", { class: "hint" }, "Open a record with a click, or with the arrow keys and Enter."));
      return;
    }
    const facts: [string, string][] = [
      ["Partition", String(row.partition)],
      ["Offset", row.offset.toString()],
      ["Time", time(row.timestamp)],
      ["Timestamp", `${row.timestamp} ms`],
      ["Size", `${size(rowBytes(row))}`],
    ];
    const list = h("dl", {}, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
    fill(this.element, list, this.#key(row), this.#headers(row), ...this.#value(row));
  }

  #key(row: Row): HTMLElement {
    const text = row.key ? (asText(row.key.subarray(0, TEXT_MAX)) ?? hexDump(row.key.subarray(0, HEX_MAX))) : "no key";
    return h("div", {}, h("h3", {}, "Key"), h("pre", { class: row.key ? "" : "absent", tabIndex: 0 }, text));
  }

  #headers(row: Row): HTMLElement | undefined {
    if (row.headers.length === 0) return undefined;
    const lines = row.headers.map(({ name, value }) =>
      h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value ? preview(value, TEXT_MAX) : "no value")),
    );
    return h("div", {}, h("h3", {}, plural(row.headers.length, "header")), h("table", {}, h("tbody", {}, ...lines)));
  }

  #value(row: Row): (HTMLElement | undefined)[] {
    const bytes = row.value;
    if (!bytes) return [h("h3", {}, "Value"), h("pre", { class: "absent" }, "no value")];
    const text = bytes.length <= TEXT_MAX ? asText(bytes) : undefined;
    const json = text === undefined ? undefined : prettyJson(text);
    const best: Form = json !== undefined ? "json" : text !== undefined || bytes.length > TEXT_MAX ? "text" : "hex";
    const form = this.#form === "json" && json === undefined ? best : (this.#form ?? best);
    const most = form === "hex" ? HEX_MAX : TEXT_MAX;
    const shown = bytes.subarray(0, most);
    const content = form === "json" ? json : form === "hex" ? hexDump(shown) : (text ?? decode(shown));
    const cut =
      bytes.length > most ? h("p", { class: "hint" }, `The first ${size(most)} of ${size(bytes.length)}.`) : undefined;
    const head = h("div", { class: "split" }, h("h3", {}, "Value"), this.#forms(form, json !== undefined));
    return [
      head,
      h("pre", { class: "value", tabIndex: 0, "aria-label": "Value" }, content ?? ""),
      cut,
      this.#actions(bytes, content ?? "", row),
    ];
  }

  #forms(chosen: Form, hasJson: boolean): HTMLElement {
    const buttons = FORMS.map(([form, label]) =>
      h(
        "button",
        {
          type: "button",
          "aria-pressed": String(form === chosen),
          disabled: form === "json" && !hasJson,
          onclick: () => {
            this.#form = form;
            this.#draw();
            this.element.querySelector<HTMLElement>('[aria-pressed="true"]')?.focus();
          },
        },
        label,
      ),
    );
    return h("div", { class: "choices", role: "group", "aria-label": "Show the value as" }, ...buttons);
  }

  #actions(bytes: Uint8Array, shown: string, row: Row): HTMLElement {
    const save = (): void => saveAs(new Blob([bytes as BlobPart]), `${this.#of}-${row.partition}-${row.offset}.bin`);
    return h(
      "div",
      { class: "actions" },
      h("button", { type: "button", onclick: () => void copy(shown, "Value") }, "Copy"),
      h("button", { type: "button", onclick: save }, "Save"),
      h("button", { type: "button", onclick: () => void copy(location.href, "Link") }, "Copy link"),
    );
  }
}

/** Hands a file to the browser's downloads. */
export function saveAs(content: Blob, name: string): void {
  const url = URL.createObjectURL(content);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
