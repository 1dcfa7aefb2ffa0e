"use strict";
// Draws /openapi.json. Text goes in as text nodes only, never as markup.

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

const typeOf = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((v) => JSON.stringify(v)).join(" | ");
  if (schema.type === "array") return `${typeOf(schema.items)}[]`;
  if (schema.format) return `${schema.type} (${schema.format})`;
  return schema.type || "any";
};

const link = (schema) => {
  const text = typeOf(schema);
  const name = (schema && (schema.$ref || (schema.items && schema.items.$ref))) || "";
  return name ? make("a", { href: `#schema-${name.split("/").pop()}` }, text) : make("code", {}, text);
};

const table = (head, rows) =>
  make("table", {},
    make("thead", {}, make("tr", {}, ...head.map((h) => make("th", {}, h)))),
    make("tbody", {}, ...rows.map((r) => make("tr", {}, ...r.map((c) => make("td", {}, c))))));

const fields = (schema) => table(["Field", "Type", "Meaning"],
  Object.entries(schema.properties || {}).map(([name, field]) => [
    make("code", {}, name + ((schema.required || []).includes(name) ? " *" : "")),
    link(field),
    field.description || "",
  ]));

const show = (value) => make("pre", {}, typeof value === "string" ? value : JSON.stringify(value, null, 2));

const resolve = (spec, schema) =>
  schema && schema.$ref ? spec.components.schemas[schema.$ref.split("/").pop()] : schema;

function tryIt(spec, method, path, operation) {
  const box = make("div", {}, make("h3", {}, "Try it"));
  const inputs = (operation.parameters || []).filter((p) => p.in === "path").map((p) => {
    const input = make("input", { "aria-label": p.name, placeholder: p.name });
    box.append(input);
    return [p.name, input];
  });
  let body;
  const content = operation.requestBody && operation.requestBody.content["application/json"];
  if (content) {
    const examples = (resolve(spec, content.schema) || {}).examples || [{}];
    body = make("textarea", { rows: "4", "aria-label": "Request body" });
    body.value = JSON.stringify(examples[0], null, 2);
    box.append(body);
  }
  const button = make("button", { type: "button" }, "Send");
  const result = make("div", { "aria-live": "polite" });
  button.addEventListener("click", async () => {
    const url = inputs.reduce(
      (u, [name, input]) => u.replace(`{${name}}`, encodeURIComponent(input.value)), path);
    const headers = {};
    const token = document.getElementById("token").value.trim();
    if (token) headers.Authorization = `Bearer ${token}`;
    if (body) headers["Content-Type"] = "application/json";
    try {
      const answer = await fetch(url, { method, headers, body: body && body.value });
      const text = await answer.text();
      let shown = text;
      try { shown = JSON.parse(text); } catch { /* not JSON: shown as it is */ }
      result.replaceChildren(make("p", {}, `${answer.status} ${answer.statusText}`), show(shown));
    } catch (error) {
      result.replaceChildren(make("p", {}, `No answer: ${error.message}`));
    }
  });
  box.append(button, result);
  return box;
}

function draw(spec) {
  document.getElementById("title").textContent = `${spec.info.title} ${spec.info.version}`;
  document.getElementById("description").textContent = spec.info.description;
  const contents = document.getElementById("contents");
  const operations = document.getElementById("operations");
  operations.replaceChildren();
  for (const [path, item] of Object.entries(spec.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      const id = `${method}-${path.replaceAll(/[^a-z]+/g, "-")}`;
      contents.append(make("a", { href: `#${id}` }, `${method.toUpperCase()} ${path}`));
      const box = make("details", { id },
        make("summary", {},
          make("span", { class: `method ${method}` }, method.toUpperCase()), " ",
          make("code", {}, path), ` — ${operation.summary || ""}`),
        make("p", {}, operation.description || ""));
      const content = operation.requestBody && operation.requestBody.content["application/json"];
      if (content) {
        const schema = resolve(spec, content.schema);
        box.append(make("h3", {}, "Request"), fields(schema));
        for (const example of schema.examples || []) box.append(show(example));
      }
      box.append(make("h3", {}, "Answers"));
      box.append(table(["Status", "Body", "Meaning"], Object.entries(operation.responses).map(
        ([status, answer]) => {
          const first = Object.values(answer.content || {})[0] || {};
          return [make("code", {}, status), link(first.schema), answer.description || ""];
        })));
      for (const answer of Object.values(operation.responses)) {
        for (const media of Object.values(answer.content || {})) {
          if (media.example) box.append(make("h3", {}, "Example"), show(media.example));
        }
      }
      box.append(tryIt(spec, method.toUpperCase(), path, operation));
      operations.append(box);
    }
  }
  const schemas = document.getElementById("schemas");
  for (const [name, schema] of Object.entries(spec.components.schemas)) {
    schemas.append(make("details", { id: `schema-${name}` },
      make("summary", {}, make("code", {}, name)), make("p", {}, schema.description || ""),
      schema.enum ? show(schema.enum.join("\n")) : fields(schema)));
  }
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();
}

fetch("/openapi.json")
  .then((answer) => answer.json())
  .then(draw)
  .catch((error) => {
    document.getElementById("operations").textContent = `Cannot read /openapi.json: ${error.message}`;
  });
