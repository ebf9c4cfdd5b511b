// Groups, queues and transactions: lists that are asked for every two seconds while they are shown.

import { h, setText, grouped, Table } from "./dom.js";
import { ask } from "./api.js";
import { ExplainPanel } from "./explain.js";
import { clock, details } from "./events.js";

const EVERY_MS = 2_000, EVENTS_MAX = 100;
const DETAILED_MAX = 50; // groups whose members and lag are asked for: each costs requests

class ListScreen {
  constructor(stream, argument, title, columns, empty) {
    Object.assign(this, { stream, title, argument, scope: "limit=1", isAsking: false });
    this.problem = h("p", { class: "said", role: "status" });
    this.age = h("p", { class: "quiet" });
    this.table = new Table(title, columns, { empty });
    this.more = h("div");
    this.why = h("div");
    this.element = h("div", {}, h("h1", {}, title), this.problem, h("section", { class: "card" }, this.table.element), this.more, this.age);
    this.timer = setInterval(() => this.load(), EVERY_MS);
    this.load();
  }
  close() {
    clearInterval(this.timer);
  }
  update() {
    if (!this.askedAt && this.stream.nodes().length) this.load();
  }
  // Why the one that was chosen, or the only one, is as it is.
  explainOne(subject, ids) {
    const id = ids.includes(this.argument) ? this.argument : ids.length === 1 ? ids[0] : null;
    if (this.explain?.id !== id) {
      this.explain = id === null ? null : Object.assign(new ExplainPanel(this.stream, `/kraft/explain/${subject}/${part(id)}`), { id });
      this.why.replaceChildren(...(this.explain ? [h("h2", { class: "name" }, id), this.explain.element] : []));
    }
    this.explain?.load();
  }
  path(tail) {
    return `/v3/clusters/${encodeURIComponent(document.body.dataset.cluster)}/${tail}`;
  }
  async list(tail) {
    return (await ask(this.stream, this.path(tail))).data;
  }
  async load() {
    if (this.isAsking || document.hidden || !this.stream.nodes().length) return;
    this.isAsking = true;
    try {
      await this.show();
      this.askedAt = new Date();
      setText(this.problem, "");
      setText(this.age, `As of ${clock(this.askedAt)}.`);
    } catch (error) {
      this.problem.className = "said bad";
      setText(this.problem, error.message);
    } finally {
      this.isAsking = false;
    }
  }
}

// Why a node is as it is, and what it remembers.
export class NodeScreen {
  constructor(stream, argument) {
    Object.assign(this, { stream, title: `Node ${argument}`, number: argument, scope: "limit=1" });
    this.facts = h("p", { class: "facts" });
    this.explain = new ExplainPanel(stream, `/kraft/explain/node/${part(argument)}`);
    this.events = new Table("Events", [{ label: "Time" }, { label: "Event" }, { label: "Of" }, { label: "Details" }], { empty: "It has reported no event, or does not answer." });
    this.element = h("div", {}, h("p", { class: "path" }, h("a", { href: "#/cluster" }, "Cluster")), h("h1", {}, this.title), this.facts, this.explain.element, card("Events", this.events));
    this.timer = setInterval(() => this.load(), EVERY_MS);
    this.events.set([]);
  }
  close() {
    clearInterval(this.timer);
  }
  update() {
    const node = this.stream.get(`node/${this.number}`);
    if (!node) return setText(this.facts, this.stream.nodes().length ? "The cluster has no such node." : "");
    setText(this.facts, `${node.process && node.process !== "running" ? `× ${node.process}` : node.answers ? node.state : `× ${node.why || "does not answer"}`} · ${node.roles.join(", ")} · REST ${node.rest}${node.kafka ? ` · Kafka ${node.kafka}` : ""}${node.awaits ? ` · ${node.awaits}` : ""}`);
    if (!this.isLoaded) this.load();
  }
  async load() {
    if (document.hidden) return;
    this.isLoaded = true;
    this.explain.load();
    const own = Number(document.body.dataset.node), number = Number(this.number);
    if (!this.stream.get(`node/${number}`)?.answers || (own >= 0 && own !== number)) return;
    try {
      const { events } = await ask(this.stream, `/kraft/events?limit=${EVENTS_MAX}`, { node: number });
      events.sort((a, b) => b.at_ms - a.at_ms || b.sequence - a.sequence);
      this.events.set(events.map((each) => [`${each.at_ms}/${each.sequence}/${each.event}`, [clock(each.at_ms), each.event.replaceAll("_", " "), each.topic ? `${each.topic}-${each.partition ?? ""}` : "", details(each)]]));
    } catch {
      // it has just gone: the facts say so
    }
  }
}

const sum = (rows, name) => rows.reduce((total, row) => total + Math.max(row[name] ?? 0, 0), 0);
const part = (text) => encodeURIComponent(text);
const card = (title, table) => h("section", { class: "card" }, h("h2", {}, title), table.element);

export class GroupsScreen extends ListScreen {
  constructor(stream, argument) {
    super(stream, argument, "Groups", [
      { label: "Group" }, { label: "State" }, { label: "Type" }, { label: "Generation or epoch", number: true }, { label: "Members", number: true }, { label: "Lag", number: true }, { label: "Coordinator" },
    ], "There is no consumer group.");
  }
  async show() {
    const groups = await this.list("consumer-groups");
    const known = await Promise.all(groups.map(async (group, at) => {
      if (at >= DETAILED_MAX && group.consumer_group_id !== this.argument) return { group, members: null, lags: null };
      const path = `consumer-groups/${part(group.consumer_group_id)}`;
      const [members, lags] = await Promise.allSettled([this.list(`${path}/consumers`), this.list(`${path}/lags`)]);
      return { group, members: members.value ?? [], lags: lags.value ?? [] };
    }));
    this.table.set(known.map(({ group, members, lags }) => [group.consumer_group_id, [
      { text: group.consumer_group_id, href: `#/groups/${part(group.consumer_group_id)}` }, { text: group.state.replaceAll("_", " ").toLowerCase(), tone: group.state === "STABLE" ? "well" : group.state === "EMPTY" ? "" : "warn" },
      (group.type || "").toLowerCase(), group.generation ?? "", members?.length ?? "", lags ? grouped(sum(lags, "lag")) : "", `node ${group.coordinator.related.split("/").pop()}`,
    ]]));
    this.detail(known.find((each) => each.group.consumer_group_id === this.argument) ?? (known.length === 1 ? known[0] : null));
  }
  detail(chosen) {
    if (!chosen) {
      this.explain = null;
      return this.more.replaceChildren();
    }
    if (!this.members) {
      this.members = new Table("Members", [{ label: "Member" }, { label: "Instance" }, { label: "Client" }, { label: "Partitions" }], { empty: "It has no members." });
      this.lags = new Table("Lag", [{ label: "Partition" }, { label: "Committed", number: true }, { label: "Log end", number: true }, { label: "Lag", number: true }, { label: "Read by" }], { empty: "It has committed nothing." });
      this.name = h("h2", { class: "name" });
    }
    const id = chosen.group.consumer_group_id;
    setText(this.name, id);
    if (this.explain?.id !== id) {
      this.explain = Object.assign(new ExplainPanel(this.stream, `/kraft/explain/group/${part(id)}`), { id });
      this.more.replaceChildren(this.name, this.explain.element, card("Members", this.members), card("Lag", this.lags));
    }
    this.explain.load();
    const readers = new Map();
    for (const lag of chosen.lags) readers.set(lag.consumer_id, [...(readers.get(lag.consumer_id) ?? []), `${lag.topic_name}-${lag.partition_id}`]);
    this.members.set(chosen.members.map((each) => [each.consumer_id, [each.consumer_id, each.instance_id ?? "", { text: each.client_id, href: `#/client/${part(each.client_id)}` }, (readers.get(each.consumer_id) ?? []).join(", ")]]));
    this.lags.set(chosen.lags.map((each) => [`${each.topic_name}-${each.partition_id}`, [
      { text: `${each.topic_name}-${each.partition_id}`, href: `#/partition/${part(`${each.topic_name}-${each.partition_id}`)}` }, grouped(each.current_offset), grouped(each.log_end_offset), { text: grouped(each.lag), tone: each.lag ? "warn" : "" }, each.consumer_id || "nobody",
    ]]));
  }
}

export class QueuesScreen extends ListScreen {
  constructor(stream, argument) {
    super(stream, argument, "Queues", [{ label: "Queue (share group)" }, { label: "State" }, { label: "Members", number: true }, { label: "Partitions", number: true }, { label: "Lag", number: true }, { label: "Coordinator" }], "There is no share group.");
  }
  async show() {
    const groups = await this.list("share-groups");
    const lags = await Promise.all(groups.map((group, at) => (at < DETAILED_MAX || group.share_group_id === this.argument ? this.list(`share-groups/${part(group.share_group_id)}/lags`).catch(() => []) : [])));
    this.table.set(groups.map((group, at) => [group.share_group_id, [
      { text: group.share_group_id, href: `#/queues/${part(group.share_group_id)}` }, { text: group.state.toLowerCase(), tone: group.state === "STABLE" ? "well" : "" }, group.consumer_count, group.partition_count, grouped(sum(lags[at], "lag")), `node ${group.coordinator.related.split("/").pop()}`,
    ]]));
    const rows = lags.flatMap((found, at) => found.map((each) => ({ ...each, group: groups[at].share_group_id })));
    this.lags ??= new Table("Lag of each partition", [{ label: "Queue" }, { label: "Partition" }, { label: "Start offset", number: true }, { label: "Lag", number: true }], { empty: "No queue has begun." });
    if (!this.more.firstChild) this.more.append(this.why, card("Lag of each partition", this.lags));
    this.explainOne("queue", groups.map((group) => group.share_group_id));
    this.lags.set(rows.map((each) => [`${each.group}/${each.topic_name}-${each.partition_id}`, [each.group, `${each.topic_name}-${each.partition_id}`, grouped(each.start_offset), grouped(each.lag)]]));
  }
}

export class TransactionsScreen extends ListScreen {
  constructor(stream, argument) {
    super(stream, argument, "Transactions", [{ label: "Transactional id" }, { label: "State" }, { label: "Producer id", number: true }, { label: "Epoch", number: true }, { label: "Partitions" }, { label: "Open since" }], "No producer has a transactional id.");
  }
  async show() {
    const found = await this.list("transactions");
    const known = await Promise.all(found.slice(0, DETAILED_MAX).map((each) => ask(this.stream, this.path(`transactions/${part(each.transactional_id)}`)).catch(() => each)));
    this.table.set(known.map((each) => [each.transactional_id, [
      { text: each.transactional_id, href: `#/transactions/${part(each.transactional_id)}` }, { text: (each.state ?? "").replaceAll("_", " ").toLowerCase(), tone: /ONGOING|PREPARE/.test(each.state ?? "") ? "warn" : "" }, each.producer_id ?? "", each.producer_epoch ?? "",
      (each.partitions ?? each.topics ?? []).map((one) => (one.topic_name ? `${one.topic_name}-${one.partition_id ?? (one.partitions ?? []).join("+")}` : String(one))).join(", "),
      each.started_ms > 0 ? clock(each.started_ms) : "",
    ]]));
    if (!this.more.firstChild) this.more.append(this.why);
    this.explainOne("transaction", found.map((each) => each.transactional_id));
  }
}
