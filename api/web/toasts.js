// Short messages: a visible stack of toasts that the keyboard reaches, and one live region per politeness, made at start so that
// screen readers know them before the first message. At most one polite message in 5 s; only a critical notice interrupts.
import { h, icon, iconButton } from "./dom.js";

const STAYS = 8_000, AT_MOST = 3, SPEAK_EVERY = 5_000; // ms, toasts, ms

export function createToasts(stack, polite, assertive) {
  let spoken = 0, waiting = null, timer = null;

  function speak(text, urgent = false) {
    if (urgent) { assertive.textContent = text; return; }
    waiting = text;
    timer ??= setTimeout(() => {
      timer = null;
      spoken = Date.now();
      polite.textContent = waiting;
    }, Math.max(50, spoken + SPEAK_EVERY - Date.now()));
  }

  /** @param action {label, run} a button in the toast; @returns a function that takes the toast away */
  function show({ title, text, severity, action, stays = STAYS, notice }) {
    let left = null;
    const remove = () => { clearTimeout(left); toast.remove(); };
    const start = () => { clearTimeout(left); left = setTimeout(() => (toast.matches(":hover, :focus-within") ? start() : remove()), stays); };
    const button = action && h("button", { type: "button", class: "toast-action", text: action.label, onclick: () => { remove(); action.run(); } });
    const toast = h("div", { class: `toast ${severity ?? ""}`, role: "group", "aria-label": title, "data-severity": severity, "data-notice": notice },
      severity ? h("span", { class: "severity" }, icon(severity)) : null,
      h("div", { class: "main" }, h("p", { class: "title", text: title }), text ? h("p", { class: "text", text }) : null),
      button ?? null, iconButton("close", "Dismiss", remove));
    stack.prepend(toast);
    [...stack.children].slice(AT_MOST).forEach((t) => t.remove());
    start();
    speak(text ? `${title}. ${text}` : title, severity === "critical");
    return remove;
  }
  /** Takes the notices' toasts away: their place is being looked at. */
  const clear = () => stack.querySelectorAll("[data-notice]").forEach((t) => t.remove());
  return { show, speak, clear };
}
