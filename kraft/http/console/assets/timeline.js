// Nodes, partitions, faults and rates on one axis of time, with one cursor for all.

import { h, s, setAttributes, setText, grouped, Keyed, Table } from "./dom.js";
import { ask } from "./api.js";
import { clock, details } from "./events.js";

const LEFT = 128, RIGHT = 12, LANE = 24, CURVE = 90, TOP = 24;
const PARTITIONS_MAX = 12, EVENTS_MAX = 100, EVENTS_EVERY_MS = 3_000;
const SPANS = [["1", "1 minute"], ["5", "5 minutes"], ["15", "15 minutes"]];

export class TimelineScreen {
  constructor(stream, argument, watch, history) {
    Object.assign(this, { stream, history, title: "Time line", scope: `limit=${PARTITIONS_MAX}`, cursor: null, events: [] });
    this.minutes = h("select", { id: "minutes" }, SPANS.map(([value, text]) => h("option", { value }, text)));
    this.minutes.addEventListener("change", () => this.update());
    this.svg = s("svg", { class: "lanes", role: "group", "aria-label": "Lanes of nodes, partitions, faults and rates", tabindex: "0" });
    const ticks = s("g"), lanes = s("g");
    this.curve = { acknowledged: s("path", { class: "curve acknowledged" }), written: s("path", { class: "curve written" }), failed: s("path", { class: "curve failed" }), label: s("text", { class: "label", x: 0 }), most: s("text", { class: "small", x: 0 }) };
    this.line = s("line", { class: "cursor", y1: TOP });
    this.svg.append(ticks, lanes, ...Object.values(this.curve), this.line);
    this.ticks = new Keyed(ticks, () => s("g", { class: "tick" }, s("line"), s("text", { "text-anchor": "middle", y: 13 })), (element, { x, text, height }) => {
      setAttributes(element.firstChild, { x1: x, x2: x, y1: 18, y2: height });
      setAttributes(element.lastChild, { x });
      setText(element.lastChild, text);
    });
    this.lanes = new Keyed(lanes, () => makeLane(), changeLane);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.moveTo(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.said = h("p", { class: "quiet", role: "status" });
    this.atCursor = new Table("At the cursor", [{ label: "Lane" }, { label: "State" }], { empty: "Move the pointer over the lanes, or focus them and use the arrow keys." });
    this.table = new Table("Events", [{ label: "Time" }, { label: "Node" }, { label: "Event" }, { label: "Of" }, { label: "Details" }], { empty: "No node has reported an event yet." });
    this.element = h("div", {}, h("h1", {}, "Time line"), h("div", { class: "form" }, h("label", { for: "minutes" }, "Show the last"), this.minutes, this.said),
      h("section", { class: "card" }, h("h2", {}, "Lanes"), this.svg, legend()),
      h("section", { class: "card" }, h("h2", {}, "At the cursor"), this.atCursor.element),
      h("section", { class: "card" }, h("h2", {}, "Events"), this.table.element));
    this.timer = setInterval(() => this.load(), EVENTS_EVERY_MS);
    this.load();
  }

  close() {
    clearInterval(this.timer);
  }

  update() {
    const now = this.stream.at || Date.now(), length = Number(this.minutes.value) * 60_000;
    const width = Math.max(this.svg.parentNode.clientWidth - 36, 280);
    this.view = { from: now - length, to: now, width, at: (time) => LEFT + ((time - now + length) / length) * (width - LEFT - RIGHT) };
    const rows = this.rows();
    const height = TOP + rows.length * LANE + CURVE + 16;
    setAttributes(this.svg, { viewBox: `0 0 ${width} ${height}`, height });
    const count = width < 500 ? 2 : 5;
    this.ticks.set(Array.from({ length: count + 1 }, (_, at) => {
      const time = now - length + (length * at) / count;
      return [at, { x: Math.min(this.view.at(time), width - 30), text: at === count ? "now" : clock(time), height }];
    }));
    this.lanes.set(rows.map((row, at) => [row.key, { ...row, y: TOP + at * LANE, view: this.view }]));
    this.drawRates(TOP + rows.length * LANE + 10);
    this.drawCursor(height);
    this.table.set(this.events.slice(0, EVENTS_MAX).map((each) => [`${each.node_id}/${each.at_ms}/${each.sequence}/${each.event}`, [clock(each.at_ms), `node ${each.node_id}`, each.event.replaceAll("_", " "), each.topic ? `${each.topic}-${each.partition ?? ""}` : "", details(each)]]));
  }

  rows() {
    const spans = (key) => this.history.lanes.get(key) ?? [];
    const nodes = this.stream.nodes().map((node) => node.id).sort((a, b) => a - b).map((id) => ({ key: `node/${id}`, text: `node ${id}`, spans: spans(`node/${id}`), look: ofNode }));
    const faults = this.stream.get("control") ? [{ key: "faults", text: "faults", spans: spans("faults").filter((each) => each.value), look: (value) => ({ tone: "bad", text: value }) }] : [];
    const partitions = this.stream.partitions().slice(0, PARTITIONS_MAX).map(({ name }) => ({ key: `partition/${name}`, text: name, spans: spans(`partition/${name}`), look: ofPartition }));
    return [...nodes, ...faults, ...partitions];
  }

  drawRates(y) {
    const rates = this.history.rates.filter((each) => each.at >= this.view.from);
    const most = Math.max(10, ...rates.flatMap((each) => [each.acknowledged ?? 0, each.failed ?? 0, each.written ?? 0]));
    const path = (name) => {
      let isOn = false;
      return rates.map((each) => {
        if (each[name] === null) return (isOn = false) || "";
        const point = `${isOn ? "L" : "M"}${this.view.at(each.at).toFixed(1)} ${(y + CURVE - (each[name] / most) * (CURVE - 8)).toFixed(1)}`;
        isOn = true;
        return point;
      }).join(" ");
    };
    for (const name of ["acknowledged", "failed", "written"]) setAttributes(this.curve[name], { d: path(name) || null });
    setAttributes(this.curve.label, { y: y + 16 });
    setText(this.curve.label, "records a second");
    setAttributes(this.curve.most, { y: y + 32 });
    setText(this.curve.most, `up to ${grouped(Math.round(most))}`);
  }

  point(event) {
    const place = this.svg.getBoundingClientRect();
    const x = ((event.clientX - place.left) / place.width) * this.view.width;
    if (x < LEFT) return this.moveTo(null);
    this.moveTo(this.view.from + ((x - LEFT) / (this.view.width - LEFT - RIGHT)) * (this.view.to - this.view.from));
  }

  key(event) {
    const step = (this.view.to - this.view.from) / 60;
    if (event.key === "ArrowLeft") this.moveTo((this.cursor ?? this.view.to) - step);
    else if (event.key === "ArrowRight") this.moveTo(Math.min((this.cursor ?? this.view.to) + step, this.view.to));
    else if (event.key === "Escape") this.moveTo(null);
    else return;
    event.preventDefault();
  }

  moveTo(time) {
    this.cursor = time;
    this.drawCursor();
  }

  drawCursor(height) {
    if (height) setAttributes(this.line, { y2: height });
    const isOn = this.cursor !== null && this.cursor >= this.view.from;
    setAttributes(this.line, { x1: isOn ? this.view.at(this.cursor) : null, x2: isOn ? this.view.at(this.cursor) : null, visibility: isOn ? null : "hidden" });
    setText(this.said, isOn ? `cursor at ${clock(this.cursor)}` : "");
    if (!isOn) return this.atCursor.set([]);
    const rate = this.history.rates.findLast((each) => each.at <= this.cursor + 1_000);
    const rates = rate ? [["rates", ["records a second", [["acknowledged", rate.acknowledged], ["not acknowledged", rate.failed], ["written", rate.written]].filter(([, value]) => value !== null).map(([name, value]) => `${Math.round(value)} ${name}`).join(", ")]]] : [];
    this.atCursor.set([...this.rows().map((row) => {
      const value = this.history.at(row.key, this.cursor);
      return [row.key, [row.text, value === undefined ? "not seen" : row.look(value).text || "none"]];
    }), ...rates]);
  }

  // The nodes' own memory: it has what happened before the page was opened.
  async load() {
    const nodes = this.stream.nodes().filter((node) => node.answers);
    const own = Number(document.body.dataset.node);
    const asked = own < 0 ? nodes : nodes.filter((node) => node.id === own);
    const found = await Promise.allSettled(asked.map((node) => ask(this.stream, `/kraft/events?limit=${EVENTS_MAX}`, { node: node.id })));
    const events = found.flatMap((each) => (each.status === "fulfilled" ? each.value.events : []));
    this.events = events.sort((a, b) => b.at_ms - a.at_ms || b.sequence - a.sequence);
  }
}

function ofNode(value) {
  const [state, leads] = value.split("|");
  const tone = state === "active" || state === "controller" ? (leads ? "lead" : "well") : state === "waits" || state === "fenced" || state === "shutting down" ? "warn" : "bad";
  return { tone, text: leads ? `${state}, ${leads}` : state, mark: leads ? "quorum leader" : tone === "bad" ? state : "" };
}

function ofPartition(value) {
  const [leader, isr, standing] = value.split("|");
  const tone = Number(standing) < 2 ? "bad" : Number(standing) === 2 ? "warn" : "well";
  return { tone, text: `leader ${leader === "-1" ? "none" : `node ${leader}`}, ISR ${isr}`, mark: leader === "-1" ? "no leader" : `${leader} (${isr})` };
}

function makeLane() {
  const spans = s("g");
  const element = s("g", { class: "lane" }, s("text", { class: "label", y: 15 }), spans);
  element.spans = new Keyed(spans, () => s("g", {}, s("rect", { y: 3, height: LANE - 6, rx: 3 }), s("text", { class: "small", y: 16 })), (each, { x, width, tone, mark }) => {
    setAttributes(each, { class: tone });
    setAttributes(each.firstChild, { x: x.toFixed(1), width: Math.max(width, 1.5).toFixed(1) });
    setAttributes(each.lastChild, { x: (x + 5).toFixed(1) });
    setText(each.lastChild, width > mark.length * 7 + 8 ? mark : "");
  });
  return element;
}

function changeLane(element, { text, spans, look, y, view }) {
  setAttributes(element, { transform: `translate(0 ${y})` });
  setText(element.firstChild, text.length > 16 ? `${text.slice(0, 7)}…${text.slice(-8)}` : text);
  element.spans.set(spans.filter((span) => span.to >= view.from).map((span) => {
    const { tone, mark = "" } = look(span.value), x = Math.max(view.at(span.from), LEFT);
    return [span.from, { x, width: view.at(span.to) - x, tone, mark }];
  }));
}

function legend() {
  const box = (tone, text) => h("li", {}, s("svg", { width: 22, height: 14, class: "lanes", "aria-hidden": "true" }, s("g", { class: "lane" }, s("g", { class: tone }, s("rect", { width: 22, height: 14, rx: 3 })))), ` ${text}`);
  const curve = (name, text) => h("li", {}, s("svg", { width: 22, height: 14, class: "lanes", "aria-hidden": "true" }, s("path", { class: `curve ${name}`, d: "M1 7 L21 7" })), ` ${text}`);
  return h("ul", { class: "legend" }, box("lead", "quorum leader"), box("well", "active, in sync"), box("warn", "under-replicated, waits"), box("bad", "down, no leader, fault"), curve("acknowledged", "acknowledged (workload)"), curve("failed", "not acknowledged"), curve("written", "high watermarks"));
}
