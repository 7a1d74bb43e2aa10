// One notice in the list. The element is made once and brought up to date in place, so that focus, selection and a screen
// reader's place in the feed survive every push.
import { h, icon, iconButton, safeLink, say } from "./dom.js";
import { isUnread, waits } from "./notices.js";
import { clock, retime, time, until } from "./times.js";

const SEVERITIES = { info: "Info", warning: "Warning", error: "Error", critical: "Critical" };
const CHANNELS = { email: "e-mail", sms: "SMS" };
const REASONS = { ended: "it is over", opt_out: "opted out", no_address: "no address known", quiet_hours: "quiet hours", not_told: "nothing was sent before",
  digest: "collected", throttle: "collected: too many at once", delay: "as you wish" };
const WHATS = { repeat: " again", resolved: " that it is over" };
const FAILED = ["failed", "rejected", "bounced"], UNDER_WAY = ["asked", "deliver", "requested", "queued", "sending", "retried"];

/** What became of one forward, in words: "e-mail in 30 s", "e-mail sent", "e-mail not sent: read". */
export function forwardText(forward) {
  const { what, channel, due_at, outcome, reason } = forward;
  const name = (CHANNELS[channel] ?? channel) + (WHATS[what] ?? ""), why = REASONS[reason] ?? reason?.replaceAll("_", " ");
  if (waits(forward)) return `${name} ${(due_at && until(due_at)) || "due now"}${why ? ` (${why})` : ""}`;
  if (outcome === "sent") return `${name} sent`;
  if (outcome === "delivered") return `${name} forwarded`; // decided and handed on; the sender's word is "sent"
  if (FAILED.includes(outcome)) return `${name} failed${why ? `: ${why}` : ""}`;
  if (UNDER_WAY.includes(outcome)) return `${name} is being sent`;
  return `${name} not sent${why ? `: ${why}` : ""}`;
}

const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

/** actions: {open(id), toggleRead(id), archive(id), unarchive(id), muting(alert) → element} → {element, update(notice, position), tick(), expand(on)} */
export function noticeRow(first, actions) {
  const { id } = first;
  let notice = first, expanded = false, drawn = null;
  const mark = h("span", { class: "severity" }), title = h("h3", { id: `t-${id}` }), fresh = h("span", { class: "visually-hidden" });
  const when = time(first.raised_at), about = h("span"), text = h("p", { class: "text" }), chips = h("p", { class: "chips" });
  const details = h("div", { class: "details", hidden: true });
  const readButton = iconButton("check", "Mark read", () => actions.toggleRead(id));
  const archiveButton = iconButton("archive", "Archive", () => (notice.state?.archived_at ? actions.unarchive(id) : actions.archive(id)));
  const main = h("div", { class: "main" }, h("div", { class: "line" }, title, fresh), h("p", { class: "meta" }, about, " · ", when), text, chips, details);
  const element = h("article", { class: "notice", tabindex: "0", "aria-labelledby": `t-${id}`, "data-id": id, "aria-setsize": "-1" },
    mark, main, h("div", { class: "row-actions" }, readButton, archiveButton));
  main.addEventListener("click", (e) => { if (!e.target.closest("a, .details") && !String(getSelection())) actions.open(id); });

  function relabel(button, name, label) {
    if (button.title === label) return;
    button.title = label;
    button.setAttribute("aria-label", label);
    button.replaceChildren(icon(name));
  }
  function tick() {
    const words = [
      ...(notice.ended_at ? [["ended", `ended ${clock(notice.ended_at)}`]] : []),
      ...(notice.forwards ?? []).map((f) => [["sent", "delivered"].includes(f.outcome) ? "sent" : FAILED.includes(f.outcome) ? "failed" : "", forwardText(f)]),
    ];
    if (chips.dataset.words === words.join()) return;
    chips.dataset.words = words.join();
    chips.replaceChildren(...words.map(([kind, word]) => h("span", { class: `chip ${kind}`, text: word })));
  }
  function drawDetails() {
    const link = notice.link && safeLink(notice.link), facts = [["Alert", notice.alert], ["Config", notice.config],
      ["Entity", notice.entity && `${notice.entity.type} ${notice.entity.id}`], ["Key", notice.key], ["Metric", notice.metric], ["Data", notice.data]];
    details.replaceChildren(
      ...(notice.alert ? [actions.muting(notice.alert)] : []),
      ...(link ? [h("p", {}, h("a", { href: link, target: "_blank", rel: "noopener noreferrer", text: "Open what this is about" }))] : []),
      h("dl", {}, ...facts.filter(([, v]) => v !== null && v !== undefined && v !== "" && pretty(v) !== "{}").flatMap(([name, v]) =>
        [h("dt", { text: name }), h("dd", {}, typeof v === "string" ? v : h("pre", { text: pretty(v) }))])),
    );
  }
  function update(next, position) {
    element.setAttribute("aria-posinset", position);
    if (next === drawn) return;
    notice = drawn = next;
    const unread = isUnread(notice), severity = notice.severity in SEVERITIES ? notice.severity : "info";
    element.classList.toggle("unread", unread);
    element.classList.toggle("is-ended", Boolean(notice.ended_at));
    if (mark.dataset.severity !== severity) {
      mark.dataset.severity = severity;
      mark.replaceChildren(icon(severity), h("span", { class: "visually-hidden", text: `${SEVERITIES[severity]}: ` }));
    }
    say(title, notice.title);
    say(fresh, unread ? " (unread)" : "");
    say(about, [SEVERITIES[severity], notice.alert, notice.entity && `${notice.entity.type} ${notice.entity.id}`].filter(Boolean).join(" · "));
    retime(when, notice.raised_at);
    say(text, notice.text ?? "");
    text.hidden = !notice.text;
    relabel(readButton, unread ? "check" : "dot", unread ? "Mark read" : "Mark unread");
    if (notice.state?.archived_at) relabel(archiveButton, "unarchive", "Back to the inbox"); else relabel(archiveButton, "archive", "Archive");
    readButton.hidden = Boolean(notice.state?.archived_at);
    tick();
    if (expanded) drawDetails();
  }
  function expand(on) {
    expanded = on;
    element.classList.toggle("expanded", on);
    details.hidden = !on;
    if (on) drawDetails();
  }
  return { element, update, tick, expand, get expanded() { return expanded; }, get notice() { return notice; } };
}
