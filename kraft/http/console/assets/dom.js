// Elements, and tables whose rows keep their place in the document while their cells change.
// Texts become text nodes, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    const wanted = value === null || value === undefined ? null : String(value);
    if (node.getAttribute(name) === wanted) continue;
    if (wanted === null) node.removeAttribute(name);
    else node.setAttribute(name, wanted);
  }
}

// Children by key, in the order of the items: `make(item)` returns an element, `change(element, item)` brings it up to date.
export class Keyed {
  constructor(parent, make, change) {
    Object.assign(this, { parent, make, change, known: new Map() });
  }
  set(items) {
    const seen = new Set();
    let before = this.parent.firstChild;
    for (const [key, item] of items) {
      seen.add(key);
      let element = this.known.get(key);
      if (!element) this.known.set(key, (element = this.make(item, key)));
      this.change(element, item, key);
      if (element === before) before = before.nextSibling;
      else this.parent.insertBefore(element, before);
    }
    for (const [key, element] of this.known) {
      if (seen.has(key)) continue;
      element.remove();
      this.known.delete(key);
    }
  }
}

// A table in a box that scrolls by itself. Columns: {name, label, number}; a cell is a text, or {text, tone, href, title}.
export class Table {
  constructor(caption, columns, { hidesCaption = false, wraps = false, empty = "Nothing to show." } = {}) {
    this.columns = columns;
    const head = h("tr", {}, columns.map((each) => h("th", { scope: "col", class: each.number ? "number" : null }, each.label)));
    this.body = h("tbody");
    this.table = h("table", { class: wraps ? "wraps" : null }, h("caption", { class: hidesCaption ? "hidden" : null }, caption), h("thead", {}, head), this.body);
    this.nothing = h("p", { class: "quiet" }, empty);
    this.element = h("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" }, this.table, this.nothing);
    this.rows = new Keyed(this.body, () => this.makeRow(), (row, cells) => this.changeRow(row, cells));
  }
  makeRow() {
    return h("tr", {}, this.columns.map((each, at) => h(at ? "td" : "th", { scope: at ? null : "row", class: each.number ? "number" : null })));
  }
  changeRow(row, cells) {
    cells.forEach((cell, at) => changeCell(row.children[at], cell, this.columns[at].number));
  }
  set(rows) {
    this.rows.set(rows);
    this.table.hidden = rows.length === 0;
    this.nothing.hidden = rows.length > 0;
  }
}

function changeCell(element, cell, isNumber) {
  const { text, tone, href, title, node } = cell !== null && typeof cell === "object" ? cell : { text: cell };
  if (node) {
    if (element.firstChild !== node) element.replaceChildren(node);
    return;
  }
  let place = element;
  if (href) {
    place = element.querySelector("a");
    if (!place) element.replaceChildren((place = h("a", { href })));
    if (place.getAttribute("href") !== href) place.setAttribute("href", href);
  } else if (element.firstElementChild) element.replaceChildren();
  setText(place, text ?? "");
  setAttributes(element, { class: [isNumber ? "number" : "", tone || ""].join(" ").trim() || null, title: title || null });
}

export const grouped = (number) => (number === undefined || number === null || number < 0 ? "-" : number.toLocaleString("en"));

export function age(ms) {
  if (ms === undefined || ms < 0) return "never";
  if (ms < 1_000) return `${Math.round(ms / 50) * 50} ms`;
  return ms < 120_000 ? `${Math.round(ms / 1_000)} s` : `${Math.round(ms / 60_000)} min`;
}

export const bytes = (count) => {
  if (count < 0) return "-";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; count >= 1_024 && at < units.length - 1; at++) count /= 1_024;
  return `${at && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[at]}`;
};
