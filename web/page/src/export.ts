// What a view shows, for elsewhere: as a command of `comlog`, as lines of JSON.

import { asText } from "./bytes";
import { formatStart, type TopicRoute } from "./route";
import type { Row } from "./records/rows";

/** The command that reads what this view reads. */
export function consumeCommand(route: TopicRoute, server: string): string {
  const words = ["comlog", "consume", quote(route.topic)];
  for (const partition of route.partitions) words.push("--partition", String(partition));
  // Without an own server the command goes where the page would by default.
  if (server !== DEFAULT_SERVER) words.push("--server", quote(server));
  if (route.start.kind === "recent") words.push("--from", "latest");
  else words.push("--from", formatStart(route.start));
  words.push("--follow");
  if (route.filter && !route.filter.startsWith("/")) words.push("|", "grep", "-iF", "--", quote(route.filter));
  else if (route.filter) words.push("|", "grep", "-E", "--", quote(route.filter.replace(/^\/|\/i?$/g, "")));
  return words.join(" ");
}

const DEFAULT_SERVER = "http://127.0.0.1:50052";

/** A word for a POSIX shell. */
function quote(word: string): string {
  return /^[\w./:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** One record as `comlog consume -o json` prints it. */
export function jsonLine(row: Row, topic: string): string {
  const offset = Number(row.offset);
  return JSON.stringify({
    topic,
    partition: row.partition,
    offset: Number.isSafeInteger(offset) ? offset : row.offset.toString(),
    timestamp_ms: row.timestamp,
    ...bytesFields("key", row.key),
    ...bytesFields("value", row.value),
    headers: row.headers.map(({ name, value }) => ({ name, ...bytesFields("value", value) })),
  });
}

/** Text as it is, anything else in base64 under another name. */
function bytesFields(name: string, bytes: Uint8Array | null): Record<string, string | null> {
  if (!bytes) return { [name]: null };
  const text = asText(bytes);
  return text === undefined ? { [`${name}_base64`]: base64(bytes) } : { [name]: text };
}

function base64(bytes: Uint8Array): string {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 8192) binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(binary);
}
