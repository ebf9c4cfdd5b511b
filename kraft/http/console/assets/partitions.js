// All partitions as a map of squares, and a table with one column for each node; the worst come first.

import { h, s, setAttributes, setText, grouped, Keyed, Table } from "./dom.js";
import { STANDINGS } from "./stream.js";

const SQUARE = 16, LINE = 30;
const FILTER_MS = 300;

export class PartitionsScreen {
  constructor(stream, argument, watch) {
    this.stream = stream;
    this.title = "Partitions";
    this.columns = "";
    const query = new URLSearchParams(argument);
    this.filter = h("input", { id: "filter", type: "search", spellcheck: "false", value: query.get("filter") || "" });
    this.onlyBad = h("input", { id: "only-bad", type: "checkbox", checked: query.get("only_bad") === "true" });
    let timer = 0;
    const asked = () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        const search = this.query();
        history.replaceState(null, "", `#/partitions${search ? `/${encodeURIComponent(search)}` : ""}`);
        watch((this.scope = search));
      }, FILTER_MS);
    };
    this.filter.addEventListener("input", asked);
    this.onlyBad.addEventListener("change", asked);
    this.count = h("p", { class: "quiet" });
    this.map = s("svg", { class: "map", role: "group", "aria-label": "Partitions as squares, the worst first" });
    this.squares = new Keyed(this.map, makeSquare, changeSquare);
    this.place = h("div");
    this.element = h("div", {}, h("h1", {}, "Partitions"),
      h("div", { class: "form" }, h("label", { for: "filter" }, "Name contains"), this.filter, h("label", { class: "check" }, this.onlyBad, " only bad ones"), this.count),
      h("section", { class: "card" }, h("h2", {}, "Map"), this.map, legend()),
      h("section", { class: "card" }, h("h2", {}, "Replicas by node"), this.place,
        h("p", { class: "quiet" }, "L leads, F follows in the ISR, f follows outside of the ISR, × is offline, ? is not known; the number is its log end offset.")));
    this.scope = this.query();
  }

  query() {
    const query = new URLSearchParams();
    if (this.filter.value) query.set("filter", this.filter.value);
    if (this.onlyBad.checked) query.set("only_bad", "true");
    return query.toString();
  }

  update() {
    const totals = this.stream.get("totals");
    if (!totals) return;
    const partitions = this.stream.partitions();
    const more = totals.matched > totals.shown ? `; the ${grouped(totals.shown)} worst are shown` : "";
    setText(this.count, `${grouped(totals.matched)} of ${grouped(totals.partitions)} partitions${more}`);
    const lines = Math.max(Math.ceil(partitions.length / LINE), 1);
    const across = Math.min(Math.max(partitions.length, 1), LINE);
    setAttributes(this.map, { viewBox: `0 0 ${across * SQUARE} ${lines * SQUARE}`, width: across * SQUARE, height: lines * SQUARE });
    this.squares.set(partitions.map((each, at) => [each.name, { ...each, at }]));
    const nodes = this.stream.nodes().filter((node) => node.roles.includes("broker")).map((node) => node.id).sort((a, b) => a - b);
    if (this.columns !== nodes.join()) {
      this.columns = nodes.join();
      this.table = new Table("Replicas of each partition by node", [
        { label: "Partition" }, { label: "Standing" }, { label: "ISR" }, { label: "Epoch", number: true }, ...nodes.map((node) => ({ label: `Node ${node}`, number: true })),
      ], { hidesCaption: true, empty: "No partition matches." });
      this.place.replaceChildren(this.table.element);
    }
    this.table.set(partitions.map((each) => [each.name, [
      { text: each.name, href: `#/partition/${encodeURIComponent(each.name)}` },
      { text: `${STANDINGS[each.standing].mark} ${STANDINGS[each.standing].text}`, tone: STANDINGS[each.standing].tone },
      `${each.isr.join(", ")} (min ${each.minIsr})`, each.epoch,
      ...nodes.map((node) => this.cell(each, node)),
    ]]));
  }

  cell(partition, node) {
    if (!partition.replicas.includes(node)) return "";
    const replica = this.stream.replica(partition.name, node);
    const isIn = partition.isr.includes(node);
    if (!replica) return { text: `? ${isIn ? "" : "out"}`, tone: "cell quiet", title: `node ${node} does not answer` };
    if (replica.role === "offline") return { text: "× offline", tone: "cell bad" };
    const letter = replica.role === "leader" ? "L" : isIn ? "F" : "f";
    return { text: `${letter} ${grouped(replica.end)}`, tone: `cell ${replica.role === "leader" ? "lead" : isIn ? "well" : "warn"}` };
  }
}

function makeSquare() {
  return s("a", {}, s("rect", { width: SQUARE - 3, height: SQUARE - 3, x: 1, y: 1, rx: 2 }), s("text", { x: SQUARE / 2 - 0.5, y: SQUARE - 4.5, "text-anchor": "middle", "aria-hidden": "true" }));
}

function changeSquare(element, { name, at, standing }) {
  const { text, mark, tone } = STANDINGS[standing];
  setAttributes(element, {
    href: `#/partition/${encodeURIComponent(name)}`, "aria-label": `${name}: ${text}`, class: `square ${tone}`, tabindex: -1,
    transform: `translate(${(at % LINE) * SQUARE} ${Math.floor(at / LINE) * SQUARE})`,
  });
  setText(element.lastChild, standing === 4 ? "" : mark);
}

function legend() {
  return h("ul", { class: "legend" }, STANDINGS.map(({ text, mark, tone }) => h("li", {}, s("svg", { width: 14, height: 14, class: "map", "aria-hidden": "true" },
    s("g", { class: `square ${tone}` }, s("rect", { width: 13, height: 13, rx: 2 }), s("text", { x: 6.5, y: 10.5, "text-anchor": "middle" }, mark === "=" ? "" : mark))), ` ${text}`)));
}
