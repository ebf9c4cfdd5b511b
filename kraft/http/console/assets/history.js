// What the page has seen, for a quarter of an hour: spans of states, and counts by the second. It outlives screens.

const KEPT_MS = 15 * 60_000;
const SPANS_MAX = 2_000; // for each lane; the oldest go first

export class History {
  constructor() {
    this.lanes = new Map(); // key -> [{from, to, value}], the newest last
    this.rates = []; // {at, acknowledged, failed, written}
    this.last = null;
  }

  // Called for each frame: at most ten times a second.
  sample(stream) {
    const at = stream.at;
    if (!at || (this.last && at <= this.last.at)) return;
    const cluster = stream.get("cluster");
    for (const node of stream.nodes()) this.note(`node/${node.id}`, at, standing(node, cluster));
    for (const each of stream.partitions()) this.note(`partition/${each.name}`, at, `${each.leader}|${each.isr.length}/${each.replicas.length}|${each.standing}`);
    this.note("faults", at, (stream.get("control")?.broken ?? []).map((each) => each.text).join("; "));
    this.rate(stream, at);
  }

  note(key, at, value) {
    let spans = this.lanes.get(key);
    if (!spans) this.lanes.set(key, (spans = []));
    const newest = spans[spans.length - 1];
    // A gap of ten seconds is one that nobody has seen.
    if (newest && newest.value === value && at - newest.to < 10_000) newest.to = at;
    else {
      if (newest && at - newest.to < 10_000) newest.to = at;
      spans.push({ from: at, to: at, value });
    }
    while (spans.length > SPANS_MAX || spans[0].to < at - KEPT_MS) spans.shift();
  }

  rate(stream, at) {
    const counts = stream.get("workload")?.counts;
    let written = 0, known = 0;
    for (const [key, row] of stream.state) {
      if (key.startsWith("r/") && row[0] === "leader" && row[4] >= 0) {
        written += row[4];
        known += 1;
      }
    }
    const now = { at, acknowledged: counts?.acknowledged ?? null, failed: counts ? counts.failed + counts.unknown : null, written, known };
    if (this.last && at - this.last.at < 1_000) return;
    for (const [key, spans] of this.lanes) if (spans[spans.length - 1].to < at - KEPT_MS) this.lanes.delete(key);
    if (this.last) {
      const seconds = (at - this.last.at) / 1_000, per = (name) => (now[name] === null || this.last[name] === null ? null : Math.max((now[name] - this.last[name]) / seconds, 0));
      this.rates.push({ at, acknowledged: per("acknowledged"), failed: per("failed"), written: now.known === this.last.known ? per("written") : null });
      while (this.rates[0].at < at - KEPT_MS) this.rates.shift();
    }
    this.last = now;
  }

  // The value of a lane at a time; undefined where nothing was seen.
  at(key, time) {
    return this.lanes.get(key)?.find((span) => span.from <= time && time <= span.to)?.value;
  }
}

function standing(node, cluster) {
  const state = node.process && node.process !== "running" ? node.process : !node.answers ? "no answer" : node.awaits ? "waits" : node.state;
  return `${state}${node.id === cluster?.controller ? `|leader of term ${cluster.epoch}` : ""}`;
}
