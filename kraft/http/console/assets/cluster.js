// The nodes on a ring, the connections between them in both directions, and the same as tables.

import { h, s, setAttributes, setText, grouped, Keyed, Table } from "./dom.js";
import { STANDINGS } from "./stream.js";
import { AnswerCard, BreakCard, linkButtons, nodeButtons } from "./breaking.js";
import { WorkloadCard } from "./workload.js";
import { explainForm } from "./explain.js";

const RING = { width: 640, height: 350, x: 320, y: 172, across: 220, down: 132, box: { width: 128, height: 62 } };
const WORST_SHOWN = 12;

export class ClusterScreen {
  constructor(stream) {
    this.stream = stream;
    this.title = "Cluster";
    this.scope = `limit=${WORST_SHOWN}&only_bad=true`;
    this.tiles = h("ul", { class: "tiles" });
    this.tileRows = new Keyed(this.tiles, () => h("li", {}, h("b"), h("span")), changeTile);
    this.ring = s("svg", { class: "ring", viewBox: `0 0 ${RING.width} ${RING.height}`, role: "img", "aria-labelledby": "ring-title ring-text" });
    this.ringText = s("desc", { id: "ring-text" });
    const links = s("g"), nodes = s("g");
    this.ring.append(s("title", { id: "ring-title" }, "Nodes and their connections"), this.ringText, links, nodes);
    this.links = new Keyed(links, makeLink, changeLink);
    this.nodes = new Keyed(nodes, makeNode, changeNode);
    this.selected = null;
    this.ring.addEventListener("click", (event) => this.select(event.target.closest("[data-key]")));
    this.breaking = new BreakCard();
    this.answers = new AnswerCard();
    this.workload = new WorkloadCard(stream);
    this.nodeTable = new Table("Nodes", [
      { label: "Node" }, { label: "State" }, { label: "Roles" }, { label: "Leads", number: true },
      { label: "Sees as quorum leader" }, { label: "Term", number: true }, { label: "Metadata offset", number: true }, { label: "Remarks" }, { label: "Actions" },
    ]);
    this.linkTable = new Table("Connections", [{ label: "From" }, { label: "To" }, { label: "State" }, { label: "Open" }, { label: "Closed" }, { label: "Actions" }]);
    this.worst = new Table("Partitions that need attention", [
      { label: "Partition" }, { label: "Standing" }, { label: "Leader" }, { label: "ISR" }, { label: "Replicas" },
    ], { empty: "Every partition has a leader, and all its replicas are in sync." });
    this.element = h("div", {}, h("h1", {}, "Cluster"), this.tiles,
      h("div", { class: "pair" }, h("section", { class: "card" }, h("h2", {}, "Nodes and links"), this.ring, legend()),
        h("div", { class: "stack" }, this.breaking.element, h("section", { class: "card" }, h("h2", {}, "Needs attention"), this.worst.element,
          explainForm("c-client", "A client that is refused or throttled", { maxlength: "200" }, (name) => `#/client/${encodeURIComponent(name)}`)))),
      this.workload.element, this.answers.element,
      h("section", { class: "card" }, h("h2", {}, "Nodes"), this.nodeTable.element),
      h("section", { class: "card" }, h("h2", {}, "Connections"), this.linkTable.element));
  }

  update() {
    const cluster = this.stream.get("cluster"), totals = this.stream.get("totals");
    if (!cluster) return;
    const nodes = this.stream.nodes().sort((a, b) => a.id - b.id);
    this.tileRows.set(tiles(cluster, totals, nodes));
    const links = linksOf(nodes), places = placesOf(nodes);
    this.links.set(links.map((link) => [`${link.from}-${link.to}`, { ...link, a: places.get(link.from), b: places.get(link.to) }]));
    this.nodes.set(nodes.map((node) => [node.id, { node, place: places.get(node.id), isLeader: node.id === cluster.controller, leads: totals?.leaders[node.id] }]));
    const control = this.stream.get("control");
    this.ring.classList.toggle("clickable", Boolean(control));
    this.element.classList.toggle("no-actions", !control);
    this.breaking.update(control, control && this.chosen(nodes, links, control));
    this.workload.update(control);
    this.answers.update(control, nodes.filter((node) => node.roles.includes("broker")));
    const cut = links.filter((link) => link.state !== "open");
    setText(this.ringText, `${nodes.map((node) => `Node ${node.id} is ${standingOf(node).text}.`).join(" ")} ${cut.map((link) => `Node ${link.from} does not reach node ${link.to}.`).join(" ")}`);
    this.nodeTable.set(nodes.map((node) => [node.id, [...nodeRow(node, cluster, totals), control ? { node: nodeButtons(node, control) } : ""]]));
    this.linkTable.set(links.map((link) => [`${link.from}-${link.to}`, [
      `node ${link.from}`, `node ${link.to}`, { text: LINKS[link.state].text, tone: LINKS[link.state].tone }, link.open.join(", ") || "-", link.closed.join(", ") || "-",
      control ? { node: linkButtons(link, control) ?? document.createTextNode("") } : "",
    ]]));
    this.worst.set(this.stream.partitions().filter((each) => each.standing < 3).map((each) => [each.name, [
      { text: each.name, href: `#/partition/${encodeURIComponent(each.name)}` },
      { text: `${STANDINGS[each.standing].mark} ${STANDINGS[each.standing].text}`, tone: STANDINGS[each.standing].tone },
      each.leader < 0 ? "none" : each.leader, each.isr.join(", "), each.replicas.join(", "),
    ]]));
  }

  select(element) {
    if (!this.stream.get("control") || !element) return;
    this.selected = element.dataset.key;
    this.update();
  }

  // The buttons of what was clicked in the picture stand beside it; those of the tables stay where they are.
  chosen(nodes, links, control) {
    const node = nodes.find((each) => `node-${each.id}` === this.selected);
    const link = links.find((each) => `link-${each.from}-${each.to}` === this.selected);
    for (const each of this.ring.querySelectorAll("[data-key]")) each.classList.toggle("selected", each.dataset.key === this.selected);
    if (!node && !link) return null;
    const made = node ? nodeButtons(node, control) : linkButtons(link, control);
    if (!made) return null;
    if (this.shown?.key !== this.selected || this.shown.version !== made.dataset.version) {
      const copy = made.cloneNode(true);
      [...copy.children].forEach((each, at) => each.addEventListener("click", () => made.children[at].click()));
      this.shown = { key: this.selected, version: made.dataset.version, copy, node: h("p", {}, h("b", {}, node ? `Node ${node.id}` : `Link ${link.from} \u2192 ${link.to}`), " ", copy) };
    }
    [...this.shown.copy.children].forEach((each, at) => (each.disabled = made.children[at].disabled));
    return this.shown;
  }
}

const LINKS = {
  open: { text: "open", tone: "well" },
  closed: { text: "× closed", tone: "bad" },
  partly: { text: "~ partly closed", tone: "warn" },
  unknown: { text: "? unknown", tone: "quiet" },
};

function tiles(cluster, totals, nodes) {
  const answering = nodes.filter((node) => node.answers).length;
  const found = [
    ["quorum", { text: "quorum leader", value: cluster.controller >= 0 ? `node ${cluster.controller}` : "none", tone: cluster.controller >= 0 ? "" : "bad" }],
    ["term", { text: "term", value: grouped(cluster.epoch) }],
    ["nodes", { text: "nodes answer", value: `${answering} of ${nodes.length}`, tone: answering < nodes.length ? "bad" : "" }],
  ];
  if (!totals) return found;
  const count = (name, text, tone) => [name, { text, value: grouped(totals[name]), tone: totals[name] ? tone : "" }];
  return [
    ...found, count("topics", "topics", ""), count("partitions", "partitions", ""), count("under_replicated", "under-replicated", "warn"),
    count("under_min_isr", "under min ISR", "bad"), count("offline", "offline", "bad"),
  ];
}

function changeTile(element, { text, value, tone }) {
  setText(element.firstChild, value);
  setText(element.lastChild, text);
  setAttributes(element, { class: tone || null });
}

function nodeRow(node, cluster, totals) {
  const standing = standingOf(node);
  const sees = node.answers ? (node.controller >= 0 ? `node ${node.controller}` : "none") : "?";
  const disagrees = node.answers && node.controller !== cluster.controller;
  return [
    { text: `node ${node.id}`, href: `#/node/${node.id}` }, { text: standing.text, tone: standing.tone }, node.roles.join(", "), grouped(totals?.leaders[node.id] ?? (node.roles.includes("broker") ? 0 : -1)),
    { text: sees, tone: disagrees ? "warn" : "" }, { text: node.answers ? grouped(node.epoch) : "?", tone: disagrees ? "warn" : "" },
    node.answers ? grouped(node.offset) : "?", node.awaits || node.why || "",
  ];
}

export function standingOf(node) {
  if (node.process && node.process !== "running") return { text: `× ${node.process}`, tone: "bad" };
  if (!node.answers) return { text: node.state === "down" || node.state === "fenced" ? `× ${node.state}` : "? does not answer", tone: "bad" };
  if (node.awaits) return { text: "~ waits", tone: "warn" };
  if (node.state === "active" || node.state === "controller") return { text: node.state, tone: "well" };
  return { text: `! ${node.state}`, tone: "warn" };
}

// One for each direction. What a node that does not answer has open, nobody knows.
export function linksOf(nodes) {
  const found = [];
  for (const from of nodes) {
    for (const to of nodes) {
      if (from.id === to.id) continue;
      const purposes = Object.entries(from.links?.[to.id] ?? {});
      const open = purposes.filter(([, isOpen]) => isOpen).map(([name]) => name);
      const closed = purposes.filter(([, isOpen]) => !isOpen).map(([name]) => name);
      const state = !from.answers || !purposes.length ? "unknown" : !closed.length ? "open" : open.length ? "partly" : "closed";
      found.push({ from: from.id, to: to.id, open, closed, state });
    }
  }
  return found;
}

// --- the picture -----------------------------------------------------------------------------------

function placesOf(nodes) {
  const lift = nodes.length === 3 ? RING.down / 4 : 0; // a triangle stands higher than its middle
  return new Map(nodes.map((node, at) => {
    const angle = (2 * Math.PI * at) / nodes.length - Math.PI / 2;
    return [node.id, { x: RING.x + RING.across * Math.cos(angle), y: RING.y + lift + RING.down * Math.sin(angle) }];
  }));
}

function makeLink() {
  return s("g", { class: "link" }, s("path", { class: "hit" }), s("path", { class: "line" }), s("path", { class: "head" }), s("text", { "text-anchor": "middle" }));
}

function changeLink(element, { a, b, state }, key) {
  const length = Math.hypot(b.x - a.x, b.y - a.y) || 1;
  const along = { x: (b.x - a.x) / length, y: (b.y - a.y) / length };
  const aside = { x: -along.y * 7, y: along.x * 7 };
  const from = edge(a, along, aside, 1), to = edge(b, along, aside, -1);
  const middle = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
  const [hit, line, head, mark] = element.children;
  setAttributes(element, { "data-key": `link-${key}` });
  for (const each of ["open", "partly", "closed", "unknown"]) element.classList.toggle(each, each === state);
  setAttributes(hit, { d: `M${round(from)} L${round(to)}` });
  setAttributes(line, { d: `M${round(from)} L${round(to)}` });
  const back = { x: to.x - along.x * 9, y: to.y - along.y * 9 };
  const wing = { x: -along.y * 4.5, y: along.x * 4.5 };
  setAttributes(head, { d: `M${round(to)} L${round({ x: back.x + wing.x, y: back.y + wing.y })} L${round({ x: back.x - wing.x, y: back.y - wing.y })} Z` });
  setAttributes(mark, { x: Math.round(middle.x + aside.x), y: Math.round(middle.y + aside.y + 5) });
  setText(mark, state === "closed" ? "×" : state === "partly" ? "~" : "");
}

// Where a line along this direction leaves the box of a node.
function edge(center, along, aside, sign) {
  const { width, height } = RING.box;
  const reach = Math.min((width / 2 + 4) / Math.max(Math.abs(along.x), 0.001), (height / 2 + 4) / Math.max(Math.abs(along.y), 0.001));
  return { x: center.x + aside.x + sign * along.x * reach, y: center.y + aside.y + sign * along.y * reach };
}

const round = ({ x, y }) => `${x.toFixed(1)} ${y.toFixed(1)}`;

function makeNode() {
  const { width, height } = RING.box;
  return s("g", {}, s("rect", { x: -width / 2, y: -height / 2, width, height, rx: 8 }),
    s("text", { class: "id", "text-anchor": "middle", y: -10 }), s("text", { "text-anchor": "middle", y: 7 }), s("text", { class: "small", "text-anchor": "middle", y: 23 }));
}

function changeNode(element, { node, place, isLeader, leads }) {
  const standing = standingOf(node);
  element.classList.add("node");
  for (const each of ["well", "warn", "bad"]) element.classList.toggle(each, each === standing.tone);
  element.classList.toggle("leader", isLeader);
  setAttributes(element, { "data-key": `node-${node.id}`, transform: `translate(${place.x.toFixed(1)} ${place.y.toFixed(1)})` });
  setText(element.children[1], `node ${node.id}`);
  setText(element.children[2], standing.text);
  setText(element.children[3], isLeader ? "quorum leader" : leads === undefined ? node.roles.join(", ") : `leads ${grouped(leads)}`);
}

function legend() {
  const line = (state, text) => h("li", {}, s("svg", { width: 34, height: 12, "aria-hidden": "true", class: "ring" }, s("g", { class: `link ${state}` }, s("path", { class: "line", d: "M1 6 L33 6" }))), ` ${text}`);
  return h("ul", { class: "legend" }, line("open", "open"), line("partly", "~ partly closed"), line("closed", "× closed"), line("unknown", "not known: the node does not answer"));
}
