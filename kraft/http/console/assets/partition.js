// One partition: every replica on one axis of offsets, and all that is known of it in tables.

import { h, s, setAttributes, setText, grouped, age, bytes, Keyed, Table } from "./dom.js";
import { STANDINGS } from "./stream.js";
import { ask } from "./api.js";
import { clock, details } from "./events.js";
import { ExplainPanel, explainForm } from "./explain.js";

const AXIS = { left: 84, right: 24, width: 720, row: 46, top: 26 };
const WIDTH_MIN = 280, EVENTS_EVERY_MS = 2_000, EVENTS_MAX = 50;

export class PartitionScreen {
  constructor(stream, name) {
    Object.assign(this, { stream, name, title: name, scope: new URLSearchParams({ filter: name, exact: "true", limit: "1" }).toString() });
    this.facts = h("p", { class: "facts" });
    this.svg = s("svg", { class: "axis", role: "img", "aria-labelledby": "axis-title axis-text" });
    this.text = s("desc", { id: "axis-text" });
    const ticks = s("g"), rows = s("g");
    this.svg.append(s("title", { id: "axis-title" }, `Offsets of the replicas of ${name}`), this.text, ticks, rows);
    this.ticks = new Keyed(ticks, () => s("g", { class: "tick" }, s("line"), s("text", { "text-anchor": "middle" })), changeTick);
    this.rows = new Keyed(rows, makeBar, changeBar);
    this.replicas = new Table("Replicas", [
      { label: "Node" }, { label: "Role" }, { label: "ISR" }, { label: "Leader epoch", number: true }, { label: "Log start", number: true }, { label: "Last stable", number: true },
      { label: "High watermark", number: true }, { label: "Log end", number: true }, { label: "Size", number: true }, { label: "Fetched" }, { label: "Caught up" },
    ]);
    this.epochs = new Table("Leader epochs", [{ label: "Epoch", number: true }, { label: "Begins at offset", number: true }, { label: "Known to nodes" }]);
    this.views = new Table("What other nodes say", [{ label: "Node" }, { label: "Leader" }, { label: "Leader epoch", number: true }, { label: "ISR" }], { empty: "All nodes that answer say the same." });
    this.events = new Table("Events", [{ label: "Time" }, { label: "Node" }, { label: "Event" }, { label: "Details" }], { empty: "No node has reported an event of it." });
    this.timer = setInterval(() => this.load(), EVENTS_EVERY_MS);
    const [, topic, number] = name.match(/^(.*)-(\d+)$/) ?? [];
    this.explain = new ExplainPanel(stream, `/kraft/explain/partition/${encodeURIComponent(topic ?? name)}/${number ?? 0}`);
    this.element = h("div", {}, h("p", { class: "path" }, h("a", { href: "#/partitions" }, "Partitions"), " / ", h("a", { href: `#/messages/${encodeURIComponent(name)}` }, "its messages")), h("h1", {}, name), this.facts,
      h("section", { class: "card" }, h("h2", {}, "Offsets"), this.svg, legend()), this.explain.element,
      explainForm("p-offset", "What became of the record at offset", { type: "number", min: "0", value: "0" }, (offset) => `#/record/${encodeURIComponent(name)}/${offset}`),
      h("section", { class: "card" }, h("h2", {}, "Replicas"), this.replicas.element),
      h("div", { class: "pair" }, h("section", { class: "card" }, h("h2", {}, "Leader epochs"), this.epochs.element),
        h("section", { class: "card" }, h("h2", {}, "Where nodes disagree"), this.views.element)),
      h("section", { class: "card" }, h("h2", {}, "Events"), this.events.element));
    this.load();
  }

  close() {
    clearInterval(this.timer);
  }

  async load() {
    const [, topic, partition] = this.name.match(/^(.*)-(\d+)$/) ?? [];
    const own = Number(document.body.dataset.node);
    const nodes = this.stream.nodes().filter((node) => node.answers && (own < 0 || node.id === own));
    if (topic === undefined || document.hidden) return;
    this.explain.load();
    const query = new URLSearchParams({ topic, partition, limit: EVENTS_MAX });
    const found = await Promise.allSettled(nodes.map((node) => ask(this.stream, `/kraft/events?${query}`, { node: node.id })));
    const events = found.flatMap((each) => (each.status === "fulfilled" ? each.value.events : [])).sort((a, b) => b.at_ms - a.at_ms || b.sequence - a.sequence);
    this.events.set(events.slice(0, EVENTS_MAX).map((each) => [`${each.node_id}/${each.at_ms}/${each.sequence}/${each.event}`, [clock(each.at_ms), `node ${each.node_id}`, each.event.replaceAll("_", " "), details(each)]]));
  }

  update() {
    const row = this.stream.get(`p/${this.name}`);
    if (!row) {
      if (this.stream.get("totals")) setText(this.facts, "No node knows this partition, or you may not describe its topic.");
      return;
    }
    const [leader, epoch, replicas, isr, standing, minIsr] = row;
    const { text, mark } = STANDINGS[standing];
    setText(this.facts, `${mark} ${text} · leader ${leader < 0 ? "none" : `node ${leader}`} · leader epoch ${epoch} · ISR ${isr.join(", ")} of ${replicas.join(", ")} · min.insync.replicas ${minIsr}`);
    setAttributes(this.facts, { class: `facts ${STANDINGS[standing].tone}` });
    const found = replicas.map((node) => ({ node, isIn: isr.includes(node), isLeader: node === leader, replica: this.stream.replica(this.name, node) }));
    this.draw(found);
    const followers = this.stream.get(`f/${this.name}`) || {};
    this.replicas.set(found.map((each) => [each.node, replicaRow(each, followers[each.node])]));
    this.showEpochs(replicas);
    this.views.set(Object.entries(this.stream.get(`v/${this.name}`) || {}).map(([node, said]) => [node, [`node ${node}`, said[0] < 0 ? "none" : `node ${said[0]}`, said[1], said[3].join(", ")]]));
  }

  draw(found) {
    const known = found.filter((each) => each.replica && each.replica.end >= 0).map((each) => each.replica);
    const low = Math.min(...known.map((each) => each.start)), high = Math.max(...known.map((each) => each.end));
    AXIS.width = Math.max(this.svg.parentNode.clientWidth - 36, WIDTH_MIN);
    const scale = scaleOf(known.length ? low : 0, known.length ? high : 1);
    const height = AXIS.top + found.length * AXIS.row + 6;
    setAttributes(this.svg, { viewBox: `0 0 ${AXIS.width} ${height}`, height });
    this.ticks.set(scale.ticks.map((offset) => [offset, { offset, x: scale.at(offset), height }]));
    this.rows.set(found.map((each, at) => [each.node, { ...each, y: AXIS.top + at * AXIS.row, scale }]));
    setText(this.text, found.map(({ node, replica }) => (replica ? `Node ${node}: ${replica.role}, high watermark ${replica.high}, log end ${replica.end}.` : `Node ${node} does not answer.`)).join(" "));
  }

  showEpochs(replicas) {
    const known = new Map();
    for (const node of replicas) {
      for (const [epoch, start] of this.stream.get(`e/${this.name}/${node}`) || []) {
        const key = `${epoch}@${start}`;
        known.set(key, { epoch, start, nodes: [...(known.get(key)?.nodes ?? []), node] });
      }
    }
    const rows = [...known].sort(([, a], [, b]) => b.epoch - a.epoch || b.start - a.start).slice(0, 30);
    this.epochs.set(rows.map(([key, each]) => [key, [each.epoch, grouped(each.start), each.nodes.join(", ")]]));
  }
}

function replicaRow({ node, isIn, isLeader, replica }, follower) {
  const isr = { text: isIn ? "in" : "out", tone: isIn ? "" : "warn" };
  const ages = [isLeader ? "leads" : follower ? age(follower[1]) : "?", isLeader ? "leads" : follower ? age(follower[2]) : "?"];
  if (!replica) {
    const end = follower ? { text: grouped(follower[0]), title: "as the leader knows it" } : "?";
    return [`node ${node}`, { text: "? does not answer", tone: "bad" }, isr, "?", "?", "?", "?", end, "?", ...ages];
  }
  const role = { text: replica.role === "offline" ? "× offline" : replica.role, tone: replica.role === "offline" ? "bad" : "" };
  return [`node ${node}`, role, isr, replica.epoch, ...[replica.start, replica.stable, replica.high, replica.end].map(grouped), bytes(replica.size), ...ages];
}

// --- the axis --------------------------------------------------------------------------------------

// What is far behind the end of a long log would be a hair: the axis begins where the replicas differ.
function scaleOf(low, high) {
  const span = Math.max(high - low, 1);
  const width = AXIS.width - AXIS.left - AXIS.right;
  const step = niceStep(span / 5);
  const ticks = [];
  for (let offset = Math.ceil(low / step) * step; offset <= high; offset += step) ticks.push(offset);
  return { low, ticks, at: (offset) => AXIS.left + (Math.max(offset - low, 0) / span) * width };
}

function niceStep(wanted) {
  const power = 10 ** Math.floor(Math.log10(Math.max(wanted, 1)));
  return Math.max([1, 2, 5, 10].map((each) => each * power).find((each) => each >= wanted) || 1, 1);
}

function changeTick(element, { offset, x, height }) {
  setAttributes(element.firstChild, { x1: x, x2: x, y1: 18, y2: height });
  setAttributes(element.lastChild, { x, y: 13 });
  setText(element.lastChild, grouped(offset));
}

function makeBar() {
  return s("g", {}, s("text", { class: "label", x: 0, y: 15 }), s("text", { class: "small", x: 0, y: 30 }), s("rect", { class: "log", y: 5, height: 22, rx: 3 }),
    s("rect", { class: "high", y: 5, height: 22, rx: 3 }), s("rect", { class: "stable", y: 24, height: 3 }), s("line", { class: "mark", y1: 1, y2: 31 }), s("text", { class: "small", x: AXIS.left, y: 20 }));
}

function changeBar(element, { node, isIn, isLeader, replica, y, scale }) {
  const [label, role, log, high, stable, mark, nothing] = element.children;
  const isKnown = replica && replica.end >= 0;
  setAttributes(element, { transform: `translate(0 ${y})`, class: `bar${isLeader ? " lead" : ""}${isIn ? "" : " out"}` });
  setText(label, `node ${node}`);
  setText(role, isLeader ? "leader" : isIn ? "in ISR" : "not in ISR");
  setText(nothing, isKnown ? "" : replica ? "offline" : "does not answer");
  for (const each of [log, high, stable, mark]) setAttributes(each, { visibility: isKnown ? null : "hidden" });
  if (!isKnown) return;
  const from = scale.at(replica.start), width = (offset) => Math.max(scale.at(offset) - from, 1).toFixed(1);
  setAttributes(log, { x: from, width: width(replica.end) });
  setAttributes(high, { x: from, width: width(replica.high) });
  setAttributes(stable, { x: from, width: width(Math.min(replica.stable, replica.high)) });
  const at = scale.at(replica.high).toFixed(1);
  setAttributes(mark, { x1: at, x2: at });
}

function legend() {
  const box = (name, text) => h("li", {}, s("svg", { width: 22, height: 14, class: "axis", "aria-hidden": "true" }, s("g", { class: "bar" }, name === "mark" ? s("line", { class: "mark", x1: 11, x2: 11, y1: 0, y2: 14 }) : s("rect", { class: name, width: 22, height: name === "stable" ? 4 : 14, y: name === "stable" ? 5 : 0, rx: 2 }))), ` ${text}`);
  return h("ul", { class: "legend" }, box("high", "replicated, up to the high watermark"), box("log", "in this log alone, up to the log end"), box("mark", "high watermark"), box("stable", "up to the last stable offset"));
}
