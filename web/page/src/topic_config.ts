// The form for a topic's configuration: an empty field follows the server's default.

import type { TopicConfig } from "comlog";

import { choice, field } from "./dialog";
import { h } from "./dom";
import { duration, size } from "./format";
import { parseDuration, parseSize } from "./units";

type Key = keyof TopicConfig;
type Value = NonNullable<TopicConfig[Key]>;

interface Field {
  key: Key;
  label: string;
  hint: string;
  control: () => HTMLInputElement | HTMLSelectElement;
  parse: (text: string) => Value | undefined;
  show: (value: Value) => string;
}

const entry = (): HTMLInputElement => h("input", { type: "text", autocomplete: "off", spellcheck: false });
const UNLIMITED = ["forever", "never", "unlimited", "-1"];
const unlimited = (text: string): boolean => UNLIMITED.includes(text.toLowerCase());
const millis = (text: string): bigint | undefined => (unlimited(text) ? -1n : big(parseDuration(text)));
const bytes = (text: string): bigint | undefined => (unlimited(text) ? -1n : big(parseSize(text)));
const big = (value: number | undefined): bigint | undefined => (value === undefined ? undefined : BigInt(value));
const showMillis = (value: Value): string => (Number(value) < 0 ? "forever" : duration(Number(value)));
const showAge = (value: Value): string => (Number(value) < 0 ? "never" : duration(Number(value)));
const showBytes = (value: Value): string => (Number(value) < 0 ? "unlimited" : size(Number(value)));
const one = <T extends Value>(text: string): T => text as T;

const FIELDS: Field[] = [
  {
    key: "durability",
    label: "Acknowledge",
    hint: "Durable survives a power cut; memory is faster.",
    control: () =>
      choice([
        ["", "default"],
        ["durable", "once synced (durable)"],
        ["memory", "once written (memory)"],
      ]),
    parse: one,
    show: String,
  },
  {
    key: "retentionMs",
    label: "Keep for",
    hint: "7 d, 12 h, forever",
    control: entry,
    parse: millis,
    show: showMillis,
  },
  {
    key: "retentionBytes",
    label: "Keep at most",
    hint: "A partition: 10 GiB, unlimited",
    control: entry,
    parse: bytes,
    show: showBytes,
  },
  {
    key: "segmentBytes",
    label: "Segment size",
    hint: "At least 1 MiB",
    control: entry,
    parse: (text) => big(parseSize(text)),
    show: showBytes,
  },
  {
    key: "segmentMs",
    label: "Segment age",
    hint: "Rolled when as old: 1 d, never",
    control: entry,
    parse: millis,
    show: showAge,
  },
  {
    key: "maxBatchBytes",
    label: "Largest batch",
    hint: "What an append may hold: 8 MiB",
    control: entry,
    parse: parseSize,
    show: showBytes,
  },
  {
    key: "archive",
    label: "Archive",
    hint: "Copies of sealed segments, if the server has an archive.",
    control: () =>
      choice([
        ["", "default"],
        ["on", "on"],
        ["off", "off"],
      ]),
    parse: (text) => text === "on",
    show: (value) => (value ? "on" : "off"),
  },
  {
    key: "localRetentionMs",
    label: "Keep archived here for",
    hint: "Then in the archive only: 1 d, never",
    control: entry,
    parse: millis,
    show: showMillis,
  },
  {
    key: "localRetentionBytes",
    label: "Keep archived here at most",
    hint: "A partition: 1 GiB, 0 B, unlimited",
    control: entry,
    parse: bytes,
    show: showBytes,
  },
  {
    key: "timestampType",
    label: "Timestamps",
    hint: "Whose clock stamps records.",
    control: () =>
      choice([
        ["", "default"],
        ["create", "of the producer"],
        ["append", "of the server"],
      ]),
    parse: one,
    show: String,
  },
  {
    key: "validation",
    label: "Check batches",
    hint: "How much of an encoded batch is looked at.",
    control: () =>
      choice([
        ["", "default"],
        ["header", "header and checksum"],
        ["full", "every record"],
      ]),
    parse: one,
    show: String,
  },
];

/** What a form changes: fields to set, and fields that follow the server again. */
export interface Change {
  config: TopicConfig;
  reset: Key[];
}

export class ConfigForm {
  readonly elements: HTMLElement[];
  readonly #controls: (HTMLInputElement | HTMLSelectElement)[];
  readonly #before: string[];

  /** With what is set now, and what is in force, which stands in the empty fields. */
  constructor(set: TopicConfig = {}, effective: TopicConfig = {}) {
    this.#controls = FIELDS.map((one) => one.control());
    this.#before = FIELDS.map((one) => shown(one, set));
    this.elements = FIELDS.map((one, index) => {
      const control = this.#controls[index] as HTMLInputElement;
      control.value = this.#before[index] as string;
      const inForce = shown(one, effective);
      if (inForce && control.value === "") showDefault(control, `${inForce} (default)`);
      control.addEventListener("input", () => control.setCustomValidity(""));
      return field(one.label, control, one.hint);
    });
  }

  /** What was changed; undefined when a field cannot be understood, which then says so. */
  read(): Change | undefined {
    const change: Change = { config: {}, reset: [] };
    for (const [index, one] of FIELDS.entries()) {
      const control = this.#controls[index] as HTMLInputElement;
      const text = control.value.trim();
      if (text === this.#before[index]) continue;
      if (text === "") {
        change.reset.push(one.key);
        continue;
      }
      const value = one.parse(text);
      if (value === undefined) {
        control.setCustomValidity(`Not understood; for example ${one.hint}`);
        control.reportValidity();
        return undefined;
      }
      Object.assign(change.config, { [one.key]: value });
    }
    return change;
  }
}

/** Says what an empty control stands for. */
function showDefault(control: HTMLInputElement | HTMLSelectElement, text: string): void {
  if (control instanceof HTMLInputElement) control.placeholder = text;
  else (control.options[0] as HTMLOptionElement).textContent = text;
}

function shown(one: Field, config: TopicConfig): string {
  const value = config[one.key];
  return value === undefined ? "" : one.show(value);
}
