// Appends records by hand: one, many lines at once, or at a rate.

import type { HeaderInput, RecordInput } from "comlog";

import { explain, wait } from "../api";
import { choice, field } from "../dialog";
import { h, setText } from "../dom";
import { count, milliseconds, plural, rate } from "../format";
import { Generator, type Sink } from "../generator";
import { Meter, quantile } from "../meter";

/** Lines sent at once at most; more belong into a file and `comlog produce`. */
const LINES_MAX = 100_000;

export type Compression = "none" | "gzip" | "snappy" | "lz4" | "zstd";

/** How records are to be appended. */
export interface AppendOptions {
  /** Undefined: by key. */
  partition: number | undefined;
  compression: Compression;
}

/** A log that can be appended to. */
export interface Target {
  /** Appends them in order; where the last of them is. Rejects with the first failure. */
  append(records: RecordInput[], options: AppendOptions, signal: AbortSignal): Promise<string>;
  /** For one record after the other, at a rate. */
  sink(options: AppendOptions): Sink;
}

/** Which choices there are. */
export interface ProduceOptions {
  partitions: boolean;
  compressions: Compression[];
}

export class ProducePanel {
  readonly element: HTMLElement;
  readonly #target: Target;
  readonly #lifetime: AbortSignal;
  readonly #partition = choice([["", "by key"]]);
  readonly #compression: HTMLSelectElement;
  readonly #result = h("p", { class: "result", role: "status" });
  #latencies: number[] = [];

  constructor(target: Target, choices: ProduceOptions, lifetime: AbortSignal) {
    this.#target = target;
    this.#lifetime = lifetime;
    this.#compression = choice(
      choices.compressions.map((name) => [name, name]),
      "none",
    );
    this.element = h("div", { class: "produce" }, this.#form(choices), this.#rate());
  }

  setPartitions(partitions: number): void {
    for (let number = this.#partition.length - 1; number < partitions; number += 1) {
      this.#partition.append(h("option", { value: String(number) }, String(number)));
    }
  }

  /** How long what was acknowledged since the last call took, in milliseconds. */
  takeLatencies(): number[] {
    const latencies = this.#latencies;
    this.#latencies = [];
    return latencies;
  }

  #form(choices: ProduceOptions): HTMLElement {
    const key = h("input", { type: "text", autocomplete: "off", spellcheck: false });
    const headers = h("textarea", { rows: 2, spellcheck: false, placeholder: "name=value" });
    const value = h("textarea", { rows: 6, spellcheck: false });
    const lines = h("input", { type: "checkbox" });
    const send = h("button", { type: "submit", class: "primary" }, "Append");
    const partition = choices.partitions ? field("Partition", this.#partition) : undefined;
    const form = h(
      "form",
      {},
      h(
        "div",
        { class: "fields" },
        field("Key", key, "Empty: no key"),
        partition,
        field("Compression", this.#compression),
      ),
      field("Headers", headers, "One a line"),
      field("Value", value, "Ctrl+Enter appends"),
      h("div", { class: "buttons" }, h("label", {}, lines, " A record for each line"), send),
      this.#result,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      send.disabled = true;
      const common = { key: key.value === "" ? null : key.value, headers: parseHeaders(headers.value) };
      const values = lines.checked ? value.value.split("\n").filter((line) => line !== "") : [value.value];
      void this.#append(values.map((one) => ({ ...common, value: one }))).finally(() => {
        send.disabled = false;
        value.focus();
      });
    });
    value.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    return form;
  }

  async #append(records: RecordInput[]): Promise<void> {
    if (records.length === 0) return setText(this.#result, "Nothing to append.");
    if (records.length > LINES_MAX) return setText(this.#result, `At most ${count(LINES_MAX)} lines at once.`);
    const started = performance.now();
    try {
      const where = await this.#target.append(records, this.#options(), this.#lifetime);
      const took = performance.now() - started;
      this.#latencies.push(took);
      const at = records.length === 1 ? `at ${where}` : `up to ${where}`;
      setText(this.#result, `${plural(records.length, "record")} acknowledged ${at} in ${milliseconds(took)}`);
    } catch (error) {
      if (!this.#lifetime.aborted) setText(this.#result, explain(error));
    }
  }

  #rate(): HTMLElement {
    const perSecond = h("input", { type: "number", min: "1", max: "100000", value: "100", required: true });
    const bytes = h("input", { type: "number", min: "40", max: "65536", value: "100", required: true });
    const keys = h("input", { type: "number", min: "0", max: "1000000", value: "10", required: true });
    const start = h("button", { type: "submit" }, "Start");
    const told = h("p", { class: "result" });
    const fields = h(
      "div",
      { class: "fields" },
      field("Records/s", perSecond),
      field("Value bytes", bytes),
      field("Keys", keys),
    );
    const form = h("form", {}, h("h3", {}, "At a rate"), fields, h("div", { class: "buttons" }, told, start));
    let running: AbortController | undefined;
    this.#lifetime.addEventListener("abort", () => running?.abort(), { once: true });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (running) {
        running.abort();
        return;
      }
      running = new AbortController();
      start.textContent = "Stop";
      const options = { perSecond: perSecond.valueAsNumber, valueBytes: bytes.valueAsNumber, keys: keys.valueAsNumber };
      void this.#generate(options, told, running.signal).finally(() => {
        running = undefined;
        start.textContent = "Start";
      });
    });
    return form;
  }

  async #generate(options: Generator["options"], told: HTMLElement, signal: AbortSignal): Promise<void> {
    const generator = new Generator(this.#target.sink(this.#options()), options);
    const meter = new Meter();
    const running = generator.run(signal);
    while (!signal.aborted) {
      await wait(1000, signal);
      const latencies = generator.takeLatencies();
      this.#latencies.push(...latencies);
      meter.note(performance.now(), generator.produced.acknowledged);
      const { acknowledged, failed, lastError } = generator.produced;
      const speed = `${rate(meter.perSecond)}/s, p50 ${milliseconds(quantile(latencies, 0.5))}, p99 ${milliseconds(quantile(latencies, 0.99))}`;
      const failures = failed > 0 ? `, ${count(failed)} failed: ${explain(lastError)}` : "";
      setText(told, `${count(acknowledged)} acknowledged, ${speed}${failures}`);
    }
    await running;
  }

  #options(): AppendOptions {
    const partition = this.#partition.value;
    return {
      partition: partition === "" ? undefined : Number(partition),
      compression: this.#compression.value as Compression,
    };
  }
}

/** `name=value` on each line; without `=` a header without a value. */
export function parseHeaders(text: string): HeaderInput[] {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  return lines.map((line) => {
    const at = line.indexOf("=");
    return at < 0 ? { name: line.trim() } : { name: line.slice(0, at).trim(), value: line.slice(at + 1) };
  });
}
