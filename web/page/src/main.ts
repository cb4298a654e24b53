// The page: a frame, and the view that the address names.

import { watchServer } from "./api";
import { setText } from "./dom";
import { listenToHistory, route, type Route } from "./route";
import { interceptLinks, main, shell } from "./shell";
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
  show(now, view.signal);
});

function show(now: Route, signal: AbortSignal): void {
  const element = build(now, signal);
  main.replaceChildren(element);
  setText(document.querySelector("title") as Element, title(now));
}

function build(now: Route, signal: AbortSignal): HTMLElement {
  switch (now.view) {
    case "topics":
      return topicsView(signal);
    case "topic":
      return topicView(now, signal);
  }
}

function title(now: Route): string {
  switch (now.view) {
    case "topics":
      return "comlog";
    case "topic":
      return `${now.topic} · comlog`;
  }
}
