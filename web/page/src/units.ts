// Sizes and times as people write them.

const SIZES: Record<string, number> = {
  "": 1,
  b: 1,
  k: 2 ** 10,
  kib: 2 ** 10,
  kb: 1e3,
  m: 2 ** 20,
  mib: 2 ** 20,
  mb: 1e6,
  g: 2 ** 30,
  gib: 2 ** 30,
  gb: 1e9,
  t: 2 ** 40,
  tib: 2 ** 40,
  tb: 1e12,
};
const TIMES: Record<string, number> = { "": 1, ms: 1, s: 1e3, m: 6e4, min: 6e4, h: 36e5, d: 864e5, w: 6048e5 };

/** Bytes from `64MiB`, `1.5 GB`, `1024`; undefined for anything else. */
export function parseSize(text: string): number | undefined {
  return parse(text, SIZES);
}

/** Milliseconds from `7d`, `90 min`, `500`; undefined for anything else. */
export function parseDuration(text: string): number | undefined {
  return parse(text, TIMES);
}

function parse(text: string, units: Record<string, number>): number | undefined {
  const match = /^([\d,]*\.?\d+)\s*([a-z]*)$/i.exec(text.trim());
  const unit = match ? units[(match[2] as string).toLowerCase()] : undefined;
  if (!match || unit === undefined) return undefined;
  const value = Math.round(Number((match[1] as string).replaceAll(",", "")) * unit);
  return Number.isSafeInteger(value) ? value : undefined;
}
