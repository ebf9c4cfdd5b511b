// Why something is as it is: the answer of /kraft/explain, as a sentence, its deciders, and what makes it better.

import { h, setAttributes, setText, age, Keyed, Table } from "./dom.js";
import { ask } from "./api.js";
import { clock, details } from "./events.js";

const EVERY_MS = 2_000;
const EVIDENCE_MAX = 300;
const MARKS = { yes: { text: "= yes", tone: "well" }, no: { text: "× no", tone: "bad" }, unknown: { text: "? unknown", tone: "warn" } };
// States that are as they should be, whatever has happened before: a past unclean election is no present trouble.
const WELL = new Set(["healthy", "ready", "served", "committed"]);

// What a node reported, as `name=value`; long values are cut, and whole in the title.
function evidence(facts) {
  const all = Object.entries(facts ?? {}).map(([name, value]) => `${name}=${value !== null && typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
  return all.length <= EVIDENCE_MAX ? all : { text: `${all.slice(0, EVIDENCE_MAX)}…`, title: all };
}

export class ExplainPanel {
  constructor(stream, path) {
    Object.assign(this, { stream, path });
    this.state = h("p", { class: "verdict" });
    this.summary = h("p");
    this.next = h("p");
    const fixes = h("ul", { class: "fixes" });
    this.fixes = new Keyed(fixes, () => h("li", {}, h("code")), (element, text) => setText(element.firstChild, text));
    this.deciders = new Table("Why", [{ label: "Question" }, { label: "Decision" }, { label: "Explanation" }, { label: "Evidence" }, { label: "Rule" }, { label: "From" }, { label: "Age" }]);
    const views = h("ul");
    this.views = new Keyed(views, () => h("li"), (element, text) => setText(element, text));
    this.element = h("section", { class: "card", hidden: true }, h("h2", {}, "Why"), this.state, this.summary, this.next, fixes, views, this.deciders.element);
  }

  async load() {
    if (document.body.dataset.explains !== "true") return;
    let found;
    try {
      found = await ask(this.stream, this.path);
    } catch (error) {
      this.element.hidden = false;
      for (const [each, text] of [[this.state, ""], [this.summary, `It is not known: ${error.message}`], [this.next, ""]]) setText(each, text);
      this.fixes.set([]);
      this.views.set([]);
      this.deciders.set([]);
      return;
    }
    this.element.hidden = false;
    this.found = found;
    const isWell = WELL.has(found.state) || !found.cause;
    setText(this.state, `${isWell ? "=" : "×"} ${found.state}${found.since_ms ? `, since ${clock(found.since_ms)}` : ""}`);
    setAttributes(this.state, { class: `verdict ${isWell ? "well" : "bad"}` });
    setText(this.summary, found.summary);
    setText(this.next, found.next ? `What has to happen: ${found.next}` : "");
    this.fixes.set(found.fix.map((text) => [text, text]));
    this.views.set(found.views.map((each) => [each.states, `node ${each.nodes.join(", ")} (metadata offset ${each.metadata_offset}): ${each.states}`]));
    this.deciders.set(found.deciders.map((each, at) => [`${at} ${each.question}`, [
      each.question, MARKS[each.decision] ?? each.decision, each.explanation, evidence(each.evidence), each.rule, each.node < 0 ? "" : `node ${each.node}`, each.age_ms === null ? "" : age(each.age_ms),
    ]]));
  }
}

// One record (`#/record/orders-0/17`) or one client (`#/client/NAME`): why, and the events that nodes remember of it.
class ExplainScreen {
  constructor(stream, { title, path, back }) {
    Object.assign(this, { stream, title, scope: "limit=1" });
    this.explain = new ExplainPanel(stream, path);
    this.events = new Table("Events", [{ label: "Time" }, { label: "Node" }, { label: "Event" }, { label: "Details" }], { empty: "No node remembers an event of it." });
    this.element = h("div", {}, h("p", { class: "path" }, h("a", { href: back.href }, back.text)), h("h1", { class: "name" }, title), this.explain.element,
      h("section", { class: "card" }, h("h2", {}, "Events"), this.events.element));
    this.events.set([]);
    this.timer = setInterval(() => this.load(), EVERY_MS);
  }
  close() {
    clearInterval(this.timer);
  }
  update() {
    if (!this.isLoaded && this.stream.nodes().length) this.load();
  }
  async load() {
    if (document.hidden) return;
    this.isLoaded = true;
    await this.explain.load();
    this.events.set((this.explain.found?.events ?? []).toReversed().map((each) => [`${each.node_id}/${each.position}/${each.at_ms}/${each.event}`, [clock(each.at_ms), `node ${each.node_id}`, each.event.replaceAll("_", " "), details(each)]]));
  }
}

export class RecordScreen extends ExplainScreen {
  constructor(stream, argument) {
    const [, topic, partition, offset] = argument.match(/^(.*)-(\d+)\/(\d+)$/) ?? [0, argument, "0", "0"];
    super(stream, { title: `${topic}-${partition}, offset ${offset}`, path: `/kraft/explain/record/${encodeURIComponent(topic)}/${partition}/${offset}`,
      back: { href: `#/partition/${encodeURIComponent(`${topic}-${partition}`)}`, text: `${topic}-${partition}` } });
  }
}

export class ClientScreen extends ExplainScreen {
  constructor(stream, argument) {
    super(stream, { title: `Client ${argument}`, path: `/kraft/explain/client/${encodeURIComponent(argument)}`, back: { href: "#/cluster", text: "Cluster" } });
  }
}

// A form that leads to one of them. `hrefOf` makes the address of what was written.
export function explainForm(id, label, attributes, hrefOf) {
  const input = h("input", { id, required: true, spellcheck: "false", ...attributes });
  const form = h("form", { class: "form" }, h("label", { for: id }, label), input, h("button", { type: "submit" }, "Why?"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = hrefOf(input.value);
  });
  return form;
}
