// Groups, queues and transactions: lists that are asked for every two seconds while they are shown.

import { h, setText, grouped, Table } from "./dom.js";
import { ask } from "./api.js";
import { ExplainPanel } from "./explain.js";

const EVERY_MS = 2_000;

class ListScreen {
  constructor(stream, argument, title, columns, empty) {
    Object.assign(this, { stream, title, argument, scope: "limit=1", isAsking: false });
    this.problem = h("p", { class: "said", role: "status" });
    this.age = h("p", { class: "quiet" });
    this.table = new Table(title, columns, { empty });
    this.more = h("div");
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
      setText(this.age, `As of ${this.askedAt.toLocaleTimeString("en-GB")}.`);
    } catch (error) {
      this.problem.className = "said bad";
      setText(this.problem, error.message);
    } finally {
      this.isAsking = false;
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
    const known = await Promise.all(groups.map(async (group) => {
      const path = `consumer-groups/${part(group.consumer_group_id)}`;
      const [members, lags] = await Promise.allSettled([this.list(`${path}/consumers`), this.list(`${path}/lags`)]);
      return { group, members: members.value ?? [], lags: lags.value ?? [] };
    }));
    this.table.set(known.map(({ group, members, lags }) => [group.consumer_group_id, [
      { text: group.consumer_group_id, href: `#/groups/${part(group.consumer_group_id)}` }, { text: group.state.replaceAll("_", " ").toLowerCase(), tone: group.state === "STABLE" ? "well" : group.state === "EMPTY" ? "" : "warn" },
      (group.type || "").toLowerCase(), group.generation ?? "", members.length, grouped(sum(lags, "lag")), `node ${group.coordinator.related.split("/").pop()}`,
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
    this.members.set(chosen.members.map((each) => [each.consumer_id, [each.consumer_id, each.instance_id ?? "", each.client_id, (readers.get(each.consumer_id) ?? []).join(", ")]]));
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
    const lags = await Promise.all(groups.map((group) => this.list(`share-groups/${part(group.share_group_id)}/lags`).catch(() => [])));
    this.table.set(groups.map((group, at) => [group.share_group_id, [
      group.share_group_id, { text: group.state.toLowerCase(), tone: group.state === "STABLE" ? "well" : "" }, group.consumer_count, group.partition_count, grouped(sum(lags[at], "lag")), `node ${group.coordinator.related.split("/").pop()}`,
    ]]));
    const rows = lags.flatMap((found, at) => found.map((each) => ({ ...each, group: groups[at].share_group_id })));
    this.lags ??= new Table("Lag of each partition", [{ label: "Queue" }, { label: "Partition" }, { label: "Start offset", number: true }, { label: "Lag", number: true }], { empty: "No queue has begun." });
    if (!this.more.firstChild) this.more.append(card("Lag of each partition", this.lags));
    this.lags.set(rows.map((each) => [`${each.group}/${each.topic_name}-${each.partition_id}`, [each.group, `${each.topic_name}-${each.partition_id}`, grouped(each.start_offset), grouped(each.lag)]]));
  }
}

export class TransactionsScreen extends ListScreen {
  constructor(stream, argument) {
    super(stream, argument, "Transactions", [{ label: "Transactional id" }, { label: "State" }, { label: "Producer id", number: true }, { label: "Epoch", number: true }, { label: "Partitions" }, { label: "Open since" }], "No producer has a transactional id.");
  }
  async show() {
    const found = await this.list("transactions");
    const known = await Promise.all(found.slice(0, 100).map((each) => ask(this.stream, this.path(`transactions/${part(each.transactional_id)}`)).catch(() => each)));
    this.table.set(known.map((each) => [each.transactional_id, [
      each.transactional_id, { text: (each.state ?? "").replaceAll("_", " ").toLowerCase(), tone: /ONGOING|PREPARE/.test(each.state ?? "") ? "warn" : "" }, each.producer_id ?? "", each.producer_epoch ?? "",
      (each.partitions ?? each.topics ?? []).map((one) => (one.topic_name ? `${one.topic_name}-${one.partition_id ?? (one.partitions ?? []).join("+")}` : String(one))).join(", "),
      each.started_ms > 0 ? new Date(each.started_ms).toLocaleTimeString("en-GB") : "",
    ]]));
  }
}
