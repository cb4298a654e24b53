// How a topic is configured, and its deletion.

import type { TopicDescription } from "comlog";

import { announce } from "../announce";
import { client, explain } from "../api";
import { field, openDialog } from "../dialog";
import { fill, h } from "../dom";
import { plural } from "../format";
import { leaveFor } from "../shell";
import { ConfigForm } from "../topic_config";

export class Settings {
  readonly element = h("div", { class: "settings" });
  #shown = "";

  /** Draws the form anew when what is set has changed on the server, and not while it is edited. */
  show(there: TopicDescription): void {
    const { config, partitions } = there.topic;
    const state = JSON.stringify({ config, partitions }, (_, value) =>
      typeof value === "bigint" ? String(value) : value,
    );
    if (state === this.#shown || this.element.contains(document.activeElement)) return;
    this.#shown = state;
    this.#draw(there);
  }

  #draw(there: TopicDescription): void {
    const { name, partitions } = there.topic;
    const config = new ConfigForm(there.topic.config, there.effective);
    const number = h("input", {
      type: "number",
      min: String(partitions),
      max: "20000",
      value: String(partitions),
      required: true,
    });
    const result = h("p", { role: "status" });
    const save = h("button", { type: "submit", class: "primary" }, "Save");
    const submit = async (event: Event): Promise<void> => {
      event.preventDefault();
      const change = config.read();
      if (!change) return;
      const more = number.valueAsNumber > partitions ? { partitions: number.valueAsNumber } : {};
      save.disabled = true;
      try {
        const { warnings } = await client.alterTopic(name, { ...change, ...more });
        this.#shown = "";
        result.textContent = ["Saved.", ...warnings].join(" ");
      } catch (error) {
        result.textContent = explain(error);
      }
      save.disabled = false;
    };
    const hint = "Can grow, never shrink; keys then map to other partitions.";
    const form = h(
      "form",
      { onsubmit: submit },
      h("div", { class: "fields" }, field("Partitions", number, hint), ...config.elements),
    );
    form.append(h("div", { class: "buttons" }, result, save));
    const remove = h(
      "button",
      { type: "button", class: "danger", onclick: () => void deleteTopic(there) },
      "Delete topic…",
    );
    fill(
      this.element,
      form,
      h("div", { class: "buttons" }, h("small", { class: "id" }, `id ${there.topic.id}`), remove),
    );
  }
}

/** Asks first, and wants the name typed: nothing brings the records back. */
async function deleteTopic(there: TopicDescription): Promise<void> {
  const { name } = there.topic;
  const typed = h("input", { type: "text", required: true, autocomplete: "off", spellcheck: false });
  const deleted = await openDialog({
    title: `Delete ${name}?`,
    body: [
      h(
        "p",
        {},
        `Its ${plural(there.partitions.length, "partition")} and all their records are deleted, for every reader. Nothing brings them back.`,
      ),
      field(`Type ${name} to confirm`, typed),
    ],
    action: "Delete",
    danger: true,
    run: async () => {
      if (typed.value !== name) throw new Error("That is not the topic's name.");
      await client.deleteTopic(name);
    },
  });
  if (!deleted) return;
  announce(`Topic ${name} deleted`);
  leaveFor({ view: "topics" });
}
