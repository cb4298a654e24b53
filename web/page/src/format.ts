// Numbers, sizes, times and byte strings for people.

import { Cell } from "./cell";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export function count(value: number | bigint): string {
  return whole.format(value);
}

export function plural(value: number | bigint, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 || value === 1n ? one : many}`;
}

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function size(bytes: number | bigint): string {
  let value = Number(bytes);
  let unit = 0;
  while (value >= 1024 && unit < SIZES.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? whole.format(value) : value.toFixed(1)} ${SIZES[unit]}`;
}

/** Events per second: one decimal while that says something. */
export function rate(perSecond: number): string {
  if (perSecond <= 0) return "0";
  return perSecond < 10 ? short.format(perSecond) : whole.format(perSecond);
}

export function milliseconds(ms: number): string {
  if (ms < 1) return `${(ms * 1000).toFixed(0)} µs`;
  return ms < 100 ? `${ms.toFixed(1)} ms` : ms < 10_000 ? `${whole.format(ms)} ms` : `${short.format(ms / 1000)} s`;
}

/** A length of time as configuration has it: the largest unit that divides it. */
export function duration(ms: number): string {
  const units: [number, string][] = [
    [86_400_000, "d"],
    [3_600_000, "h"],
    [60_000, "min"],
    [1000, "s"],
  ];
  const unit = units.find(([length]) => ms >= length && ms % length === 0);
  return unit ? `${count(ms / unit[0])} ${unit[1]}` : `${count(ms)} ms`;
}

/** The zone times are shown in: `local`, or a name from the IANA database. */
export const zone = new Cell<string>("local");

let formatters: { zone: string; day: Intl.DateTimeFormat; clock: Intl.DateTimeFormat } | undefined;

function forZone(): { day: Intl.DateTimeFormat; clock: Intl.DateTimeFormat } {
  if (formatters?.zone === zone.value) return formatters;
  const timeZone = zone.value === "local" ? {} : { timeZone: zone.value };
  const clock = new Intl.DateTimeFormat("en-GB", {
    ...timeZone,
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    fractionalSecondDigits: 3,
    hourCycle: "h23",
  });
  const day = new Intl.DateTimeFormat("en-CA", { ...timeZone, year: "numeric", month: "2-digit", day: "2-digit" });
  formatters = { zone: zone.value, day, clock };
  return formatters;
}

/** Beyond this JavaScript has no dates, in milliseconds around 1970. */
const DATE_MAX = 8.64e15;

/** A date and a clock time with milliseconds; a number where there is no such date. */
export function time(ms: number): string {
  if (Math.abs(ms) > DATE_MAX) return `${ms} ms`;
  const { day, clock } = forZone();
  return `${day.format(ms)} ${clock.format(ms)}`;
}
