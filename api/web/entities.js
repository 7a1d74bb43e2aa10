// The live table of one type of entity: a snapshot, then every change as the log has it. Values are shown whatever their shape:
// nested fields as dotted paths, percentages with a bar, and the whole entity as JSON on request.
import { h, say } from "./dom.js";
import { retime, time } from "./times.js";

const SHOWN_AT_MOST = 200, FIELDS_AT_MOST = 12;
const number = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });

function fields(value, path = "", found = []) {
  if (found.length >= FIELDS_AT_MOST) return found;
  if (value !== null && typeof value === "object") {
    const short = Array.isArray(value) && value.length <= 4 && value.every((v) => typeof v === "number");
    if (short) found.push([path, value.map((v) => number.format(v)).join(" ")]);
    else for (const [name, inner] of Object.entries(value)) fields(inner, path ? `${path}.${name}` : name, found);
  } else if (path) found.push([path, value]);
  return found;
}
const isPercent = (name, v) => typeof v === "number" && v >= 0 && v <= 100 && /(^|[._])(percent|pct|cpu|memory)$/i.test(name);
function words(name, v) {
  if (typeof v !== "number") return v === null ? "–" : String(v);
  if (isPercent(name, v)) return `${number.format(v)} %`;
  if (/(^|[._])(bytes|total|used|free|available)$/i.test(name) && Math.abs(v) >= 1e6) return `${number.format(v / 2 ** 30)} GiB`;
  return number.format(v);
}

/** One table row: made once, then only what differs is rewritten (and flashes, where motion is welcome). */
function entityRow(id) {
  const values = new Map(), cells = h("div", { class: "fields" }), when = time(new Date().toISOString());
  const version = h("td", { class: "number" }), json = h("pre", { tabindex: "0" });
  const more = h("details", { ontoggle: () => draw() }, h("summary", { text: "JSON" }), json);
  const element = h("tr", {}, h("th", { scope: "row", text: id }), h("td", { class: "wide" }, cells, more), version, h("td", { class: "when" }, when));
  let last = null;
  const draw = () => { if (more.open && last) say(json, JSON.stringify(last.entity, null, 2)); };
  function update(row) {
    if (row === last) return;
    const list = fields(row.entity ?? {}), names = new Set(list.map(([n]) => n));
    for (const [name, cell] of values) if (!names.has(name)) { cell.element.remove(); values.delete(name); }
    for (const [name, value] of list) {
      let cell = values.get(name);
      if (!cell) {
        cell = { value: h("span", { class: "value" }), meter: isPercent(name, value) ? h("meter", { min: "0", max: "100", high: "85", low: "60", optimum: "10", "aria-label": name }) : null };
        cell.element = h("span", { class: "field" }, h("span", { class: "name", text: name }), cell.value, cell.meter);
        values.set(name, cell);
        cells.append(cell.element);
      }
      const text = words(name, value);
      if (cell.meter) cell.meter.value = value;
      if (last && cell.value.textContent !== text) { cell.value.classList.remove("changed"); void cell.value.offsetWidth; cell.value.classList.add("changed"); }
      say(cell.value, text);
    }
    last = row;
    say(version, String(row.version ?? ""));
    retime(when, row.at);
    draw();
  }
  return { element, update };
}

export function createEntities({ connection, view }) {
  const picker = view.querySelector("select"), filter = view.querySelector("input[type=search]"), body = view.querySelector("tbody");
  const note = view.querySelector(".note"), empty = view.querySelector(".empty"), table = view.querySelector("table");
  let rows = new Map(), shown = new Map(), subscription = null, queued = false, ready = false;

  function changed() {
    if (queued) return;
    queued = true;
    requestAnimationFrame(() => { queued = false; draw(); });
  }
  function draw() {
    const wanted = filter.value.trim().toLowerCase();
    const matching = [...rows.values()].filter((r) => !wanted || r.id.toLowerCase().includes(wanted) || JSON.stringify(r.entity).toLowerCase().includes(wanted));
    const list = matching.sort((a, b) => (a.id < b.id ? -1 : 1)).slice(0, SHOWN_AT_MOST), here = new Set(list.map((r) => r.id));
    for (const [id, row] of shown) if (!here.has(id)) { row.element.remove(); shown.delete(id); }
    list.forEach((r, i) => {
      let row = shown.get(r.id);
      if (!row) shown.set(r.id, row = entityRow(r.id));
      row.update(r);
      if (body.children[i] !== row.element) body.insertBefore(row.element, body.children[i] ?? null);
    });
    table.hidden = !list.length;
    empty.hidden = list.length > 0 || !ready;
    say(empty.querySelector("h3"), rows.size ? "No match" : `No ${picker.value || "entities"} yet`);
    say(empty.querySelector("p"), rows.size ? "Nothing here contains what you typed." : `They appear here as soon as a change is sent, for example: tidings emit ${picker.value} my-1 < body.json`);
    say(note, matching.length > list.length ? `Showing ${list.length} of ${matching.length}. Type to narrow it down.` : list.length ? `${matching.length} · live` : "");
  }
  function push({ event, entity }) {
    if (!event) return;
    if (event.op === "deleted" || event.op === "left") rows.delete(event.id);
    else rows.set(event.id, { id: event.id, type: event.type, version: event.version, at: event.at, entity: entity ?? event.entity });
    changed();
  }
  function choose(type) {
    subscription?.unsubscribe();
    rows = new Map();
    ready = false;
    body.replaceChildren();
    shown = new Map();
    subscription = connection.subscribe(`entities/${type}`, {
      answer({ snapshot, resumed }) {
        if (!resumed) rows = new Map();
        snapshot.forEach((r) => rows.set(r.id, r));
        ready = true;
        changed();
      },
      push,
      error(problem) { ready = true; changed(); requestAnimationFrame(() => say(note, `${type} can't be shown: ${problem.message}`)); },
    }, { snapshot: true });
    changed();
  }
  picker.addEventListener("change", () => choose(picker.value));
  filter.addEventListener("input", changed);
  return {
    /** The types this token may read, from /v1/me. */
    types(list) {
      picker.replaceChildren(...list.map((t) => h("option", { value: t, text: t })));
      if (list.length) choose(list[0]); else { ready = true; say(note, "This token may read no entities."); changed(); }
    },
  };
}
