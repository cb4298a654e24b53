// What frames every view: the name, where one can go, the state of the connection, time zone, version.

import { announce, announcer } from "./announce";
import { lookNow, reach, type Reach } from "./api";
import { fill, h, setText } from "./dom";
import { zone } from "./format";
import { formatRoute, go, route, type Route } from "./route";

const PLACES: { label: string; route: Route }[] = [
  { label: "Topics", route: { view: "topics" } },
  { label: "Log in this tab", route: { view: "tab" } },
  { label: "Segment file", route: { view: "segment" } },
];

/** The element that views are put into. */
export const main = h("main", { id: "main", tabIndex: -1 });

export function shell(lifetime: AbortSignal): HTMLElement[] {
  const skip = h("a", { class: "skip", href: "#main" }, "Skip to content");
  const name = h("a", { class: "name", href: "/" }, "comlog");
  const header = h(
    "header",
    { class: "top" },
    name,
    places(lifetime),
    h("div", { class: "end" }, zones(), connection(lifetime)),
  );
  return [skip, header, banner(lifetime), main, announcer];
}

/** Lets links to views of this page work without loading it anew. */
export function interceptLinks(): void {
  document.addEventListener("click", (event) => {
    const link = (event.target as Element).closest("a");
    const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
    if (!link || !plain || link.download || link.target || link.origin !== location.origin) return;
    if (link.pathname !== "/" || link.hash) return;
    event.preventDefault();
    history.pushState(null, "", link.href);
    dispatchEvent(new PopStateEvent("popstate"));
  });
}

function places(lifetime: AbortSignal): HTMLElement {
  const links = PLACES.map((place) => h("a", { href: formatRoute(place.route) }, place.label));
  route.watch(lifetime, (now) => {
    const view = now.view === "topic" ? "topics" : now.view;
    links.forEach((link, index) => {
      if (PLACES[index]?.route.view === view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
  });
  return h("nav", { "aria-label": "Views" }, ...links);
}

function zones(): HTMLElement {
  const here = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const others = Intl.supportedValuesOf("timeZone").filter((name) => name !== "UTC");
  const options = [
    h("option", { value: "local" }, `Local (${here})`),
    h("option", { value: "UTC" }, "UTC"),
    ...others.map((name) => h("option", { value: name }, name)),
  ];
  const choose = h("select", { "aria-label": "Time zone", class: "zone" }, ...options);
  choose.value = localStorage.getItem("zone") ?? "local";
  if (choose.value === "") choose.value = "local";
  zone.value = choose.value;
  choose.addEventListener("change", () => {
    zone.value = choose.value;
    localStorage.setItem("zone", choose.value);
  });
  return choose;
}

function connection(lifetime: AbortSignal): HTMLElement {
  const text = h("span");
  const version = h("span", { class: "version" });
  const element = h("p", { class: "connection" }, text, version);
  reach.watch(lifetime, (now) => {
    element.dataset["state"] = now.state;
    setText(text, { unknown: "Connecting", up: "Connected", down: "Disconnected" }[now.state]);
    if (now.state === "up") setText(version, `v${now.version}`);
  });
  return element;
}

/** Under the header when something is to be said about the server as a whole. */
function banner(lifetime: AbortSignal): HTMLElement {
  const element = h("div", { class: "banner", role: "alert", hidden: true });
  let first: string | undefined;
  let was: Reach["state"] = "unknown";
  reach.watch(lifetime, (now) => {
    if (now.state === "down") {
      const retry = h("button", { type: "button", onclick: () => void lookNow() }, "Try now");
      if (was !== "down")
        fill(element, `No connection to ${location.host}. What is shown may be old; trying again every 2 s. `, retry);
    } else if (now.state === "up") {
      if (was === "down") announce("Connected again");
      first ??= now.version;
      const reload = h("button", { type: "button", onclick: () => location.reload() }, "Reload");
      fill(element, `The server is version ${now.version} now, this page ${first}. `, reload);
    }
    element.hidden = !(now.state === "down" || (now.state === "up" && now.version !== first));
    was = now.state;
  });
  return element;
}

/** Shows that something went wrong where it happened, with a way on. */
export function trouble(text: string, again?: () => void): HTMLElement {
  const retry = again ? h("button", { type: "button", onclick: again }, "Try again") : undefined;
  return h("p", { class: "trouble", role: "alert" }, text, " ", retry);
}

/** Goes to a place and puts the focus on its heading. */
export function leaveFor(next: Route): void {
  go(next);
  main.focus();
}
