// The list of alert configs: who watches what, and whom it tells. A click opens the form; the list is read again after each change
// at the position of that change, so that one always reads one's own writes.
import { configForm } from "./config-form.js";
import { h, say } from "./dom.js";
import { problemView } from "./problem-view.js";
import { time } from "./times.js";

const short = (value) => { const text = JSON.stringify(value) ?? ""; return text.length > 140 ? `${text.slice(0, 139)}…` : text; };

export function createConfigs({ call, view, toasts, me }) {
  const list = view.querySelector(".list"), place = view.querySelector(".form-place"), said = view.querySelector(".said"), empty = view.querySelector(".empty");
  const createButton = view.querySelector(".create");
  let names = [], back = null;

  async function load(position) {
    try {
      const items = [];
      for (let cursor; cursor !== null;) {
        const query = new URLSearchParams({ ...(position ? { at_least: position } : {}), ...(cursor ? { cursor } : {}) });
        const { json } = await call("GET", `/v1/alert-configs?${query}`);
        items.push(...json.items);
        cursor = json.next ?? null;
      }
      said.replaceChildren();
      names = [...new Set(items.map((c) => c.name))];
      list.replaceChildren(...items.sort((a, b) => a.name.localeCompare(b.name) || (a.id < b.id ? -1 : 1)).map(card));
      empty.hidden = items.length > 0;
    } catch (problem) {
      said.replaceChildren(problemView(problem, h("button", { type: "button", text: "Try again", onclick: () => load(position) })));
    }
  }
  function card(config) {
    const channels = Object.entries(config.channel ?? {}).map(([name, to]) => h("span", { class: "chip", text: `${name}: ${[to].flat().join(", ")}` }));
    return h("li", { class: "card config", "data-id": config.id },
      h("div", { class: "main" },
        h("h3", {}, h("span", { text: config.name }), h("span", { class: `chip ${config.enabled === false ? "" : "sent"}`, text: config.enabled === false ? "off" : "on" })),
        h("p", { class: "code", text: short(config.metric) }), h("p", { class: "chips" }, channels),
        (config.reports ?? []).map((r) => h("p", { class: `report ${r.kind}` }, h("span", { text: `${r.kind}: ${r.text} ` }), time(r.at, "meta")))),
      h("button", { type: "button", text: "Edit", "aria-label": `Edit ${config.name}`, onclick: () => edit(config.id) }));
  }
  async function edit(id) {
    try {
      const given = await call("GET", `/v1/alert-configs/${encodeURIComponent(id)}`);
      show({ text: given.text, etag: given.etag ?? given.json.etag });
    } catch (problem) { said.replaceChildren(problemView(problem)); }
  }
  function show(given) {
    back = document.activeElement;
    place.replaceChildren(configForm({ call, given, names, me: me(), onDone(message, position) { close(); toasts.show({ title: message }); load(position); }, onCancel: close }));
    place.querySelector("input").focus();
    place.scrollIntoView({ block: "nearest" });
  }
  function close() {
    place.replaceChildren();
    (back?.isConnected ? back : createButton).focus();
  }
  createButton.addEventListener("click", () => show(null));
  say(empty.querySelector("h3"), "No alert configs yet");
  say(empty.querySelector("p"), "A config tells an alert what to watch and whom to tell. Make the first one.");
  return { load };
}
