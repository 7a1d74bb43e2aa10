// Shows a refusal where the reader looks: what happened, what about, what to do. Fields that the gateway adds to the problem
// details (RFC 9457) are shown too, so that a newer gateway can say more without a newer page.
import { h } from "./dom.js";

const KNOWN = ["type", "title", "status", "detail", "code", "todo"];

export function problemView(problem, ...actions) {
  const body = problem.body ?? {}, title = body.title ?? problem.message;
  const rest = Object.entries(body).filter(([name, v]) => !KNOWN.includes(name) && v !== null && v !== "");
  const view = h("div", { class: "problem", role: "alert" },
    h("p", { class: "title", text: title }),
    body.detail && body.detail !== title ? h("p", { text: body.detail }) : null,
    body.todo ? h("p", { text: body.todo }) : null,
    ...rest.map(([name, v]) => h("p", { text: `${name.replaceAll("_", " ")}: ${typeof v === "string" ? v : JSON.stringify(v)}` })),
    body.code ? h("p", { class: "code", text: `${body.code}${problem.status ? ` · HTTP ${problem.status}` : ""}` }) : null,
    actions.length ? h("p", { class: "buttons" }, actions) : null);
  requestAnimationFrame(() => view.scrollIntoView({ block: "nearest" }));
  return view;
}
