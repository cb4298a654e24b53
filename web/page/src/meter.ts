// Rates from counters that are looked at now and then.

/** Looks that a rate is taken over. */
const WINDOW_MS = 6_000;

/** Events per second over the last seconds, from a counter that only grows. */
export class Meter {
  #looks: { at: number; total: number }[] = [];

  /** Notes the counter; `now` in milliseconds. */
  note(now: number, total: bigint | number): void {
    const value = Number(total);
    const last = this.#looks.at(-1);
    // A topic of the same name made anew counts from the start again.
    if (last && value < last.total) this.#looks = [];
    this.#looks.push({ at: now, total: value });
    while (this.#looks.length > 2 && now - (this.#looks[0]?.at ?? now) > WINDOW_MS) this.#looks.shift();
  }

  get perSecond(): number {
    const first = this.#looks[0];
    const last = this.#looks.at(-1);
    if (!first || !last || last.at <= first.at) return 0;
    return ((last.total - first.total) * 1000) / (last.at - first.at);
  }
}

/** The `part` quantile of some numbers, 0 to 1; 0 when there are none. */
export function quantile(values: number[], part: number): number {
  if (values.length === 0) return 0;
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] as number;
}
