// The inbox without a face. View = server rows at `position` + the commands that still wait, replayed on top; counts are the
// server's, which hold for that position, plus the same replay. A command leaves when its event (or refusal) comes, so the
// overlay is empty whenever nothing waits, and nothing can drift. A command is sent again by its id until it is answered.
import { TABS, difference, ended, isUnread, isUnseen, marked, newestFirst, raisedAt } from "./notices.js";

const RESEND_AFTER = 10_000; // ms: accepted by the log, but its event has not come; the repeat is answered `done`
const IDS_A_COMMAND = 500;

const now = () => new Date().toISOString();

function uuid() { // crypto.randomUUID exists on https and localhost only; people open the page by plain http in their LAN too
  const b = crypto.getRandomValues(new Uint8Array(16));
  b[6] = (b[6] & 0x0f) | 0x40;
  b[8] = (b[8] & 0x3f) | 0x80;
  return [...b].map((x, i) => ([4, 6, 8, 10].includes(i) ? "-" : "") + x.toString(16).padStart(2, "0")).join("");
}

/**
 * @param connection   of connection.js; the inbox is one subscription on it
 * @param fetchPage    async ({state, cursor, limit, at_least}) → {items, next, counts, position}
 */
export function createInbox({ connection, fetchPage, pageSize = 20, later = (f, ms) => setTimeout(f, ms) }) {
  let rows = new Map(), arrivals = new Map(), arrived = 0, generation = 0;
  let counts = { unread: 0, unseen: 0 }, position = null, pending = [], missed = [], loads = 0;
  let status = "connecting", error = null, tab = "all", memo = null, queued = false, pages = freshPages(), subscription = null;
  const listeners = new Set(), handlers = {};

  function freshPages() {
    return Object.fromEntries(Object.keys(TABS).map((t) => [t, { next: undefined, floor: Infinity, loading: false }]));
  }
  const emit = (name, value) => (handlers[name] ?? []).forEach((f) => f(value));
  function changed() {
    memo = null;
    if (queued) return;
    queued = true;
    queueMicrotask(() => { queued = false; listeners.forEach((f) => f(state())); });
  }

  // ---- what the server says
  function put(notice, isNew) {
    if (!arrivals.has(notice.id)) arrivals.set(notice.id, isNew ? ++arrived : 0);
    const { forwards } = rows.get(notice.id) ?? {};
    rows.set(notice.id, notice.forwards || !forwards ? notice : { ...notice, forwards }); // what is not said has not changed
  }
  function answer({ snapshot = [], counts: c, position: p, resumed = false, next }) {
    const known = rows, newest = Math.max(-Infinity, ...[...known.values()].map(raisedAt));
    if (!resumed) { rows = new Map(); generation += 1; pages = freshPages(); }
    const fresh = snapshot.filter((n) => !known.has(n.id) && (resumed ? raisedAt(n) >= newest : position && raisedAt(n) > newest));
    snapshot.forEach((n) => put(n, fresh.includes(n)));
    if (!resumed) {
      const oldest = next === null || !snapshot.length ? -Infinity : Math.min(...snapshot.map(raisedAt));
      pages.all = { next: snapshot.length ? next : null, floor: oldest, loading: false };
      pages.unread = { ...pages.all };
    }
    counts = c ?? counts;
    position = p ?? position;
    changed();
    fresh.filter(isUnseen).forEach((n) => emit("arrived", n));
    pending.forEach(send);
  }
  function push(frame) {
    const { event } = frame;
    if (event) apply(event);
    if (event && loads) missed.push(event);
    counts = frame.counts ?? counts;
    position = frame.position ?? position;
    if (event?.cause) settle(pending.find((c) => c.cmd === event.cause), event.ids);
    changed();
    const unknown = !event?.notice && (event?.ids ?? []).some((id) => !rows.has(id));
    if (unknown && ["unarchived", "returned"].includes(event.op)) begin(); // it is back, and this page has never had it
    if (event?.op === "raised" && event.notice) emit("arrived", event.notice);
    if (event?.op === "ended") emit("ended", event);
  }
  function apply(event) {
    if (event.notice) put(event.notice, event.op === "raised");
    else (event.ids ?? []).forEach((id) => rows.has(id) && rows.set(id, after(rows.get(id), event)));
  }
  function after(row, event) {
    return event.op === "ended" ? ended(row, event.at ?? now()) : marked(row, event.op, event.at ?? now(), event.until);
  }

  // ---- commands
  function settle(command, ids) {
    if (!command) return;
    pending = pending.filter((c) => c !== command);
    command.settled(ids ?? command.touched);
  }
  function refuse(command, problem) {
    pending = pending.filter((c) => c !== command);
    command.settled([]);
    emit("rejected", { as: command.as, ids: command.touched, error: problem });
    changed();
  }
  async function send(command) {
    const { cmd, as, ids, until, up_to } = command;
    const waits = () => pending.includes(command);
    const again = () => later(() => { if (waits() && status === "live") send(command); }, RESEND_AFTER);
    try {
      const ok = await connection.request({ mark: { cmd, as, ...(ids ? { ids } : { all: true, up_to }), ...(until ? { until } : {}) } });
      if (!waits()) return;
      if (!ok.done) return again();
      settle(command); // taken before: its event has come or will come, so the worst is a flicker
      changed();
    } catch (problem) {
      if (problem.code === "connection_lost" || !waits()) return; // the next answer to subscribe sends it again
      if (problem.retry) again(); else refuse(command, problem);
    }
  }
  function command(as, ids, until) {
    const shown = state().rows;
    const touched = ids ?? [...shown.values()].filter((n) => (as === "seen" ? isUnseen : isUnread)(n)).map((n) => n.id);
    const c = { cmd: uuid(), as, ids, until, up_to: ids ? undefined : position, arrived, touched, at: now() };
    c.result = new Promise((resolve) => { c.settled = resolve; });
    pending = [...pending, c];
    changed();
    send(c);
    return c;
  }
  function mark(as, ids, until) {
    const list = [ids].flat();
    for (let i = 0; i < list.length; i += IDS_A_COMMAND) command(as, list.slice(i, i + IDS_A_COMMAND), until);
  }
  const later_than = (c) => (n) => arrivals.get(n.id) > c.arrived; // what came after a mark-all stays as it is

  // ---- what is shown
  function overlay() {
    const view = new Map(rows), sum = { ...counts };
    for (const c of pending) {
      const ids = c.ids ?? [...view.values()].filter((n) => !later_than(c)(n)).map((n) => n.id);
      for (const id of ids) {
        const before = view.get(id);
        if (!before) continue;
        const next = marked(before, c.as, c.at, c.until), d = difference(before, next);
        view.set(id, next);
        sum.unread += d.unread;
        sum.unseen += d.unseen;
      }
      if (c.ids) continue; // older pages are not loaded here: after a mark-all only what came later can count
      const left = [...view.values()].filter(later_than(c));
      if (c.as !== "seen") sum.unread = left.filter(isUnread).length;
      sum.unseen = left.filter(isUnseen).length;
    }
    return { view, sum };
  }
  function state() {
    if (memo) return memo;
    const { view, sum } = overlay(), page = pages[tab];
    const items = [...view.values()].filter((n) => TABS[tab].holds(n) && raisedAt(n) >= page.floor).sort(newestFirst);
    memo = Object.freeze({ status, error, tab, position, items, rows: view, counts: sum, pending: pending.length,
      hasMore: page.next !== null, loading: page.loading });
    return memo;
  }
  async function more() {
    const page = pages[tab], born = generation, { state: filter, holds } = TABS[tab];
    if (page.loading || page.next === null) return;
    page.loading = true;
    loads += 1;
    changed();
    try {
      for (let found = false; !found && page.next !== null;) {
        const got = await fetchPage({ state: filter, cursor: page.next, limit: pageSize, at_least: position });
        if (born !== generation) return; // a fresh snapshot came in between
        for (const n of got.items) {
          found ||= holds(n) && (!rows.has(n.id) || raisedAt(n) < page.floor);
          if (rows.has(n.id)) continue; // ours holds for `position`, this one for the page's
          put(n, false);
          for (const e of missed) if (e.ids?.includes(n.id)) rows.set(n.id, after(rows.get(n.id), e)); // came meanwhile
        }
        page.next = got.next ?? null;
        page.floor = page.next === null ? -Infinity : Math.min(page.floor, ...got.items.map(raisedAt));
      }
      error = null;
    } catch (problem) {
      error = problem;
    } finally {
      page.loading = false;
      loads -= 1;
      if (!loads) missed = [];
      changed();
    }
  }

  function begin() {
    subscription?.unsubscribe();
    subscription = connection.subscribe("inbox", { answer, push, error: (e) => { error = e; changed(); } });
  }
  connection.onStatus((s) => { status = s; changed(); });
  return {
    get state() { return state(); },
    subscribe(f) { listeners.add(f); f(state()); return () => listeners.delete(f); },
    on(name, f) { (handlers[name] ??= new Set()).add(f); return () => handlers[name].delete(f); },
    start() { if (!subscription) begin(); },
    more,
    show(name) { tab = name; changed(); if (pages[tab].floor === Infinity) more(); },
    seen() { if (position && state().counts.unseen) command("seen"); },
    read: (ids) => mark("read", ids),
    unread: (ids) => mark("unread", ids),
    archive: (ids) => mark("archived", ids),
    unarchive: (ids) => mark("unarchived", ids),
    /** Marks all up to the position shown as read; `undo` marks exactly those that this command changed as unread. */
    readAll() {
      if (!position) return null;
      const { result, touched } = command("read");
      return { count: touched.length, undo: async () => { const ids = await result; if (ids.length) mark("unread", ids); } };
    },
  };
}
