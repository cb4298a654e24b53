import { h, newId } from "./dom";

export interface Tab {
  id: string;
  label: string;
  panel: HTMLElement;
}

/** Panels of which one is shown; arrow keys move between their tabs. */
export class Tabs {
  readonly element: HTMLElement;
  readonly #tabs: Tab[];
  readonly #buttons: HTMLButtonElement[];

  constructor(label: string, tabs: Tab[]) {
    this.#tabs = tabs;
    this.#buttons = tabs.map((tab) => {
      tab.panel.id ||= newId();
      tab.panel.setAttribute("role", "tabpanel");
      const button = h(
        "button",
        { type: "button", role: "tab", id: newId(), "aria-controls": tab.panel.id },
        tab.label,
      );
      tab.panel.setAttribute("aria-labelledby", button.id);
      button.addEventListener("click", () => this.show(tab.id));
      return button;
    });
    const list = h(
      "div",
      { role: "tablist", "aria-label": label, onkeydown: (event: KeyboardEvent) => this.#key(event) },
      ...this.#buttons,
    );
    this.element = h("aside", { class: "side", "aria-label": label }, list, ...tabs.map((tab) => tab.panel));
    this.show((tabs[0] as Tab).id);
  }

  /** Shows a panel, and scrolls to it where it is not beside what it belongs to. */
  reveal(id: string): void {
    this.show(id);
    this.element.scrollIntoView({ block: "nearest" });
  }

  show(id: string): void {
    this.#tabs.forEach((tab, index) => {
      const chosen = tab.id === id;
      tab.panel.hidden = !chosen;
      const button = this.#buttons[index] as HTMLButtonElement;
      button.setAttribute("aria-selected", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    });
  }

  #key(event: KeyboardEvent): void {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const at = this.#buttons.indexOf(document.activeElement as HTMLButtonElement);
    const next = (at + step + this.#tabs.length) % this.#tabs.length;
    this.show((this.#tabs[next] as Tab).id);
    this.#buttons[next]?.focus();
    event.preventDefault();
  }
}
