// A workload that is started from the page, the fate of its records while it runs, and the verdict.

import { h, setAttributes, setText, grouped, Keyed } from "./dom.js";
import { ask, send } from "./api.js";
import { perform } from "./breaking.js";

const PARTITIONS = 3;

export class WorkloadCard {
  constructor(stream) {
    this.stream = stream;
    this.topic = h("input", { id: "w-topic", value: "orders", required: true, pattern: "[a-zA-Z0-9._\\-]{1,249}", spellcheck: "false" });
    this.acks = h("select", { id: "w-acks" }, ["all", "1", "0"].map((each) => h("option", { value: each }, each)));
    this.rate = h("input", { id: "w-rate", type: "number", value: "100", min: "1", max: "2000" });
    this.idempotent = h("input", { id: "w-idempotent", type: "checkbox" });
    this.client = h("select", { id: "w-client" }, [["rest", "REST"], ["kafka", "Kafka"]].map(([value, text]) => h("option", { value }, text)));
    this.transactional = h("input", { id: "w-transactional", type: "checkbox" });
    this.transactional.addEventListener("change", () => (this.acks.disabled = this.idempotent.disabled = this.transactional.checked));
    this.start = h("button", { type: "submit", class: "primary" }, "Start");
    this.stop = h("button", { type: "button" }, "Stop");
    this.judge = h("button", { type: "button" }, "Heal and judge");
    this.form = h("form", { class: "form" },
      h("label", { for: "w-topic" }, "Topic"), this.topic, h("label", { for: "w-acks" }, "acks"), this.acks,
      h("label", { for: "w-rate" }, "records a second"), this.rate, h("label", { for: "w-client" }, "over"), this.client,
      h("label", { class: "check" }, this.idempotent, " idempotent"), h("label", { class: "check" }, this.transactional, " transactional"), this.start, this.stop, this.judge);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.begin();
    });
    this.stop.addEventListener("click", () => perform({ do: "end_workload" }));
    this.judge.addEventListener("click", () => this.finish());
    const counts = h("ul", { class: "tiles counts" });
    this.counts = new Keyed(counts, () => h("li", {}, h("b"), h("span")), (element, { value, text, tone }) => {
      setText(element.firstChild, grouped(value));
      setText(element.lastChild, text);
      setAttributes(element, { class: tone || null });
    });
    this.verdict = h("p", { class: "verdict", role: "status" });
    this.report = h("a", { href: "/console/report/0", target: "_blank", rel: "noopener", hidden: true }, "The whole report");
    const findings = h("ul");
    this.findings = new Keyed(findings, (text) => h("li", {}, text, ...linkOf(text)), () => {});
    this.error = h("p", { class: "quiet" });
    this.element = h("section", { class: "card", hidden: true }, h("h2", {}, "Workload"), this.form, counts, this.error, this.verdict, findings, this.report);
  }

  async begin() {
    const topic = this.topic.value;
    try {
      await ask(this.stream, `/topics/${encodeURIComponent(topic)}`);
    } catch {
      try {
        const brokers = this.stream.nodes().filter((node) => node.roles.includes("broker")).length;
        await send(this.stream, `/v3/clusters/${encodeURIComponent(document.body.dataset.cluster)}/topics`,
          { topic_name: topic, partitions_count: PARTITIONS, replication_factor: Math.min(3, brokers) });
      } catch (error) {
        setText(this.error, error.message);
        return;
      }
    }
    await perform({ do: "begin_workload", topic, acks: this.acks.value, rate: Number(this.rate.value), idempotent: this.idempotent.checked, transactional: this.transactional.checked, client: this.client.value });
  }

  async finish() {
    if (this.stream.get("workload")?.runs) await perform({ do: "end_workload" });
    await perform({ do: "heal" });
    await perform({ do: "judge" });
  }

  update(control) {
    this.element.hidden = !control?.can.includes("begin_workload");
    if (this.element.hidden) return;
    const workload = this.stream.get("workload"), isBusy = Boolean(control.busy);
    this.start.disabled = isBusy || Boolean(workload?.runs);
    this.stop.disabled = isBusy || !workload?.runs;
    this.judge.disabled = isBusy || !workload;
    this.counts.set(workload ? tiles(workload) : []);
    setText(this.error, workload?.error ? `Last error: ${workload.error}` : "");
    const verdict = workload?.verdict;
    setText(this.verdict, verdict ? sentence(verdict) : "");
    setAttributes(this.verdict, { class: `verdict ${verdict ? (verdict.lost || !verdict.is_clean ? "bad" : "well") : ""}` });
    this.report.hidden = !verdict;
    this.findings.set((verdict?.findings || []).map((text) => [text, text]));
  }
}

function tiles({ counts, transactions, verdict }) {
  const found = [
    ["sent", { value: counts.sent, text: "sent" }], ["acknowledged", { value: counts.acknowledged, text: "acknowledged", tone: "well" }],
    ["failed", { value: counts.failed, text: "refused", tone: counts.failed ? "warn" : "" }], ["unknown", { value: counts.unknown, text: "outcome unknown", tone: counts.unknown ? "warn" : "" }],
  ];
  if (transactions) found.push(["committed", { value: transactions.committed, text: "transactions committed", tone: "well" }], ["aborted", { value: transactions.aborted, text: "transactions aborted", tone: transactions.aborted ? "warn" : "" }]);
  if (!verdict) return found;
  const fate = (name, text, tone) => [name, { value: verdict[name], text, tone: verdict[name] ? tone : "" }];
  return [...found, fate("kept", "acknowledged, and there", "well"), fate("lost", "lost", "bad"), fate("duplicated", "duplicated", "warn"), fate("reordered", "reordered", "warn"), fate("unread", "could not be read", "warn")];
}

// The cause stands in the text; what nodes still show of the record is one click away.
function linkOf(text) {
  const [, place, offset] = text.match(/ of (\S+-\d+) at offset (\d+):/) ?? [];
  return place ? [" ", h("a", { href: `#/record/${encodeURIComponent(place)}/${offset}` }, `Explain offset ${offset}`)] : [];
}

const sentence = (verdict) =>
  verdict.lost ? `× ${grouped(verdict.lost)} acknowledged records are lost.` : verdict.is_clean ? `= All ${grouped(verdict.kept)} acknowledged records are there.` : "! Nothing is lost, and something is odd: see below.";
