// Shows /openapi.json and /asyncapi.json to people: every call, every frame, and the types they are made of. What it shows comes
// from the two documents alone, so that it can't say anything that the gateway does not.

import { h } from "./dom.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const named = (ref) => ref.slice(ref.lastIndexOf("/") + 1);
const code = (text) => h("code", { text });
const typeLink = (name) => h("a", { href: `#type-${name}`, class: "code", text: name });

/** Text with its `code` marked. */
function prose(text = "") {
  return text.split("`").map((part, i) => i % 2 ? code(part) : part);
}

/** What a schema allows, in a few words and links. */
function shape(schema) {
  if (schema.$ref) return [typeLink(named(schema.$ref))];
  if (schema.allOf) return shape(schema.allOf[0]);
  if (schema.anyOf) return schema.anyOf.flatMap((one, i) => [i ? " or " : "", ...shape(one)]);
  if (schema.enum) return schema.enum.flatMap((one, i) => [i ? ", " : "", code(JSON.stringify(one))]);
  if ("const" in schema) return [code(JSON.stringify(schema.const))];
  if (schema.type === "array") return ["list of ", ...shape(schema.items ?? {})];
  if (schema.properties) return Object.entries(schema.properties).flatMap(([name, one], i) => [i ? ", " : "", code(name), ": ", ...shape(one)]);
  if (schema.type === "object" && schema.additionalProperties?.constructor === Object) return ["name → ", ...shape(schema.additionalProperties)];
  const within = [["minimum", "≥"], ["maximum", "≤"], ["minLength", "length ≥"], ["maxLength", "length ≤"], ["maxItems", "items ≤"]]
    .filter(([name]) => name in schema && Math.abs(schema[name]) < 2 ** 53).map(([name, sign]) => `${sign} ${schema[name]}`);
  return [(schema.type ?? "anything") + (within.length ? ` (${within.join(", ")})` : "")];
}

const rows = (pairs) => h("dl", {}, pairs.map(([name, ...what]) => h("div", {}, h("dt", {}, name), h("dd", {}, what.flat()))));

function entry(id, head, ...body) {
  return h("details", { class: "card entry", id }, h("summary", {}, head), body);
}

function call(path, method, said, problems) {
  const needs = said.security.length ? said.security[0].token[0] : null;
  const answers = Object.entries(said.responses).map(([status, { content = {} }]) =>
    [status, Object.entries(content).filter(([media]) => media !== "application/problem+json")]).filter(([status, content]) => status < 400 || content.length);
  const refusals = Object.keys(problems).filter((name) => Object.values(said.responses).some((r) => r.description.includes(`\`${name}\``)));
  const body = Object.entries(said.requestBody?.content ?? {});
  return entry(said.operationId, [h("span", { class: `method ${method}`, text: method.toUpperCase() }), code(path), h("span", { text: said.summary })],
    rows([
      ["Token", ...(needs ? ["with the scope ", code(needs)] : [said.security.length ? "any" : "none"])],
      ...(said.parameters ?? []).map((p) => [code(p.name), ...shape(p.schema), h("p", { class: "note" }, prose(p.description), p.in === "header" ? " (A header.)" : "")]),
      ...body.map(([media, { schema }]) => ["Body", ...shape(schema), h("p", { class: "note" }, `${media}. `, prose(said.requestBody.description))]),
      ...answers.flatMap(([status, content]) => content.length
        ? content.map(([media, { schema }]) => [status, ...shape(schema), h("p", { class: "note", text: media })]) : [[status, "no body"]]),
      ["Refusals", ...refusals.flatMap((name, i) => [i ? ", " : "", h("a", { href: `#problem-${name}`, class: "code", text: name })])],
    ]));
}

function message(name, said) {
  return entry(`frame-${name}`, [code(name), h("span", {}, prose(said.summary))],
    rows(members(said.payload.$ref ? live.components.schemas[named(said.payload.$ref)] : said.payload)));
}

function members(schema) {
  const required = schema.required ?? [];
  return Object.entries(schema.properties ?? {}).map(([name, one]) => [
    [code(name), required.includes(name) ? "" : h("small", { text: " optional" })], ...shape(one), one.description ? h("p", { class: "note" }, prose(one.description)) : null]);
}

function type(name, schema) {
  const open = schema.additionalProperties === true ? [["…", "further members are kept"]] : [];
  return h("section", { class: "card entry", id: `type-${name}` }, h("h3", {}, code(name)), h("p", { class: "note" }, prose(schema.description)), rows([...members(schema), ...open]));
}

const problem = (name, { status, title, todo }) => [h("span", { id: `problem-${name}` }, code(name)), `${status}: ${title}. `, h("span", { class: "note" }, prose(todo))];

function section(id, title, ...content) {
  document.querySelector("nav").append(h("a", { href: `#${id}`, text: title }));
  return h("section", { id }, h("h2", { text: title }), content);
}

/** Links lead into folded entries, too. */
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
  target?.scrollIntoView();
}

const [calls, live] = await Promise.all(["/openapi.json", "/asyncapi.json"].map(async (path) => (await fetch(path)).json()));
const tags = new Map();
for (const [path, said] of Object.entries(calls.paths)) {
  for (const method of METHODS.filter((m) => m in said)) {
    const [tag] = said[method].tags;
    tags.set(tag, [...(tags.get(tag) ?? []), call(path, method, said[method], calls["x-problems"])]);
  }
}
const types = Object.entries({ ...live.components.schemas, ...calls.components.schemas }).sort(([a], [b]) => a < b ? -1 : 1);
const frames = ({ messages }) => messages.map(({ $ref }) => message(named($ref), live.components.messages[named($ref)]));
const { ask, tell } = live.operations;
document.querySelector("article").replaceChildren(
  h("p", {}, prose(calls.info.description)),
  ...[...tags].map(([tag, entries]) => section(tag, tag.replace("-", " "), h("div", { class: "list" }, entries))),
  section("live", "live", h("p", {}, prose(live.info.description)),
    rows(Object.values(live.channels).map((c) => [code(c.address), c.summary])),
    h("h3", { text: ask.summary }), h("div", { class: "list" }, frames(ask)),
    h("h3", { text: "What it is answered" }), h("div", { class: "list" }, frames(ask.reply)),
    h("h3", { text: tell.summary }), h("div", { class: "list" }, frames(tell)),
    h("h3", { text: "Why a connection is ended" }), rows(Object.entries(live["x-close-codes"]).map(([number, means]) => [code(number), means]))),
  section("types", "types", h("div", { class: "list" }, types.map(([name, schema]) => type(name, schema)))),
  section("problems", "refusals", rows(Object.entries(calls["x-problems"]).map(([name, said]) => problem(name, said)))),
  section("limits", "limits", rows(Object.entries(calls["x-limits"]).map(([name, value]) => [code(name), String(value)]))),
);
addEventListener("hashchange", unfold);
unfold();
