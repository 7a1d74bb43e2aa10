// The mails that the demo's own SMTP server has taken: proof that a forward left the house. Read only while its tab is seen; where
// there is no such server the tab doesn't exist.
import { h } from "./dom.js";
import { problemView } from "./problem-view.js";
import { time } from "./times.js";

const EVERY = 2_000; // ms

export function createMail({ call, view, tab }) {
  const list = view.querySelector(".list"), empty = view.querySelector(".empty"), said = view.querySelector(".said");
  const shown = new Map();
  let timer = null, looking = false;

  const entry = (m) => h("li", {}, h("details", { class: "card mail" },
    h("summary", {}, h("span", { class: "subject", text: m.subject }), h("span", { class: "meta" }, `to ${[m.to].flat().join(", ")} · `, time(m.at))),
    h("pre", { class: "wrap", text: m.text })));

  async function look() {
    clearTimeout(timer);
    if (looking || view.hidden || document.hidden) return;
    looking = true;
    try {
      draw((await call("GET", "/demo/mail")).json);
      said.replaceChildren();
    } catch (problem) {
      if (problem.status === 404) tab.hidden = true; else said.replaceChildren(problemView(problem));
    } finally {
      looking = false;
      if (!tab.hidden && !view.hidden && !document.hidden) timer = setTimeout(look, EVERY);
    }
  }
  function draw(mails) {
    const newest = [...mails].sort((a, b) => Date.parse(b.at) - Date.parse(a.at)).slice(0, 100), here = new Set(newest.map((m) => m.id));
    for (const [id, element] of shown) if (!here.has(id)) { element.remove(); shown.delete(id); }
    newest.forEach((m, i) => {
      if (!shown.has(m.id)) shown.set(m.id, entry(m));
      if (list.children[i] !== shown.get(m.id)) list.insertBefore(shown.get(m.id), list.children[i] ?? null);
    });
    empty.hidden = newest.length > 0;
  }
  document.addEventListener("visibilitychange", look);
  return {
    look,
    /** Shows the tab if this installation has the demo's mail. */
    async offer() {
      try { draw((await call("GET", "/demo/mail")).json); tab.hidden = false; } catch (problem) { if (problem.status !== 404) throw problem; }
    },
  };
}
