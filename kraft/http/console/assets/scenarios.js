// Scenarios: the list of stories, the one that runs, its verdict and its report. Where a launcher serves the page.

import { h, setAttributes, setText, Keyed, Table } from "./dom.js";
import { list } from "./api.js";
import { message, perform } from "./breaking.js";

const OWN = "what was done";

export class ScenariosScreen {
  constructor(stream, argument) {
    Object.assign(this, { stream, title: "Scenarios", scope: "limit=1", chosen: argument, known: [], buttons: new Map() });
    this.filter = h("input", { id: "s-filter", type: "search", spellcheck: "false" });
    this.filter.addEventListener("input", () => this.drawList());
    this.seed = h("input", { id: "s-seed", type: "number", value: "1", min: "0", max: "1000000000" });
    this.simulated = h("input", { id: "s-simulated", type: "checkbox" });
    this.own = this.button(OWN, "Run what was done at this console");
    this.table = new Table("Scenarios", [{ label: "Name" }, { label: "What happens" }, { label: "Question" }, { label: "Expected" }, { label: "Action" }], { wraps: true, empty: "No scenario has these words." });
    this.name = h("h2");
    this.stop = h("button", { type: "button" }, "Stop");
    this.stop.addEventListener("click", () => perform({ do: "stop_scenario" }));
    this.bar = h("progress", { "aria-label": "Steps of the story", max: 1, value: 0 });
    this.steps = h("span", { class: "quiet" });
    this.verdict = h("p", { class: "verdict", role: "status" });
    this.report = h("a", { target: "_blank", rel: "noopener" }, "Report");
    this.counts = new Table("Verdict", [{ label: "Records" }, { label: "Found", number: true }, { label: "Expected", number: true }], { empty: "There is no verdict yet." });
    const findings = h("ul"), lines = h("ol", { class: "lines", tabindex: "0", "aria-label": "What has happened" });
    this.findings = new Keyed(findings, () => h("li"), (element, text) => setText(element, text));
    this.lines = lines;
    this.said = new Keyed(lines, () => h("li"), (element, text) => setText(element, text));
    this.newest = h("section", { class: "card", hidden: true }, this.name, h("p", { class: "form" }, this.bar, this.steps, this.stop, this.report), this.verdict, findings, this.counts.element, lines);
    this.runs = new Table("Runs", [{ label: "Run", number: true }, { label: "Scenario" }, { label: "Seed", number: true }, { label: "Time" }, { label: "Outcome" }, { label: "Seconds", number: true }, { label: "Report" }], { empty: "Nothing was run so far." });
    this.story = h("pre", { tabindex: "0", "aria-label": "Story" });
    this.storyCard = h("section", { class: "card", hidden: true }, h("h2", {}, "Story"), this.story);
    this.element = h("div", {}, h("h1", {}, "Scenarios"),
      h("p", {}, "A scenario starts a cluster of its own, breaks it, heals it, reads everything back, and judges every record."),
      message, this.newest, this.storyCard,
      h("section", { class: "card" }, h("h2", {}, "Runs"), this.runs.element),
      h("section", { class: "card" }, h("h2", {}, "Stories"), h("div", { class: "form" }, h("label", { for: "s-filter" }, "Only with"), this.filter, h("label", { for: "s-seed" }, "seed"), this.seed,
        h("label", { class: "check" }, this.simulated, " in virtual time"), this.own), this.table.element));
    this.load();
  }

  button(name, label) {
    const made = h("button", { type: "button", class: "small", "aria-label": label }, name === OWN ? label : "Run");
    made.addEventListener("click", () => perform({ do: "run_scenario", name, seed: Number(this.seed.value), simulated: this.simulated.checked }));
    return made;
  }

  async load() {
    try {
      this.known = (await list("/console/scenarios")).scenarios;
    } catch (error) {
      setText(message, error.message);
    }
    for (const { name } of this.known) this.buttons.set(name, this.button(name, `Run ${name}`));
    const chosen = this.known.find((each) => each.name === this.chosen);
    this.storyCard.hidden = !chosen;
    setText(this.story, chosen?.story ?? "");
    this.drawList();
    this.update();
  }

  drawList() {
    const words = this.filter.value.toLowerCase().split(/\s+/);
    const rows = this.known.filter((each) => words.every((word) => `${each.name} ${each.sentence} ${each.question}`.toLowerCase().includes(word)));
    this.table.set(rows.map((each) => [each.name, [{ text: each.name, href: `#/scenarios/${encodeURIComponent(each.name)}` }, each.sentence, each.question, each.expected, { node: this.buttons.get(each.name) }]]));
  }

  update() {
    const control = this.stream.get("control"), runs = this.stream.get("scenarios") ?? [], newest = runs[0];
    const runsNow = Boolean(newest && !newest.outcome), may = Boolean(control?.can.includes("run_scenario"));
    for (const each of [...this.buttons.values(), this.own]) each.disabled = runsNow || !may;
    this.own.hidden = !control?.done.length;
    this.runs.set(runs.map((each) => [each.number, [each.number, each.name, each.seed, each.simulated ? "virtual" : "real", { text: each.outcome || "runs", tone: toneOf(each.outcome) }, each.seconds || "",
      each.has_report ? { text: "report", href: `/console/report/${each.number}` } : ""]]));
    this.newest.hidden = !newest;
    if (newest) this.drawNewest(newest, may);
  }

  drawNewest(run, may) {
    setText(this.name, `${run.name}, run ${run.number}`);
    setAttributes(this.bar, { max: Math.max(run.steps, run.step, 1), value: run.outcome ? Math.max(run.steps, run.step, 1) : Math.max(run.step - 1, 0) });
    setText(this.steps, run.outcome ? `${run.seconds} s` : run.step ? `step ${run.step} of about ${Math.max(run.steps, run.step)}` : "begins");
    this.stop.hidden = Boolean(run.outcome) || !may;
    this.report.hidden = !run.has_report;
    setAttributes(this.report, { href: `/console/report/${run.number}` });
    setText(this.verdict, run.outcome ? `${run.outcome === "as expected" ? "=" : "×"} ${run.outcome}` : "");
    setAttributes(this.verdict, { class: `verdict ${toneOf(run.outcome)}` });
    this.findings.set([...run.problems, ...run.findings].map((text, at) => [`${run.number} ${at}`, text]));
    this.counts.element.hidden = !run.counts.length;
    this.counts.set(run.counts.map(([records, found, expected]) => [records, [records, found, expected]]));
    const isAtEnd = this.lines.scrollTop + this.lines.clientHeight >= this.lines.scrollHeight - 8;
    this.said.set(run.lines.map((text, at) => [`${run.number} ${at}`, text]));
    if (isAtEnd) this.lines.scrollTop = this.lines.scrollHeight;
  }
}

const toneOf = (outcome) => (!outcome ? "" : outcome === "as expected" ? "well" : "bad");
