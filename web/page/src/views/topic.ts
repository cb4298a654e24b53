// One topic: its records as they come, and beside them the record that is open, a form to append,
// the partitions, the configuration.

import { ComlogError, type TopicDescription } from "comlog";

import { client, explain, isAbort, reach, totals, wait } from "../api";
import { Chart } from "../chart";
import { openDialog } from "../dialog";
import { fill, h, setText } from "../dom";
import { consumeCommand } from "../export";
import { duration, milliseconds, plural, rate, size } from "../format";
import { Meter, quantile } from "../meter";
import { RecordBrowser } from "../records/browser";
import { Detail } from "../records/detail";
import { Follower, toRow, type FollowState, type Rest } from "../records/follow";
import type { Row } from "../records/rows";
import { partitionControl, startControl } from "../records/start";
import { go, note, type TopicRoute } from "../route";
import { ServerTarget } from "../server_target";
import { trouble } from "../shell";
import { Tabs } from "../tabs";
import { PartitionTable } from "./partitions";
import { ProducePanel, type Compression } from "./produce";
import { Settings } from "./settings";

/** Between two looks at the topic. */
const LOOK_MS = 1_000;
const COMPRESSIONS: Compression[] = ["none", "gzip", "snappy", "lz4", "zstd"];

export function topicView(route: TopicRoute, lifetime: AbortSignal): HTMLElement {
  return new TopicView(route, lifetime).element;
}

class TopicView {
  readonly element: HTMLElement;
  readonly #lifetime: AbortSignal;
  readonly #follower: Follower;
  readonly #browser: RecordBrowser;
  readonly #detail = new Detail();
  readonly #partitions: PartitionTable;
  readonly #produce: ProducePanel;
  readonly #settings = new Settings();
  readonly #tabs: Tabs;
  readonly #summary = h("p", { class: "summary" });
  readonly #meter = new Meter();
  readonly #throughput = new Chart("Throughput", [{ label: "records/s", class: "a" }], rate);
  readonly #latency = new Chart(
    "Latency, p50",
    [
      { label: "append to ack", class: "a" },
      { label: "append to arrival", class: "b" },
    ],
    (value) => (value === 0 ? "–" : milliseconds(value)),
  );
  readonly #menu = h("span", { class: "menus" });
  readonly #pause = h("button", { type: "button", onclick: () => this.#togglePause() }, "Pause");
  #route: TopicRoute;
  #known = 0;

  constructor(route: TopicRoute, lifetime: AbortSignal) {
    this.#route = route;
    this.#lifetime = lifetime;
    this.#follower = new Follower(route.topic, route.partitions, route.start, () => this.#changed());
    this.#partitions = new PartitionTable(route.topic);
    const choices = { partitions: true, compressions: COMPRESSIONS };
    this.#produce = new ProducePanel(new ServerTarget(route.topic, lifetime), choices, lifetime);
    const controls = [
      startControl(route.start, (start) => go({ ...this.#route, start, record: undefined })),
      this.#menu,
      this.#pause,
    ];
    this.#browser = new RecordBrowser(
      this.#follower.rows,
      {
        name: route.topic,
        partitions: true,
        follow: true,
        filter: route.filter,
        controls,
        onOpen: (row) => this.#open(row),
        onFilter: (filter) => this.#note({ filter }),
        command: () => consumeCommand(this.#route, location.origin),
      },
      lifetime,
    );
    this.#tabs = new Tabs("Topic", [
      { id: "produce", label: "Append", panel: h("div", {}, this.#produce.element) },
      { id: "record", label: "Record", panel: h("div", {}, this.#detail.element) },
      { id: "partitions", label: "Partitions", panel: h("div", {}, this.#partitions.element) },
      { id: "settings", label: "Settings", panel: h("div", {}, this.#settings.element) },
    ]);
    const title = h("div", { class: "title" }, h("h1", {}, route.topic), this.#summary);
    const charts = h("div", { class: "charts" }, this.#throughput.element, this.#latency.element);
    this.element = h(
      "section",
      { class: "view topic" },
      title,
      charts,
      h("div", { class: "columns" }, this.#browser.element, this.#tabs.element),
    );
    this.#start();
  }

  #start(): void {
    void this.#follower.run(this.#lifetime);
    void this.#watch();
    void this.#openFromRoute();
    this.#follower.state.watch(this.#lifetime, (state) => this.#showState(state));
    reach.watch(this.#lifetime, () => this.#showState(this.#follower.state.value));
    this.#follower.rests.watch(this.#lifetime, (rests) => this.#showRests(rests));
  }

  /** Looks at the topic each second: for the table, the rates and the charts. */
  async #watch(): Promise<void> {
    while (!this.#lifetime.aborted) {
      if (!document.hidden) await this.#look();
      await wait(LOOK_MS, this.#lifetime);
    }
  }

  async #look(): Promise<void> {
    try {
      this.#show(await client.describeTopic(this.#route.topic, { signal: this.#lifetime }));
    } catch (error) {
      // The banner of the page tells when the server is gone, the list when the topic is.
      if (!isAbort(error)) this.#throughput.add(0);
    }
  }

  #show(there: TopicDescription): void {
    const sum = totals(there);
    this.#meter.note(performance.now(), sum.appended);
    const { durability, retentionMs = -1n, retentionBytes = -1n } = there.effective;
    const kept = [
      retentionMs < 0n ? "" : `for ${duration(Number(retentionMs))}`,
      retentionBytes < 0n ? "" : `up to ${size(retentionBytes)}`,
    ].filter(Boolean);
    const facts = [
      plural(there.partitions.length, "partition"),
      plural(sum.records, "record"),
      size(sum.bytes),
      durability ?? "",
      `kept ${kept.join(" and ") || "for ever"}`,
    ];
    setText(this.#summary, facts.filter(Boolean).join(" · "));
    this.#partitions.show(there.partitions);
    this.#produce.setPartitions(there.partitions.length);
    this.#settings.show(there);
    this.#throughput.add(this.#meter.perSecond);
    this.#latency.add(quantile(this.#produce.takeLatencies(), 0.5), quantile(this.#follower.takeDelays(), 0.5));
    if (there.partitions.length !== this.#known) this.#showMenu(there.partitions.length);
    if (this.#follower.state.value.kind === "live") {
      this.#browser.explainEmpty(
        this.#follower.rows.end > 0
          ? undefined
          : sum.records === 0n
            ? "The topic is empty. Append a record, or wait for one."
            : "Nothing from here on yet; waiting for records.",
      );
    }
  }

  #showMenu(partitions: number): void {
    this.#known = partitions;
    const menu =
      partitions > 1
        ? partitionControl(partitions, this.#route.partitions, (chosen) =>
            go({ ...this.#route, partitions: chosen, record: undefined }),
          )
        : null;
    fill(this.#menu, menu);
  }

  #showState(state: FollowState): void {
    const texts = {
      loading: "Loading…",
      live: "Live",
      paused: "Paused",
      refused: "Stopped",
      away: "Waiting for the server",
    };
    const waits = state.kind === "live" || state.kind === "loading";
    const shown = waits && reach.value.state === "down" ? "away" : state.kind;
    this.#browser.status.dataset["state"] = shown;
    setText(this.#browser.status, texts[shown]);
    this.#pause.textContent = state.kind === "paused" ? "Resume" : "Pause";
    this.#pause.disabled = state.kind === "loading" || state.kind === "refused";
    if (state.kind === "loading") this.#browser.explainEmpty("Loading records…");
    if (state.kind === "live" && this.#follower.rows.end > 0) this.#browser.explainEmpty(undefined);
    if (state.kind === "refused") this.#refuse(state.error);
  }

  #refuse(error: unknown): void {
    const missing = error instanceof ComlogError && error.reason === "TOPIC_NOT_FOUND";
    this.#browser.explainEmpty(undefined);
    if (!missing) {
      fill(
        this.#browser.notices,
        trouble(explain(error), () => go({ ...this.#route })),
      );
      return;
    }
    const { topic } = this.#route;
    const create = (): void => {
      const body = [h("p", {}, `Creates ${topic} with one partition and the server's configuration.`)];
      const run = async (): Promise<void> => void (await client.createTopic(topic));
      void openDialog({ title: `Create ${topic}`, body, action: "Create", run }).then(
        (done) => done && go({ ...this.#route }),
      );
    };
    const button = h("button", { type: "button", onclick: create }, "Create it…");
    fill(this.#browser.notices, h("p", { class: "trouble", role: "alert" }, `There is no topic ${topic}. `, button));
  }

  /** A partition that rests says why, and where it can go on. */
  #showRests(rests: readonly Rest[]): void {
    const notices = rests.map(({ partition, error }) => {
      const at = error.nextOffset ?? error.offset;
      const text = at === undefined ? "Go on from the first" : `Go on at ${at}`;
      const button = h(
        "button",
        { type: "button", onclick: () => this.#follower.goOn(partition, at ?? "earliest") },
        text,
      );
      return h("p", { class: "trouble", role: "alert" }, `Partition ${partition}: ${explain(error)} `, button);
    });
    fill(this.#browser.notices, ...notices);
    if (notices.length > 0) this.#browser.explainEmpty(undefined);
  }

  #changed(): void {
    if (this.#follower.rows.end > 0) this.#browser.explainEmpty(undefined);
    this.#browser.refresh();
  }

  #togglePause(): void {
    if (this.#follower.state.value.kind === "paused") this.#follower.resume();
    else this.#follower.pause();
  }

  #open(row: Row): void {
    this.#note({ record: { partition: row.partition, offset: row.offset } });
    this.#detail.show(row, this.#route.topic);
    this.#browser.list.mark(row);
    this.#tabs.reveal("record");
  }

  /** Opens the record the address names, which need not be in the list. */
  async #openFromRoute(): Promise<void> {
    const { topic, record } = this.#route;
    if (!record) return;
    try {
      const { records } = await client.read({ topic, ...record, maxBytes: 1 }, { signal: this.#lifetime });
      const found = records.find((one) => one.offset === record.offset);
      if (!found) throw new Error(`There is no record at offset ${record.offset} of partition ${record.partition}.`);
      this.#detail.show(toRow(found), topic);
    } catch (error) {
      if (isAbort(error)) return;
      fill(this.#detail.element, trouble(explain(error)));
    }
    this.#tabs.reveal("record");
  }

  #note(change: Partial<TopicRoute>): void {
    this.#route = { ...this.#route, ...change };
    note(this.#route);
  }
}
