// Elements without a framework: made by `h`, filled by `fill`, never from markup in a string.

export type Child = Node | string | null | undefined | false;

type Props = Record<string, unknown>;

/**
 * An element with its properties and children. A property named `on…` is an event listener, one
 * with a hyphen (and `role`) an attribute, `class` the class; any other is set on the element.
 */
export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value as EventListener);
    } else if (name === "class") {
      element.className = String(value);
    } else if (name.includes("-") || name === "role" || name === "list" || name === "colspan") {
      element.setAttribute(name, String(value));
    } else {
      Reflect.set(element, name, value);
    }
  }
  append(element, children);
  return element;
}

/** Replaces what an element holds. */
export function fill(element: Element, ...children: Child[]): void {
  element.replaceChildren();
  append(element, children);
}

/** Sets the text of an element, and leaves the document alone when it is the same. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** A new id, for `label` and `aria-…` attributes. */
export function newId(): string {
  nextId += 1;
  return `n${nextId}`;
}

let nextId = 0;

function append(element: Element, children: Child[]): void {
  for (const child of children) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
}
