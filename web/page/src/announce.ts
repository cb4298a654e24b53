// What is said to screen readers without being shown, and what is shown for a moment to all.

import { h, setText } from "./dom";

const spoken = h("div", { class: "spoken", role: "status", "aria-live": "polite" });
const toast = h("div", { class: "toast", "aria-hidden": "true", hidden: true });
let timer = 0;

export const announcer = h("div", {}, spoken, toast);

/** How long a toast stays. */
const TOAST_MS = 4_000;

/** Says it to screen readers, and shows it for some seconds. */
export function announce(text: string): void {
  setText(spoken, text);
  setText(toast, text);
  toast.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => {
    toast.hidden = true;
  }, TOAST_MS);
}

/** Copies text; says what was copied. */
export async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    announce(`${what} copied`);
  } catch {
    // Over plain HTTP from another machine there is no clipboard: offer the text to copy by hand.
    prompt(`Copy the ${what.toLowerCase()}:`, text);
  }
}
