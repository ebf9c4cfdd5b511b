// The frame of the page: which screen is shown, whether the stream lives, and the controls that every screen has.

import { h, setText } from "./dom.js";
import { Stream } from "./stream.js";
import { ClusterScreen } from "./cluster.js";
import { PartitionsScreen } from "./partitions.js";
import { PartitionScreen } from "./partition.js";
import { TimelineScreen } from "./timeline.js";
import { GroupsScreen, NodeScreen, QueuesScreen, TransactionsScreen } from "./lists.js";
import { MessagesScreen } from "./messages.js";
import { ClientScreen, RecordScreen } from "./explain.js";
import { ScenariosScreen } from "./scenarios.js";
import { History } from "./history.js";

const SCREENS = { cluster: ClusterScreen, partitions: PartitionsScreen, partition: PartitionScreen, timeline: TimelineScreen, groups: GroupsScreen, queues: QueuesScreen, transactions: TransactionsScreen, messages: MessagesScreen, node: NodeScreen, record: RecordScreen, client: ClientScreen, scenarios: ScenariosScreen };
const FIND_ANOTHER_MS = 3_000;
const THEMES = ["auto", "light", "dark"];

const main = document.getElementById("main");
const notice = document.getElementById("notice");
const page = { screen: null, name: "", isDue: false };
const history_ = new History();
const stream = new Stream(() => due(), (standing) => stood(standing));

// --- screens -------------------------------------------------------------------------------------

function parsed() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  try {
    if (Object.hasOwn(SCREENS, name)) return [name, decodeURIComponent(rest.join("/"))];
  } catch {
    // no address of ours
  }
  return ["cluster", ""];
}

function show(isFirst) {
  const [name, argument] = parsed();
  if (page.screen && page.screen.close) page.screen.close();
  const screen = new SCREENS[name](stream, argument, (scope) => stream.watch(scope), history_);
  page.screen = screen;
  page.name = name;
  main.replaceChildren(screen.element);
  document.title = `${screen.title} - kraft`;
  const shown = { partition: "partitions", record: "partitions", node: "cluster", client: "cluster" }[name] ?? name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#/${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  stream.watch(screen.scope);
  screen.update();
  if (!isFirst) main.focus();
}

function due() {
  history_.sample(stream);
  if (page.isDue) return;
  page.isDue = true;
  requestAnimationFrame(() => {
    page.isDue = false;
    page.screen.update();
  });
}

// --- whether the stream lives --------------------------------------------------------------------

const pill = h("span", { class: "pill" });
let isLooking = false;

function stood(standing) {
  setText(pill, standing.text);
  pill.className = `pill ${standing.name}`;
  document.body.classList.toggle("stale", standing.name === "lost");
  if (standing.name !== "lost") {
    if (notice.firstChild) notice.replaceChildren();
    return;
  }
  if (standing.refusal) return notice.replaceChildren(h("p", {}, `${place()} refuses the data of this page: ${standing.refusal}`));
  if (standing.ms > FIND_ANOTHER_MS && !isLooking && !notice.dataset.found) findAnother();
  if (!notice.firstChild) notice.append(h("p", {}, `${place()} does not answer. The page shows what it knew last, and asks again each second.`));
}

const place = () => document.querySelector(".name span").textContent;

// Any answer, also one that this page may not read, shows that a node is alive.
async function findAnother() {
  isLooking = true;
  try {
    const own = location.host;
    const others = stream.nodes().filter((node) => node.rest !== own && node.id !== Number(document.body.dataset.node));
    const alive = await Promise.any(
      others.map(async (node) => {
        await fetch(`${location.protocol}//${node.rest}/healthz`, { mode: "no-cors", signal: AbortSignal.timeout(2_000) });
        return node;
      }),
    );
    if (stream.standing().name !== "lost") return;
    const href = `${location.protocol}//${alive.rest}/console${location.hash}`;
    notice.replaceChildren(h("p", {}, `${place()} does not answer. `, h("a", { href }, `Go on with node ${alive.id}`), "."));
  } catch {
    // none answers: asked again in a second
  } finally {
    setTimeout(() => (isLooking = false), 1_000);
  }
}

// --- controls ------------------------------------------------------------------------------------

function themed(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  localStorage.setItem("kraft.theme", theme);
}

function controls() {
  const pause = h("button", { type: "button", "aria-pressed": "false", title: "Key: p" }, "Pause");
  pause.addEventListener("click", () => {
    stream.pause(!stream.isPaused);
    pause.setAttribute("aria-pressed", String(stream.isPaused));
  });
  const known = localStorage.getItem("kraft.theme") || "auto";
  const theme = h("select", { "aria-label": "Colours" }, THEMES.map((each) => h("option", { value: each }, each)));
  theme.value = THEMES.includes(known) ? known : "auto";
  theme.addEventListener("change", () => themed(theme.value));
  themed(theme.value);
  document.getElementById("controls").append(pill, pause, theme);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (event.key === "p") pause.click();
    const link = document.querySelectorAll("nav a")[Number(event.key) - 1];
    if (link && event.key >= "1") link.click();
  });
}

controls();
window.addEventListener("hashchange", () => show(false));
show(true);
