// The page: a frame, and the view that the address names.

import { explain, watchServer } from "./api";
import { h, setText } from "./dom";
import { listenToHistory, route, type Route } from "./route";
import { interceptLinks, main, shell, trouble } from "./shell";
import { topicView } from "./views/topic";
import { topicsView } from "./views/topics";

const lifetime = new AbortController();
document.body.append(...shell(lifetime.signal));
listenToHistory();
interceptLinks();
void watchServer();

let view = new AbortController();

route.watch(lifetime.signal, (now) => {
  view.abort();
  view = new AbortController();
  void show(now, view.signal);
});

async function show(now: Route, signal: AbortSignal): Promise<void> {
  const element = await build(now, signal).catch(unloaded);
  if (signal.aborted) return;
  main.replaceChildren(element);
  setText(document.querySelector("title") as Element, title(now));
}

/** What needs the log in wasm is loaded when it is first wanted. */
async function build(now: Route, signal: AbortSignal): Promise<HTMLElement> {
  switch (now.view) {
    case "topics":
      return topicsView(signal);
    case "topic":
      return topicView(now, signal);
    case "tab":
      return (await import("./views/tab")).tabView(signal);
    case "segment":
      return (await import("./views/segment")).segmentView(signal);
  }
}

/** A part of the page that could not be fetched: there is no server, or another version of it. */
function unloaded(error: unknown): HTMLElement {
  return h(
    "section",
    { class: "view" },
    trouble(`This view could not be loaded: ${explain(error)}`, () => location.reload()),
  );
}

function title(now: Route): string {
  switch (now.view) {
    case "topics":
      return "comlog";
    case "topic":
      return `${now.topic} · comlog`;
    case "tab":
      return "Log in this tab · comlog";
    case "segment":
      return "Segment file · comlog";
  }
}
