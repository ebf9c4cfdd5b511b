// The records of a partition: from an offset, a time or an end; filtered, live, and exported. Contents are text.

import { h, setText, grouped, Table } from "./dom.js";
import { ask } from "./api.js";

const SHOWN_MAX = 500, READ_BYTES = 262_144, LIVE_EVERY_MS = 500, TEXT_MAX = 400;
const decoder = new TextDecoder("utf-8", { fatal: true });

export class MessagesScreen {
  constructor(stream, argument) {
    Object.assign(this, { stream, title: "Messages", scope: "limit=500", records: [], next: null, left: 0, timer: 0 });
    const topics = h("datalist", { id: "topics" });
    this.topics = topics;
    const [topic, partition] = argument ? [argument.replace(/-\d+$/, ""), argument.match(/-(\d+)$/)?.[1] ?? "0"] : ["", "0"];
    this.topic = h("input", { id: "m-topic", list: "topics", required: true, value: topic, spellcheck: "false" });
    this.partition = h("input", { id: "m-partition", type: "number", min: "0", value: partition });
    this.from = h("select", { id: "m-from" }, [["latest-50", "the last 50"], ["earliest", "the beginning"], ["offset", "offset"], ["time", "time"]].map(([value, text]) => h("option", { value }, text)));
    this.offset = h("input", { id: "m-offset", type: "number", min: "0", value: "0", "aria-label": "Offset", hidden: true });
    this.time = h("input", { id: "m-time", type: "datetime-local", step: "1", "aria-label": "Time", hidden: true });
    this.from.addEventListener("change", () => {
      this.offset.hidden = this.from.value !== "offset";
      this.time.hidden = this.from.value !== "time";
    });
    this.filter = h("input", { id: "m-filter", type: "search", spellcheck: "false" });
    this.where = h("select", { id: "m-where", "aria-label": "Where the text is looked for" }, ["anywhere", "key", "value", "headers"].map((each) => h("option", { value: each }, each)));
    this.filter.addEventListener("input", () => this.draw());
    this.where.addEventListener("change", () => this.draw());
    this.live = h("input", { id: "m-live", type: "checkbox" });
    this.live.addEventListener("change", () => this.follow());
    this.save = h("button", { type: "button" }, "Export");
    this.save.addEventListener("click", () => this.export());
    const form = h("form", { class: "form" }, h("label", { for: "m-topic" }, "Topic"), this.topic, topics, h("label", { for: "m-partition" }, "partition"), this.partition,
      h("label", { for: "m-from" }, "from"), this.from, this.offset, this.time, h("button", { type: "submit", class: "primary" }, "Read"), h("label", { class: "check" }, this.live, " live"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.read();
    });
    this.said = h("p", { class: "said", role: "status" });
    this.table = new Table("Records", [{ label: "Offset", number: true }, { label: "Time" }, { label: "Key" }, { label: "Value" }, { label: "Headers" }], { empty: "No records." });
    this.element = h("div", {}, h("h1", {}, "Messages"), form, h("div", { class: "form" }, h("label", { for: "m-filter" }, "Only with"), this.filter, this.where, this.save), this.said, h("section", { class: "card" }, this.table.element));
    this.table.set([]);
    if (topic) this.wanted = true;
  }

  close() {
    clearTimeout(this.timer);
    this.isClosed = true;
  }

  update() {
    const names = [...new Set(this.stream.partitions().map((each) => each.name.replace(/-\d+$/, "")))];
    if (this.names !== names.join()) {
      this.names = names.join();
      this.topics.replaceChildren(...names.map((value) => h("option", { value })));
      if (!this.topic.value && names.length) this.topic.value = names.find((each) => !each.startsWith("__")) ?? "";
    }
    if (this.wanted && this.stream.nodes().length) {
      this.wanted = false;
      this.read();
    }
  }

  path() {
    return `/topics/${encodeURIComponent(this.topic.value)}/partitions/${Number(this.partition.value)}`;
  }

  async read() {
    this.records = [];
    this.left = 0;
    this.next = null;
    try {
      const start = await this.start();
      await this.more(start);
      this.draw();
      this.follow();
    } catch (error) {
      this.draw();
      this.problem(error);
    }
  }

  async start() {
    const kind = this.from.value;
    if (kind === "earliest") return "earliest";
    if (kind === "offset") return String(Number(this.offset.value));
    if (kind === "time") return new Date(this.time.value || Date.now()).toISOString();
    const ends = await ask(this.stream, `${this.path()}/offsets`, { accept: "application/vnd.kafka.v2+json" });
    return String(Math.max(ends.end_offset - 50, ends.beginning_offset));
  }

  async more(offset) {
    const query = new URLSearchParams({ offset, timeout: "300", max_bytes: String(READ_BYTES) });
    const found = await ask(this.stream, `${this.path()}/records?${query}`, { accept: "application/vnd.kafka.binary.v2+json" });
    for (const each of found) this.records.push({ offset: each.offset, at: each.timestamp, key: each.key, value: each.value, headers: each.headers ?? [] });
    if (found.length) this.next = found[found.length - 1].offset + 1;
    else if (this.next === null && /^\d+$/.test(offset)) this.next = Number(offset);
    if (this.records.length > SHOWN_MAX) {
      this.left += this.records.length - SHOWN_MAX;
      this.records.splice(0, this.records.length - SHOWN_MAX);
    }
    return found.length;
  }

  // A live tail: reads on from the last record; what does not fit is counted.
  follow() {
    clearTimeout(this.timer);
    if (!this.live.checked || this.isClosed) return;
    this.timer = setTimeout(async () => {
      try {
        const count = await this.more(this.next === null ? "latest" : String(this.next));
        if (count) this.draw();
      } catch (error) {
        this.problem(error);
      }
      this.follow();
    }, LIVE_EVERY_MS);
  }

  problem(error) {
    this.said.className = "said bad";
    setText(this.said, error.message);
  }

  shown() {
    const wanted = this.filter.value;
    const rows = this.records.map((each) => ({ ...each, keyText: text(each.key), valueText: text(each.value), headerText: each.headers.map((one) => `${one.name}: ${text(one.value)}`).join(", ") }));
    if (!wanted) return rows;
    const fields = { key: ["keyText"], value: ["valueText"], headers: ["headerText"], anywhere: ["keyText", "valueText", "headerText"] }[this.where.value];
    return rows.filter((row) => fields.some((name) => row[name].includes(wanted)));
  }

  draw() {
    const rows = this.shown();
    this.said.className = "said";
    setText(this.said, `${grouped(rows.length)} of ${grouped(this.records.length)} records${this.left ? `; ${grouped(this.left)} older ones are left out` : ""}${this.next !== null ? `; the next has offset ${grouped(this.next)}` : ""}`);
    const place = `${this.topic.value}-${Number(this.partition.value)}`;
    this.table.set(rows.map((row) => [row.offset, [{ text: row.offset, href: `#/record/${encodeURIComponent(place)}/${row.offset}` }, new Date(row.at).toISOString().replace("T", " ").slice(0, 23), cut(row.keyText), cut(row.valueText), cut(row.headerText)]]));
  }

  // JSON lines: key, value and headers as text, or as base64 where they are none.
  export() {
    const line = (row) => JSON.stringify({ topic: this.topic.value, partition: Number(this.partition.value), offset: row.offset, timestamp: row.at, ...field("key", row.key), ...field("value", row.value), headers: row.headers.map((each) => ({ name: each.name, ...field("value", each.value) })) });
    const url = URL.createObjectURL(new Blob(this.shown().map((row) => `${line(row)}\n`), { type: "application/x-ndjson" }));
    h("a", { href: url, download: `${this.topic.value}-${this.partition.value}.jsonl` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }
}

const bytesOf = (base64) => Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));

function decoded(base64) {
  try {
    return decoder.decode(bytesOf(base64));
  } catch {
    return null;
  }
}

function text(base64) {
  if (base64 === null || base64 === undefined) return "null";
  return decoded(base64) ?? `0x${[...bytesOf(base64)].map((each) => each.toString(16).padStart(2, "0")).join("")}`;
}

function field(name, base64) {
  if (base64 === null || base64 === undefined) return { [name]: null };
  const found = decoded(base64);
  return found === null ? { [`${name}_base64`]: base64 } : { [name]: found };
}

const cut = (value) => (value.length > TEXT_MAX ? { text: `${value.slice(0, TEXT_MAX)}…`, title: `${value.length} characters` } : value);
