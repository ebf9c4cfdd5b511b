// Events of nodes as texts.

const HIDDEN = new Set(["position", "at_ms", "monotonic_us", "node_id", "sequence", "event", "topic", "topic_id", "partition"]);

export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");

export const details = (event) =>
  Object.entries(event).filter(([name, value]) => !HIDDEN.has(name) && value !== null && value !== "").map(([name, value]) => `${name.replaceAll("_", " ")} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ").slice(0, 240);
