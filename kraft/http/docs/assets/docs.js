// Draws this node's OpenAPI document: each operation with its parameters, bodies and answers, and a form to send it.
"use strict";

const SHOWN_CHARACTERS_MAX = 200_000; // of an answer
const OUTLINE_DEPTH_MAX = 8; // of a schema
const NO_BODY = new Set(["GET", "HEAD"]);

let definitions = {};

function element(kind, attributes = {}, ...children) {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

// `name` becomes code, as in Markdown.
function prose(text) {
  return (text ?? "").split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));
}

// --- schemas --------------------------------------------------------------------------------------------------------

function resolved(schema) {
  let found = schema ?? {};
  for (let steps = 0; found.$ref && steps < OUTLINE_DEPTH_MAX; steps++) {
    const { $ref, ...rest } = found;
    found = { ...definitions[$ref.split("/").pop()], ...rest };
  }
  return found;
}

function choices(schema) {
  return schema.anyOf ?? schema.oneOf ?? (schema.allOf?.length === 1 ? schema.allOf : undefined);
}

function limits(schema) {
  const said = [];
  const range = [schema.minimum ?? schema.minLength ?? schema.minItems, schema.maximum ?? schema.maxLength ?? schema.maxItems];
  if (range[0] !== undefined || range[1] !== undefined) said.push(`${range[0] ?? ""}..${range[1] ?? ""}`);
  if (schema.default !== undefined && schema.default !== null) said.push(`default ${JSON.stringify(schema.default)}`);
  if (schema.format) said.push(schema.format);
  if (schema.pattern) said.push(`matches ${schema.pattern}`);
  return said.join(", ");
}

// A schema as one would write the type: objects over several lines, each field with its limits and its meaning.
function outline(given, indent = "", depth = 0, above = []) {
  const name = given?.$ref?.split("/").pop();
  if (name && above.includes(name)) return name;
  const schema = resolved(given);
  const inside = name ? [...above, name] : above;
  const among = choices(schema);
  if (among) return [...new Set(among.map((each) => outline(each, indent, depth, inside)))].join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  if (depth > OUTLINE_DEPTH_MAX) return "...";
  const type = Array.isArray(schema.type) ? schema.type.join(" | ") : schema.type;
  if (type === "array") return `[${outline(schema.items ?? {}, indent, depth + 1, inside)}]`;
  if (schema.properties) {
    const further = `${indent}  `;
    const needed = new Set(schema.required ?? []);
    const lines = Object.entries(schema.properties).map(([field, value]) => {
      const said = [limits(resolved(value)), (value.description ?? resolved(value).description ?? "").split("\n")[0]];
      const note = said.filter(Boolean).join("; ");
      const optional = needed.has(field) ? "" : "?";
      return `${further}${field}${optional}: ${outline(value, further, depth + 1, inside)}${note ? `  // ${note}` : ""}`;
    });
    return `{\n${lines.join("\n")}\n${indent}}`;
  }
  const values = schema.additionalProperties;
  if (values && values !== true) return `{[name]: ${outline(values, indent, depth + 1, inside)}}`;
  return type ?? "any";
}

// A value that the schema describes, to begin with: what must be there, and what has an example.
function example(given, depth = 0) {
  const schema = resolved(given);
  if (schema.example !== undefined) return schema.example;
  if (schema.examples?.length) return schema.examples[0];
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  const among = choices(schema);
  if (among) return example(among.find((each) => resolved(each).type !== "null") ?? among[0], depth);
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  if (type === "array") return depth < OUTLINE_DEPTH_MAX ? [example(schema.items ?? {}, depth + 1)] : [];
  if (schema.properties) {
    const needed = new Set(schema.required ?? []);
    const fields = Object.entries(schema.properties);
    const shown = fields.some(([name]) => needed.has(name)) ? fields.filter(([name]) => needed.has(name)) : fields.slice(0, 3);
    return Object.fromEntries(shown.map(([name, value]) => [name, example(value, depth + 1)]));
  }
  return { integer: schema.minimum ?? 0, number: 0, boolean: false, string: "", null: null }[type] ?? {};
}

// --- sending --------------------------------------------------------------------------------------------------------

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function curl(method, url, headers, body) {
  const parts = [`curl -i -X ${method}`];
  for (const [name, value] of Object.entries(headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body !== undefined) parts.push(`--data-binary ${quoted(body)}`);
  return [...parts, quoted(new URL(url, location.href).href)].join(" \\\n  ");
}

function shown(text, media) {
  if (!/json/.test(media ?? "")) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // several values, as a stream has them, or one that was cut
  }
}

class Form {
  constructor(method, path, operation) {
    this.method = method;
    this.path = path;
    this.fields = (operation.parameters ?? []).map((parameter) => ({ parameter, input: this.input(parameter) }));
    const content = operation.requestBody?.content ?? {};
    const answers = Object.values(operation.responses ?? {}).flatMap((answer) => Object.keys(answer.content ?? {}));
    this.accept = this.select("Accept", [...new Set(answers)]);
    this.media = this.select("Content-Type", Object.keys(content));
    this.body = Object.keys(content).length ? element("textarea", { rows: 8, spellcheck: "false", "aria-label": "Body" }) : null;
    const fill = () => {
      const schema = content[this.media.value]?.schema;
      this.body.value = schema ? JSON.stringify(example(schema), null, 2) : "";
    };
    if (this.body) {
      this.media.addEventListener("change", fill);
      fill();
    }
    this.output = element("div", { class: "output", "aria-live": "polite" });
    this.send = element("button", { type: "submit" }, "Send");
    this.stop = element("button", { type: "button", hidden: true, onclick: () => this.ending?.abort() }, "Stop");
  }

  input(parameter) {
    const schema = resolved(parameter.schema);
    const among = schema.enum ?? (schema.type === "boolean" ? [true, false] : undefined);
    const label = { "aria-label": parameter.name, required: parameter.required && !among };
    if (among) {
      const options = parameter.required ? among : ["", ...among];
      return element("select", label, ...options.map((each) => element("option", { value: String(each) }, String(each))));
    }
    return element("input", { ...label, value: parameter.example ?? "", placeholder: schema.default ?? "" });
  }

  select(name, options) {
    return element("select", { "aria-label": name }, ...options.map((each) => element("option", {}, each)));
  }

  draw() {
    const rows = this.fields.map(({ parameter, input }) =>
      element(
        "tr", {},
        element("th", { scope: "row" }, element("code", {}, parameter.name), parameter.required ? " *" : ""),
        element("td", {}, parameter.in),
        element("td", {}, input),
        element("td", {}, ...prose(parameter.description), " ", element("small", {}, limits(resolved(parameter.schema)))),
      ),
    );
    for (const [name, select] of [["Accept", this.accept], ["Content-Type", this.media]]) {
      if (select.options.length < 1) continue;
      rows.push(element("tr", {}, element("th", { scope: "row" }, element("code", {}, name)), element("td", {}, "header"), element("td", { colspan: 2 }, select)));
    }
    const submit = (event) => {
      event.preventDefault();
      this.run();
    };
    return element(
      "form", { onsubmit: submit },
      element("div", { class: "scroll" }, element("table", {}, ...rows)),
      this.body, element("p", {}, this.send, " ", this.stop), this.output,
    );
  }

  request() {
    let path = this.path;
    const query = new URLSearchParams();
    const headers = {};
    for (const { parameter, input } of this.fields) {
      if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value === "") continue;
      else if (parameter.in === "query") query.append(parameter.name, input.value);
      else headers[parameter.name] = input.value;
    }
    if (this.accept.value) headers.Accept = this.accept.value;
    const hasBody = this.body && !NO_BODY.has(this.method);
    if (hasBody && this.media.value) headers["Content-Type"] = this.media.value;
    const text = query.toString();
    return { url: text ? `${path}?${text}` : path, headers, body: hasBody ? this.body.value : undefined };
  }

  async run() {
    const { url, headers, body } = this.request();
    const status = element("p", { class: "status" }, "waiting ...");
    const answered = element("pre", {});
    const command = element("pre", {}, curl(this.method, url, headers, body));
    this.output.replaceChildren(command, status, answered);
    this.ending = new AbortController();
    this.stop.hidden = false;
    this.send.disabled = true;
    const started = performance.now();
    try {
      const response = await fetch(url, { method: this.method, headers, body, signal: this.ending.signal });
      status.textContent = `${response.status} ${response.statusText}, ${Math.round(performance.now() - started)} ms`;
      const lines = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
      await this.read(response, (text, isWhole) => {
        answered.textContent = `${lines}\n\n${isWhole ? shown(text, response.headers.get("Content-Type")) : text}`;
      });
    } catch (error) {
      status.textContent += error.name === "AbortError" ? " stopped" : ` ${error.message}`;
    } finally {
      this.stop.hidden = true;
      this.send.disabled = false;
    }
  }

  // An answer may be a stream without an end: it is shown as it comes, and no more of it than a page can hold.
  async read(response, show) {
    let text = "";
    show(text, true);
    const decoder = new TextDecoder();
    const reader = response.body?.getReader();
    while (reader) {
      const { done, value } = await reader.read();
      if (done) break;
      text += decoder.decode(value, { stream: true });
      if (text.length > SHOWN_CHARACTERS_MAX) {
        this.ending.abort();
        show(`${text.slice(0, SHOWN_CHARACTERS_MAX)}\n... and more`, false);
        return;
      }
      show(text, false);
    }
    show(text, true);
  }
}

// --- the page -------------------------------------------------------------------------------------------------------

function answers(operation) {
  return Object.entries(operation.responses ?? {}).map(([status, answer]) => {
    const outlines = new Map();
    for (const [media, { schema }] of Object.entries(answer.content ?? {})) {
      const text = schema ? outline(schema) : "";
      outlines.set(text, [...(outlines.get(text) ?? []), media]);
    }
    const bodies = [...outlines].flatMap(([text, media]) => [
      element("p", {}, element("small", {}, media.join(", "))), text ? element("pre", {}, text) : null,
    ]);
    const headers = Object.entries(answer.headers ?? {}).map(([name, header]) =>
      element("p", {}, element("code", {}, name), " ", ...prose(header.description)),
    );
    const title = element("summary", {}, element("b", {}, status), " ", ...prose(answer.description));
    return bodies.length || headers.length ? element("details", {}, title, ...headers, ...bodies) : element("p", {}, ...title.childNodes);
  });
}

function draw(method, path, operation) {
  const content = operation.requestBody?.content ?? {};
  const parts = [];
  if (operation.description) parts.push(element("p", {}, ...prose(operation.description)));
  parts.push(new Form(method, path, operation).draw());
  for (const [media, { schema }] of Object.entries(content)) {
    if (!schema) continue;
    parts.push(element("details", {}, element("summary", {}, "Body as ", element("code", {}, media)), element("pre", {}, outline(schema))));
  }
  return [...parts, element("h3", {}, "Answers"), ...answers(operation)];
}

function row(method, path, operation) {
  const title = element(
    "summary", {}, element("b", { class: `method ${method.toLowerCase()}` }, method), " ",
    element("code", { class: "path" }, path), " ", element("span", {}, ...prose(operation.summary)),
  );
  const made = element("details", { class: "operation", id: operation.operationId }, title);
  const open = () => {
    if (!made.open) return;
    if (made.children.length === 1) made.append(...draw(method, path, operation));
    history.replaceState(null, "", `#${operation.operationId}`);
  };
  made.addEventListener("toggle", open);
  made.dataset.text = `${method} ${path} ${operation.summary} ${operation.operationId}`.toLowerCase();
  if (operation.deprecated) made.classList.add("deprecated");
  return made;
}

function page(api) {
  definitions = api.components?.schemas ?? {};
  const operations = Object.entries(api.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ tag: operation.tags?.[0], made: row(method.toUpperCase(), path, operation) })),
  );
  const sections = api.tags.map(({ name, description }) => {
    const rows = operations.filter(({ tag }) => tag === name).map(({ made }) => made);
    return element("section", {}, element("h2", {}, name, " ", element("small", {}, ...prose(description))), ...rows);
  });
  const filter = element("input", {
    type: "search", class: "filter", placeholder: "Filter by path, method or summary", "aria-label": "Filter",
    oninput: () => {
      const words = filter.value.toLowerCase().split(/\s+/);
      for (const { made } of operations) made.hidden = !words.every((word) => made.dataset.text.includes(word));
      for (const section of sections) section.hidden = !section.querySelector("details.operation:not([hidden])");
    },
  });
  return [element("p", {}, ...prose(api.info.description)), filter, ...sections];
}

async function start() {
  const main = document.getElementById("api");
  try {
    const response = await fetch("/openapi.json");
    if (!response.ok) throw new Error(`/openapi.json: ${response.status}`);
    main.replaceChildren(...page(await response.json()));
  } catch (error) {
    main.replaceChildren(element("p", { class: "note" }, `The document cannot be shown: ${error.message}`));
    return;
  }
  const asked = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (asked) {
    asked.open = true;
    asked.scrollIntoView();
  }
}

start();
