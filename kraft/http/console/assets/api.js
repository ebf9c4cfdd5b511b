// Requests of the page: to its own node, or through a launcher to any node that answers.

const isLauncher = document.body.dataset.node === "-1";

export class Refused extends Error {}

async function answered(response) {
  const text = await response.text();
  let document_ = null;
  try {
    document_ = text ? JSON.parse(text) : null;
  } catch {
    // no JSON: the text is shown as it is
  }
  if (response.ok) return document_;
  throw new Refused(document_?.message || text.slice(0, 300) || `status ${response.status}`);
}

// The path of a request to a node: its own, or `node` behind a launcher.
function pathOf(stream, path, node) {
  if (!isLauncher) return path;
  const found = node ?? stream.nodes().find((each) => each.answers)?.id ?? stream.nodes()[0]?.id ?? 1;
  return `/node/${found}${path}`;
}

export const ask = async (stream, path, { accept = "application/json", node } = {}) =>
  answered(await fetch(pathOf(stream, path, node), { headers: { Accept: accept, Prefer: "kraft-fields" } }));

export const send = async (stream, path, document_, { node } = {}) =>
  answered(await fetch(pathOf(stream, path, node), changing(document_)));

// Routes of a launcher itself.
export const list = async (path) => answered(await fetch(path, { headers: { Accept: "application/json" } }));

export const act = async (asked) => (await answered(await fetch("/console/act", changing(asked)))).done;

const changing = (document_) => ({
  method: "POST",
  headers: { "Content-Type": "application/json", "X-Kraft-Console": "1" },
  body: JSON.stringify(document_),
});
