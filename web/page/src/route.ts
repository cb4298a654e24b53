// What the address of the page says, and how it is changed. The whole state that is worth sharing
// stands there: the view, the topic, its partitions, where reading starts, the open record.

import { Cell } from "./cell";

/** Where reading starts, in the words of `comlog consume --from`: also `@TIME` and an offset. */
export type Start =
  | { kind: "recent" }
  | { kind: "earliest" }
  | { kind: "latest" }
  | { kind: "offset"; offset: bigint }
  | { kind: "time"; ms: number };

export interface RecordRef {
  partition: number;
  offset: bigint;
}

export type Route =
  | { view: "topics" }
  | { view: "tab" }
  | { view: "segment" }
  | {
      view: "topic";
      topic: string;
      /** None means all. */
      partitions: number[];
      start: Start;
      filter: string;
      record: RecordRef | undefined;
    };

export type TopicRoute = Extract<Route, { view: "topic" }>;

export const RECENT: Start = { kind: "recent" };

export function topicRoute(topic: string): TopicRoute {
  return { view: "topic", topic, partitions: [], start: RECENT, filter: "", record: undefined };
}

export function parseRoute(search: string): Route {
  const params = new URLSearchParams(search);
  const topic = params.get("topic");
  if (topic) {
    return {
      view: "topic",
      topic,
      partitions: parsePartitions(params.get("partition") ?? ""),
      start: parseStart(params.get("offset") ?? "") ?? RECENT,
      filter: params.get("filter") ?? "",
      record: parseRecord(params.get("record") ?? ""),
    };
  }
  const view = params.get("view");
  return { view: view === "tab" || view === "segment" ? view : "topics" };
}

export function formatRoute(route: Route): string {
  if (route.view === "topics") return "/";
  if (route.view !== "topic") return `/?view=${route.view}`;
  const params = new URLSearchParams({ topic: route.topic });
  if (route.partitions.length > 0) params.set("partition", route.partitions.join(","));
  if (route.start.kind !== "recent") params.set("offset", formatStart(route.start));
  if (route.filter) params.set("filter", route.filter);
  if (route.record) params.set("record", `${route.record.partition}/${route.record.offset}`);
  return `/?${params.toString().replaceAll("%2C", ",").replaceAll("%2F", "/").replaceAll("%3A", ":").replaceAll("%40", "@")}`;
}

/** `earliest`, `latest`, an offset, `@TIME`; undefined for anything else. */
export function parseStart(text: string): Start | undefined {
  const word = text.trim();
  if (word === "earliest" || word === "latest") return { kind: word };
  if (/^\d{1,19}$/.test(word)) return { kind: "offset", offset: BigInt(word) };
  if (!word.startsWith("@")) return undefined;
  const ago = /^@-(\d+)(s|m|h|d)$/.exec(word);
  if (ago) return { kind: "time", ms: Date.now() - Number(ago[1]) * UNIT_MS[ago[2] as "s"] };
  const ms = Date.parse(word.slice(1));
  return Number.isNaN(ms) ? undefined : { kind: "time", ms };
}

const UNIT_MS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

export function formatStart(start: Start): string {
  switch (start.kind) {
    case "offset":
      return start.offset.toString();
    case "time":
      return `@${new Date(start.ms).toISOString()}`;
    case "recent":
    case "earliest":
    case "latest":
      return start.kind;
  }
}

/** Where the page is now. */
export const route = new Cell<Route>(parseRoute(location.search));

/** Goes somewhere else, with an entry in the history. */
export function go(next: Route): void {
  history.pushState(null, "", formatRoute(next));
  route.value = next;
}

/** Notes in the address where the view has come to, without an entry and without a new view. */
export function note(next: Route): void {
  history.replaceState(null, "", formatRoute(next));
}

export function listenToHistory(): void {
  addEventListener("popstate", () => {
    route.value = parseRoute(location.search);
  });
}

/** `0,2`, each once and in order; what is no number is left out. */
export function parsePartitions(text: string): number[] {
  const parts = text.split(/[\s,]+/).filter((part) => /^\d{1,9}$/.test(part));
  return [...new Set(parts.map(Number))].sort((a, b) => a - b);
}

function parseRecord(text: string): RecordRef | undefined {
  const match = /^(\d{1,9})\/(\d{1,19})$/.exec(text);
  return match ? { partition: Number(match[1]), offset: BigInt(match[2] as string) } : undefined;
}
