// The form for one alert config. What is JSON is edited as the text it is and sent verbatim: the metric reaches the alert program
// byte for byte. Saving says which version it was made from (If-Match), so nobody overwrites what they haven't seen.
import { h } from "./dom.js";
import { members, object } from "./json-text.js";
import { problemView } from "./problem-view.js";

const OWN = ["name", "metric", "channel", "enabled"];
const SERVERS = ["id", "etag", "position", "version", "reports"]; // never sent back

const button = (text, onclick, extra = {}) => h("button", { type: "button", text, onclick, ...extra });
const indent = (text) => JSON.stringify(JSON.parse(text), null, 2);

/** "email: ann, bob" lines ↔ {"email":["ann","bob"]} */
const toLines = (channel) => Object.entries(channel ?? {}).map(([name, to]) => `${name}: ${[to].flat().join(", ")}`).join("\n");
function fromLines(text) {
  const lines = text.split("\n").map((l) => l.trim()).filter(Boolean).map((l) => [l.slice(0, l.indexOf(":")).trim(), l.slice(l.indexOf(":") + 1), l]);
  const wrong = lines.find(([name, , line]) => !line.includes(":") || !name);
  if (wrong) throw new SyntaxError(`“${wrong[2]}” should look like “email: ann, bob”.`);
  return Object.fromEntries(lines.map(([name, to]) => [name, to.split(",").map((r) => r.trim()).filter(Boolean)]));
}

/**
 * @param call    of http.js
 * @param given   {text, etag} of the config to change, or null for a new one
 * @param names   alert names known so far, offered in the name field
 * @param onDone  (message, position) after a save or a delete; onCancel () else
 */
export function configForm({ call, given, names, me, onDone, onCancel }) {
  const list = given ? members(given.text) : [], raw = Object.fromEntries(list), id = raw.id && JSON.parse(raw.id);
  const rest = list.filter(([name]) => !OWN.includes(name) && !SERVERS.includes(name));
  const name = h("input", { id: "c-name", required: true, autocomplete: "off", list: "c-names", value: raw.name ? JSON.parse(raw.name) : "" });
  const metric = h("textarea", { id: "c-metric", rows: "6", spellcheck: "false", class: "code" });
  const channel = h("textarea", { id: "c-channel", rows: "3", spellcheck: "false", class: "code", "aria-describedby": "c-channel-hint" });
  const more = h("textarea", { id: "c-more", rows: "4", spellcheck: "false", class: "code" });
  const enabled = h("input", { id: "c-enabled", type: "checkbox", checked: raw.enabled !== "false" });
  metric.value = raw.metric ?? "{\n  \n}";
  channel.value = raw.channel ? toLines(JSON.parse(raw.channel)) : `inbox: ${me.user}`;
  more.value = rest.length ? indent(object(rest)) : "";
  const said = h("div", { class: "said" }), save = h("button", { class: "primary", text: given ? "Save" : "Create" });

  function part(input, what, read) {
    try { return read(input.value); } catch (fault) {
      input.setAttribute("aria-invalid", "true");
      input.focus();
      throw new Error(`${what}: ${fault.message}`);
    }
  }
  function bodyText() {
    const first = [["name", JSON.stringify(name.value.trim())],
      ["metric", part(metric, "Metric is no JSON", (t) => (JSON.parse(t), t.trim()))],
      ["channel", JSON.stringify(part(channel, "Channels", fromLines))], ["enabled", String(enabled.checked)]];
    const untouched = rest.length && more.value === indent(object(rest));
    const others = untouched ? rest : more.value.trim() ? part(more, "Further fields are no JSON object", members) : [];
    return object([...first, ...others.filter(([n]) => !OWN.includes(n) && !SERVERS.includes(n))]);
  }
  async function send(method, etag, body) {
    said.replaceChildren();
    form.querySelectorAll("[aria-invalid]").forEach((e) => e.removeAttribute("aria-invalid"));
    save.disabled = true;
    try {
      const text = body ? body() : undefined, path = id ? `/v1/alert-configs/${encodeURIComponent(id)}` : "/v1/alert-configs";
      const answer = await call(method, path, { body: text, headers: etag ? { "if-match": etag } : {} });
      const what = method === "DELETE" ? "deleted" : given ? "saved" : "created";
      onDone(answer.status === 202 ? `Accepted: “${name.value}” will be ${what} in a moment.` : `“${name.value}” ${what}.`, answer.json?.position);
    } catch (problem) {
      said.replaceChildren(problem.status === 412 ? conflict(problem, method, body) : problemView(problem));
    } finally {
      save.disabled = false;
    }
  }
  function conflict(problem, method, body) {
    const theirs = async () => {
      const now = await call("GET", `/v1/alert-configs/${encodeURIComponent(id)}`);
      form.replaceWith(configForm({ call, given: now, names, me, onDone, onCancel }));
    };
    const mine = async () => {
      const now = await call("GET", `/v1/alert-configs/${encodeURIComponent(id)}`);
      await send(method, now.etag, body);
    };
    const caught = (f) => () => f().catch((p) => said.replaceChildren(problemView(p)));
    return problemView(problem, button("Load what is there now", caught(theirs)), button("Overwrite it with mine", caught(mine)));
  }
  const field = (label, input, hint) => h("p", { class: "field-row" }, h("label", { for: input.id, text: label }), input, hint ? h("small", { id: `${input.id}-hint`, text: hint }) : null);
  const form = h("form", { class: "card config-form", "aria-label": given ? "Change the alert config" : "New alert config",
    onsubmit: (e) => { e.preventDefault(); send(id ? "PUT" : "POST", given?.etag, bodyText); } },
  h("h3", { text: given ? `Change “${name.value}”` : "New alert config" }),
  field("Alert", name, "The name of the alert program that this config is for."), h("datalist", { id: "c-names" }, names.map((n) => h("option", { value: n }))),
  field("Metric (JSON)", metric, "Handed to the alert program exactly as it stands here."),
  field("Channels", channel, "One a line: the channel, a colon, recipients. Every recipient also gets it in the inbox."),
  h("details", { open: rest.length > 0 }, h("summary", { text: "Further fields (JSON)" }), field("For example forward", more)),
  h("p", { class: "check" }, enabled, h("label", { for: "c-enabled", text: "Enabled" })),
  said,
  h("p", { class: "buttons" }, save, button("Cancel", onCancel),
    id ? button("Delete", () => { if (confirm(`Delete the config of “${name.value}”?`)) send("DELETE", given.etag); }, { class: "danger" }) : null));
  return form;
}
