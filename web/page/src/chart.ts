// A small chart of the last two minutes: one line per series, its latest value in words.

import { h, setText } from "./dom";

const SVG = "http://www.w3.org/2000/svg";
/** Points kept, one a second. */
const POINTS = 120;
const WIDTH = 240;
const HEIGHT = 36;

export interface Series {
  label: string;
  /** The class of its line, and of its mark in the legend. */
  class: string;
}

export class Chart {
  readonly element: HTMLElement;
  readonly #points: number[][];
  readonly #lines: SVGPolylineElement[];
  readonly #values: HTMLElement[];
  readonly #most: HTMLElement;
  readonly #picture: SVGSVGElement;

  constructor(
    readonly title: string,
    readonly series: Series[],
    readonly format: (value: number) => string,
  ) {
    this.#points = series.map(() => []);
    this.#lines = series.map((one) => {
      const line = document.createElementNS(SVG, "polyline");
      line.setAttribute("class", one.class);
      return line;
    });
    this.#picture = document.createElementNS(SVG, "svg");
    this.#picture.setAttribute("viewBox", `0 -2 ${WIDTH} ${HEIGHT + 4}`);
    this.#picture.setAttribute("preserveAspectRatio", "none");
    this.#picture.setAttribute("role", "img");
    this.#picture.append(...this.#lines);
    this.#values = series.map(() => h("b", {}, "–"));
    this.#most = h("span", { class: "most" });
    const legend = series.map((one, index) =>
      h("span", { class: `key ${one.class}` }, one.label, " ", this.#values[index] as HTMLElement),
    );
    const caption = h("figcaption", {}, h("span", { class: "title" }, title), ...legend);
    this.element = h("figure", { class: "chart" }, caption, this.#picture, this.#most);
  }

  /** Adds one value for each series. */
  add(...values: number[]): void {
    this.#points.forEach((points, index) => {
      points.push(values[index] ?? 0);
      if (points.length > POINTS) points.shift();
    });
    const most = Math.max(...this.#points.flat(), 0);
    this.#lines.forEach((line, index) => line.setAttribute("points", path(this.#points[index] ?? [], most)));
    const texts = values.map((value) => this.format(value));
    this.#values.forEach((element, index) => setText(element, texts[index] ?? "–"));
    setText(this.#most, most > 0 ? `max ${this.format(most)}` : "");
    const spoken = this.series.map((one, index) => `${one.label} ${texts[index]}`).join(", ");
    this.#picture.setAttribute("aria-label", `${this.title}, last two minutes: now ${spoken}`);
  }
}

/** The newest point at the right edge. */
function path(points: number[], most: number): string {
  const step = WIDTH / (POINTS - 1);
  const left = WIDTH - (points.length - 1) * step;
  return points
    .map((value, index) => {
      const y = most > 0 ? HEIGHT - (value / most) * HEIGHT : HEIGHT;
      return `${(left + index * step).toFixed(1)},${y.toFixed(1)}`;
    })
    .join(" ");
}
