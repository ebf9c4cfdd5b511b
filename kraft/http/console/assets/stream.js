// The state of the cluster, kept up to date by one stream of server-sent events.

const AGAIN_MS = 1_000;
const SILENT_MS = 12_000; // a stream sends a sign of life every 5 s

export class Stream {
  constructor(changed, stood) {
    Object.assign(this, { changed, stood, state: new Map(), at: 0, frames: 0, scope: null, source: null, timer: 0, isPaused: false });
    this.heardAt = performance.now();
    this.lostAt = null;
    this.refusal = "";
    document.addEventListener("visibilitychange", () => this.scope !== null && this.open());
    setInterval(() => this.look(), 1_000);
  }
  // `scope`: the query of /kraft/live; another one brings the whole state.
  watch(scope) {
    if (scope === this.scope && this.source) return;
    this.scope = scope;
    this.open();
  }
  open() {
    clearTimeout(this.timer);
    if (this.source) this.source.close();
    this.source = null;
    if (this.isPaused) return;
    const query = new URLSearchParams(this.scope);
    if (document.hidden) query.set("rate", "1");
    this.source = new EventSource(`/kraft/live?${query}`);
    this.heardAt = performance.now();
    this.source.onmessage = (event) => this.take(JSON.parse(event.data));
    this.source.onerror = () => this.lose();
  }
  // An EventSource does not say why it was refused: a plain request does.
  async askWhy() {
    try {
      const answer = await fetch("/kraft/changes?limit=1", { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(2_000) });
      const document_ = answer.status === 401 || answer.status === 403 ? await answer.json().catch(() => null) : null;
      this.refusal = answer.ok || answer.status >= 500 ? "" : document_?.message || `status ${answer.status}`;
    } catch {
      this.refusal = ""; // nobody answers
    }
    if (this.lostAt !== null) this.stood(this.standing());
  }
  pause(isPaused) {
    this.isPaused = isPaused;
    this.open();
    this.stood(this.standing());
  }
  take(frame) {
    this.heardAt = performance.now();
    this.lostAt = null;
    this.frames += 1;
    this.at = frame.at_ms;
    const touched = new Set(frame.gone);
    if (frame.full) for (const key of this.state.keys()) if (!(key in frame.set)) touched.add(key);
    for (const key of touched) this.state.delete(key);
    for (const [key, row] of Object.entries(frame.set)) {
      this.state.set(key, row);
      touched.add(key);
    }
    this.stood(this.standing());
    this.changed(touched);
  }
  lose() {
    if (this.source) this.source.close();
    this.source = null;
    this.lostAt ??= performance.now();
    this.askWhy();
    clearTimeout(this.timer);
    if (!this.isPaused) this.timer = setTimeout(() => this.open(), AGAIN_MS);
    this.stood(this.standing());
  }
  look() {
    if (this.source && performance.now() - this.heardAt > SILENT_MS) this.lose();
    this.stood(this.standing());
  }
  standing() {
    if (this.isPaused) return { name: "paused", text: "paused" };
    if (this.lostAt === null) return { name: "live", text: "live" };
    return { name: "lost", text: this.refusal ? "refused" : "lost", refusal: this.refusal, ms: performance.now() - this.lostAt };
  }
  // --- questions -------------------------------------------------------------------------------
  get(key) {
    return this.state.get(key);
  }
  nodes() {
    return [...this.state].filter(([key]) => key.startsWith("node/")).map(([key, node]) => ({ id: Number(key.slice(5)), ...node }));
  }
  // The worst first, as the node sends them.
  partitions() {
    const found = [];
    for (const [key, row] of this.state) {
      if (key.startsWith("p/")) {
        const [leader, epoch, replicas, isr, standing, minIsr] = row;
        found.push({ name: key.slice(2), leader, epoch, replicas, isr, standing, minIsr });
      }
    }
    const collator = new Intl.Collator("en", { numeric: true });
    return found.sort((a, b) => a.standing - b.standing || a.name.startsWith("__") - b.name.startsWith("__") || collator.compare(a.name, b.name));
  }
  replica(partition, node) {
    const row = this.state.get(`r/${partition}/${node}`);
    if (!row) return null;
    const [role, epoch, start, stable, high, end, size] = row;
    return { role, epoch, start, stable, high, end, size };
  }
}

export const STANDINGS = [
  { text: "offline", mark: "×", tone: "bad" },
  { text: "under min ISR", mark: "!", tone: "bad" },
  { text: "under-replicated", mark: "~", tone: "warn" },
  { text: "reassigning", mark: ">", tone: "move" },
  { text: "in sync", mark: "=", tone: "well" },
];
