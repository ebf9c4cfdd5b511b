// Why a partition is as it is: the answer of /kraft/explain, as a sentence, its deciders, and what makes it better.

import { h, setAttributes, setText, age, Keyed, Table } from "./dom.js";
import { ask } from "./api.js";

const MARKS = { yes: { text: "= yes", tone: "well" }, no: { text: "× no", tone: "bad" }, unknown: { text: "? unknown", tone: "warn" } };

export class ExplainPanel {
  constructor(stream, path) {
    Object.assign(this, { stream, path });
    this.state = h("p", { class: "verdict" });
    this.summary = h("p");
    this.next = h("p");
    const fixes = h("ul", { class: "fixes" });
    this.fixes = new Keyed(fixes, () => h("li", {}, h("code")), (element, text) => setText(element.firstChild, text));
    this.deciders = new Table("Why", [{ label: "Question" }, { label: "Decision" }, { label: "Explanation" }, { label: "Rule" }, { label: "From" }, { label: "Age" }]);
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
    const isWell = !found.cause;
    setText(this.state, `${isWell ? "=" : "×"} ${found.state}${found.since_ms ? `, since ${new Date(found.since_ms).toLocaleTimeString("en-GB")}` : ""}`);
    setAttributes(this.state, { class: `verdict ${isWell ? "well" : "bad"}` });
    setText(this.summary, found.summary);
    setText(this.next, found.next ? `What has to happen: ${found.next}` : "");
    this.fixes.set(found.fix.map((text) => [text, text]));
    this.views.set(found.views.map((each) => [each.states, `node ${each.nodes.join(", ")} (metadata offset ${each.metadata_offset}): ${each.states}`]));
    this.deciders.set(found.deciders.map((each, at) => [`${at} ${each.question}`, [
      each.question, MARKS[each.decision] ?? each.decision, each.explanation, each.rule, each.node < 0 ? "" : `node ${each.node}`, each.age_ms === null ? "" : age(each.age_ms),
    ]]));
  }
}
