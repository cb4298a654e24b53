import { client } from "../api";
import { field, openDialog } from "../dialog";
import { h } from "../dom";
import { leaveFor } from "../shell";
import { topicRoute } from "../route";
import { ConfigForm } from "../topic_config";

/** Asks for a name and a configuration, creates the topic, and goes there. */
export async function createTopic(): Promise<void> {
  const name = h("input", {
    type: "text",
    required: true,
    pattern: "[a-zA-Z0-9._\\-]{1,249}",
    title: "1 to 249 letters, digits, dots, underscores and hyphens",
    autocomplete: "off",
    spellcheck: false,
  });
  const partitions = h("input", { type: "number", min: "1", max: "20000", value: "1", required: true });
  const config = new ConfigForm();
  const more = h("details", {}, h("summary", {}, "Configuration"), h("div", { class: "fields" }, ...config.elements));
  const created = await openDialog({
    title: "New topic",
    body: [h("div", { class: "fields" }, field("Name", name), field("Partitions", partitions)), more],
    action: "Create",
    run: async () => {
      const change = config.read();
      if (!change) throw new Error("A field of the configuration was not understood.");
      await client.createTopic(name.value, { partitions: partitions.valueAsNumber, config: change.config });
    },
  });
  if (created) leaveFor(topicRoute(name.value));
}
