// Buttons that break nodes and links, where a launcher serves the page, and the list of what was done.

import { h, setText, Keyed } from "./dom.js";
import { act } from "./api.js";

const SLOW_MS = 200;
export const message = h("p", { class: "said", role: "status" });

export async function perform(asked) {
  setText(message, "...");
  message.className = "said";
  try {
    const done = await act(asked);
    setText(message, typeof done === "string" ? done : "done");
  } catch (error) {
    setText(message, error.message);
    message.className = "said bad";
  }
}

export function button(text, asked, { label, tone, isOff } = {}) {
  const made = h("button", { type: "button", class: `small ${tone || ""}`, "aria-label": label || null, disabled: isOff }, text);
  made.addEventListener("click", () => perform(asked));
  return made;
}

const NODE_ACTS = [
  ["kill", "Kill", "danger", (node) => node.process !== "running"],
  ["pause", "Pause", "", (node) => node.process !== "running"],
  ["resume", "Resume", "", (node) => node.process !== "paused"],
  ["restart", "Restart", "", (node) => node.process === "paused"],
  ["fill_disk", "Fill disk", "", (node) => node.process !== "running"],
  ["free_disk", "Free disk", "", () => false],
];

// One element for each node or link, kept, so that the focus stays when the state changes.
const kept = new Map();

export function nodeButtons(node, control) {
  const isFull = control.broken.some((each) => each.do === "fill_disk" && each.nodes.includes(node.id));
  const wanted = NODE_ACTS.filter(([name]) => control.can.includes(name) && (name === "fill_disk" ? !isFull : name === "free_disk" ? isFull : true));
  const element = box(`node ${node.id}`, wanted.map(([name]) => name).join(), () =>
    wanted.map(([name, text, tone]) => button(text, { do: name, nodes: [node.id] }, { label: `${text} node ${node.id}`, tone })));
  wanted.forEach(([, , , isOff], at) => (element.children[at].disabled = Boolean(control.busy) || isOff(node)));
  if (control.can.includes("cut")) {
    if (element.children.length === wanted.length) element.append(button("Cut off", { do: "cut", nodes: [node.id] }, { label: `Cut node ${node.id} off from all others` }));
    element.lastChild.disabled = Boolean(control.busy);
  }
  return element;
}

export function linkButtons({ from, to }, control) {
  if (!control.can.includes("cut")) return null;
  const element = box(`link ${from}-${to}`, "", () => [
    button("Cut", { do: "cut", nodes: [from, to], one_way: true }, { label: `Cut the link from node ${from} to node ${to}`, tone: "danger" }),
    button("Cut both ways", { do: "cut", nodes: [from, to] }, { label: `Cut the links between nodes ${from} and ${to}` }),
    button(`Slow by ${SLOW_MS} ms`, { do: "slow", nodes: [from, to], ms: SLOW_MS }, { label: `Slow the links between nodes ${from} and ${to}` }),
  ]);
  for (const each of element.children) each.disabled = Boolean(control.busy);
  return element;
}

function box(key, version, make) {
  let found = kept.get(key);
  if (!found || found.dataset.version !== version) {
    found = h("span", { class: "buttons", "data-version": version }, make());
    kept.set(key, found);
  }
  return found;
}

const APIS = ["Produce", "Fetch", "Metadata", "ListOffsets", "FindCoordinator", "JoinGroup", "SyncGroup", "Heartbeat", "OffsetCommit", "OffsetFetch", "InitProducerId", "AddPartitionsToTxn", "EndTxn", "ConsumerGroupHeartbeat", "ShareGroupHeartbeat", "ShareFetch", "ShareAcknowledge", "CreateTopics"];
const ERRORS = ["NOT_LEADER_OR_FOLLOWER", "REQUEST_TIMED_OUT", "NOT_ENOUGH_REPLICAS", "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "LEADER_NOT_AVAILABLE", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR", "COORDINATOR_LOAD_IN_PROGRESS", "REBALANCE_IN_PROGRESS", "UNKNOWN_MEMBER_ID", "OFFSET_OUT_OF_RANGE", "OUT_OF_ORDER_SEQUENCE_NUMBER", "INVALID_PRODUCER_EPOCH", "CONCURRENT_TRANSACTIONS", "KAFKA_STORAGE_ERROR", "UNKNOWN_SERVER_ERROR"];
const WAYS = [["answer", "answer with an error"], ["delay", "delay the answer"], ["drop_answer", "lose the answer"], ["close_after", "close after the answer"]];

// Wrong, late and lost answers to Kafka clients. Names may be written by hand.
export class AnswerCard {
  constructor() {
    const options = (id, names) => h("datalist", { id }, names.map((value) => h("option", { value })));
    const number = (id, value, min, max) => h("input", { id, type: "number", value, min, max });
    this.way = h("select", { id: "a-way" }, WAYS.map(([value, text]) => h("option", { value }, text)));
    this.api = h("input", { id: "a-api", list: "a-apis", value: "Produce", required: true, spellcheck: "false" });
    this.error = h("input", { id: "a-error", list: "a-errors", value: "NOT_LEADER_OR_FOLLOWER", spellcheck: "false" });
    this.ms = number("a-ms", String(SLOW_MS), "1", "10000");
    this.topic = h("input", { id: "a-topic", spellcheck: "false" });
    this.node = h("select", { id: "a-node" }, h("option", { value: "" }, "all nodes"));
    this.times = number("a-times", "3", "0", "1000000");
    this.submit = h("button", { type: "submit" }, "Answer wrongly");
    const field = (text, input, ...more) => h("span", { class: "field" }, h("label", { for: input.id }, text), input, more);
    const ofError = field("error", this.error, options("a-errors", ERRORS)), ofMs = field("ms", this.ms);
    const form = h("form", { class: "form" }, field("To requests of Kafka clients:", this.way), field("API", this.api, options("a-apis", APIS)), ofError, ofMs,
      field("topic (all)", this.topic), field("at", this.node), field("times (0: until healed)", this.times), this.submit);
    const chosen = () => {
      ofError.hidden = this.way.value !== "answer";
      ofMs.hidden = this.way.value !== "delay";
    };
    this.way.addEventListener("change", chosen);
    chosen();
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      perform({ do: this.way.value, api: this.api.value, topic: this.topic.value, times: Number(this.times.value), nodes: this.node.value ? [Number(this.node.value)] : [],
        ...(this.way.value === "answer" ? { error: this.error.value } : {}), ...(this.way.value === "delay" ? { ms: Number(this.ms.value) } : {}) });
    });
    this.element = h("section", { class: "card", hidden: true }, h("h2", {}, "Answer wrongly"), form);
  }
  update(control, nodes) {
    this.element.hidden = !control?.can.includes("answer");
    if (this.element.hidden) return;
    this.submit.disabled = Boolean(control.busy);
    for (const { id } of nodes) if (![...this.node.options].some((each) => each.value === String(id))) this.node.append(h("option", { value: id }, `node ${id}`));
  }
}

// The card with what is broken, what was done, and how it is saved.
export class BreakCard {
  constructor() {
    this.chosen = h("div", { class: "chosen" });
    this.heal = button("Heal everything", { do: "heal" }, { tone: "primary" });
    this.clear = button("Forget", { do: "clear" }, { label: "Forget what was done" });
    const list = h("ul", { class: "broken" });
    this.broken = new Keyed(list, () => h("li"), (element, text) => setText(element, text));
    const done = h("ol", { class: "done" });
    this.done = new Keyed(done, () => h("li"), (element, text) => setText(element, text));
    this.hint = h("p", { class: "quiet" });
    this.links = h("span", { class: "buttons" }, "Save it: ", h("a", { href: "/console/save/story", download: "" }, "a story"), " ", h("a", { href: "/console/save/test", download: "" }, "a pytest test"));
    this.history = h("details", {}, h("summary", {}, "What was done"), done, h("p", {}, this.links, " ", this.clear));
    this.element = h("section", { class: "card break", hidden: true }, h("h2", {}, "Break it"), this.hint, this.chosen, h("p", {}, this.heal), message, list, this.history);
  }
  update(control, selected) {
    this.element.hidden = !control;
    if (!control) return;
    setText(this.hint, control.reads_only ? "This console is read-only: nothing can be broken from it." : control.can.includes("cut") ? "Click a node or a link in the picture, or use the buttons of the tables below." : "Nodes can be killed, paused and restarted. Links and disks can be broken when the cluster was started with --faults.");
    if (selected && this.chosen.firstChild !== selected.node) this.chosen.replaceChildren(selected.node);
    if (!selected && this.chosen.firstChild) this.chosen.replaceChildren();
    this.heal.hidden = !control.can.length;
    this.heal.disabled = this.clear.disabled = Boolean(control.busy);
    this.broken.set(control.broken.map((each, at) => [`${at} ${each.text}`, `× ${each.text}`]));
    this.done.set(control.done.map((text, at) => [`${at} ${text}`, text]));
    this.history.hidden = !control.done.length;
  }
}
