// Dialogs: the browser's own, which keeps the focus inside and closes on Escape.

import { isAbort, explain } from "./api";
import { h, newId, type Child } from "./dom";

export interface DialogOptions {
  title: string;
  body: Child[];
  /** What the button that does it says. */
  action: string;
  danger?: boolean;
  /** Does it; an error is shown and the dialog stays. */
  run: () => Promise<void>;
}

/** Opens a dialog; resolves with whether its action was done. */
export function openDialog(options: DialogOptions): Promise<boolean> {
  const titleId = newId();
  const problem = h("p", { class: "trouble", role: "alert", hidden: true });
  const action = h("button", { type: "submit", class: options.danger ? "danger" : "primary" }, options.action);
  const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  let done = false;
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    action.disabled = true;
    problem.hidden = true;
    try {
      await options.run();
      done = true;
      dialog.close();
    } catch (error) {
      if (isAbort(error)) return;
      problem.textContent = explain(error);
      problem.hidden = false;
    } finally {
      action.disabled = false;
    }
  };
  const form = h("form", { onsubmit: submit }, h("h2", { id: titleId }, options.title), ...options.body, problem);
  form.append(h("div", { class: "buttons" }, cancel, action));
  const dialog = h("dialog", { "aria-labelledby": titleId }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(done);
    });
  });
}

/** A labelled control, with a hint under it. */
export function field(label: string, control: HTMLElement, hint?: string): HTMLElement {
  control.id ||= newId();
  const hintId = newId();
  if (hint) control.setAttribute("aria-describedby", hintId);
  return h(
    "div",
    { class: "field" },
    h("label", { htmlFor: control.id }, label),
    control,
    hint ? h("small", { id: hintId }, hint) : undefined,
  );
}

/** A choice among a few. */
export function choice(options: [value: string, label: string][], value = ""): HTMLSelectElement {
  const select = h("select", {}, ...options.map(([name, label]) => h("option", { value: name }, label)));
  select.value = value;
  return select;
}
