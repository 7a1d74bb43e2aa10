// What this user has muted for a while: forwards about an alert are skipped until then, the inbox goes on. The list is read when the
// inbox opens and after each change, at that change's position, so that one always reads one's own writes.
import { h } from "./dom.js";
import { clock } from "./times.js";

const SPANS = [["1h", "1 hour"], ["8h", "8 hours"], ["1d", "1 day"]];

/** @param place a list that is filled, hidden while there is nothing to tell */
export function createSilences({ call, place, toasts, user }) {
  const failed = (problem) => toasts.show({ title: problem.message, text: problem.body?.detail, severity: "error" });

  async function look(position) {
    try {
      const { json } = await call("GET", `/v1/silences${position ? `?at_least=${encodeURIComponent(position)}` : ""}`);
      place.replaceChildren(...json.items.map(item));
      place.hidden = !json.items.length;
    } catch (problem) { failed(problem); }
  }
  function item(silence) {
    const { alert, entity } = silence, about = [alert && `“${alert}”`, entity && `${entity.type} ${entity.id}`].filter(Boolean).join(", ") || "everything";
    const whose = silence.everyone ? " for everyone" : silence.user === user ? "" : ` for ${silence.user}`;
    return h("li", {}, h("span", { text: `No messages about ${about}${whose} until ${clock(silence.until)}` }),
      h("button", { type: "button", class: "quiet", text: "End", "aria-label": `End the silence about ${about}`, onclick: () => end(silence.id) }));
  }
  async function end(id) {
    try { await look((await call("DELETE", `/v1/silences/${encodeURIComponent(id)}`)).json.position); } catch (problem) { failed(problem); }
  }
  async function mute(alert, span) {
    try {
      const { json } = await call("POST", "/v1/silences", { body: JSON.stringify({ alert, user, for: span }) });
      toasts.show({ title: `“${alert}” is muted`, text: "It still comes to this inbox.", action: { label: "Undo", run: () => end(json.id) } });
      await look(json.position);
    } catch (problem) { failed(problem); }
  }
  /** Buttons that mute an alert for a while. */
  const buttons = (alert) => h("p", { class: "mute" }, h("span", { text: "No mail about this alert for " }),
    SPANS.map(([span, label]) => h("button", { type: "button", class: "quiet", text: label, onclick: () => mute(alert, span) })));
  return { look, buttons };
}
