// The inbox's face: bell, panel, rows, keys. Opening the panel is "seen", opening a row is "read". While the list is scrolled or
// a row has the focus, new rows wait behind "3 new", so that nothing moves under a reader's finger.
import { say } from "./dom.js";
import { noticeRow } from "./notice-row.js";
import { TABS, isUnread } from "./notices.js";
import { everySecond } from "./times.js";

const EMPTY = {
  all: ["Nothing here yet", "When one of your alerts has something to say, it appears here at once."],
  unread: ["All read", "New notices show up here until you open them."],
  archived: ["Nothing archived", "Archive a notice to keep it out of the way; it stays here."],
};

export function createInboxView({ inbox, toasts, silences, bell, panel }) {
  const badge = bell.querySelector(".badge"), feed = panel.querySelector("[role=feed]"), news = panel.querySelector(".news");
  const olderButton = panel.querySelector(".older"), empty = panel.querySelector(".empty"), fault = panel.querySelector(".fault");
  const scroller = panel.querySelector(".scroller"), markAll = panel.querySelector(".mark-all");
  const rows = new Map(), known = new Set();
  let state = inbox.state, held = new Set(), lastUndo = null, tabShown = null, first = true, looked = null;
  const isOpen = () => !panel.hidden;

  const actions = {
    open(id) {
      const row = rows.get(id);
      row.expand(!row.expanded);
      if (isUnread(row.notice)) inbox.read(id);
    },
    toggleRead: (id) => (isUnread(rows.get(id).notice) ? inbox.read(id) : inbox.unread(id)),
    archive(id) {
      refocus(id);
      inbox.archive(id);
      offerUndo("Archived", rows.get(id).notice.title, () => inbox.unarchive(id));
    },
    unarchive(id) { refocus(id); inbox.unarchive(id); },
    muting: (alert) => silences.buttons(alert),
  };
  function refocus(id) { // the row goes away: its focus moves to the next one instead of being lost
    const row = rows.get(id).element;
    if (row.contains(document.activeElement)) (row.nextElementSibling ?? row.previousElementSibling ?? panel).focus();
  }
  function offerUndo(title, text, run) {
    const undo = lastUndo = () => { if (lastUndo === undo) lastUndo = null; remove(); run(); };
    const remove = toasts.show({ title, text, stays: 10_000, action: { label: "Undo", run: undo } });
  }

  function open() {
    panel.hidden = false;
    bell.setAttribute("aria-expanded", "true");
    toasts.clear();
    silences.look();
    release();
    scroller.scrollTop = 0;
    panel.focus({ preventScroll: true });
  }
  function close() {
    panel.hidden = true;
    bell.setAttribute("aria-expanded", "false");
    bell.focus();
  }
  function openAt(id) {
    open();
    inbox.show("all");
    requestAnimationFrame(() => {
      const row = rows.get(id);
      if (!row) return;
      row.element.focus();
      if (!row.expanded) actions.open(id);
    });
  }
  /** Shows what waits behind "3 new", and tells the server that all of it has been seen. */
  function release() {
    held = new Set();
    inbox.seen();
    draw();
  }
  const reading = () => isOpen() && (scroller.scrollTop > 8 || feed.contains(document.activeElement));

  function draw() {
    const { counts, items, tab } = state;
    if (tab !== tabShown) { held = new Set(); tabShown = tab; }
    const fresh = items.filter((n) => !known.has(n.id) && isUnread(n));
    if (!first && reading()) fresh.filter((n) => n.id !== items.at(-1).id).forEach((n) => held.add(n.id));
    if (state.position) { items.forEach((n) => known.add(n.id)); first = false; }
    const shown = items.filter((n) => !held.has(n.id)), waiting = items.length - shown.length;

    say(badge, counts.unread > 99 ? "99+" : String(counts.unread));
    badge.hidden = !counts.unread;
    badge.classList.toggle("unseen", counts.unseen > 0);
    bell.setAttribute("aria-label", `Notifications, ${counts.unseen} new, ${counts.unread} unread`);
    document.title = counts.unread ? `(${counts.unread}) Tidings` : "Tidings";
    if (!isOpen()) return;

    news.hidden = !waiting;
    say(news, `${waiting} new`);
    markAll.disabled = !counts.unread;
    panel.querySelectorAll("[role=tab]").forEach((t) => {
      t.setAttribute("aria-selected", String(t.dataset.tab === tab));
      t.tabIndex = t.dataset.tab === tab ? 0 : -1;
    });
    say(panel.querySelector("[data-tab=unread] .count"), counts.unread ? String(counts.unread) : "");
    drawRows(shown);
    olderButton.hidden = !state.hasMore || (!shown.length && state.loading);
    olderButton.disabled = state.loading;
    say(olderButton, state.loading ? "Loading…" : "Show older");
    feed.hidden = !shown.length;
    empty.hidden = shown.length > 0 || state.loading || !state.position;
    say(empty.querySelector("h3"), EMPTY[tab][0]);
    say(empty.querySelector("p"), EMPTY[tab][1]);
    fault.hidden = !state.error;
    say(fault, state.error ? `Older notices could not be loaded: ${state.error.message}` : "");
    feed.setAttribute("aria-busy", String(state.loading));
    const look = counts.unseen && !waiting && !document.hidden && state.status === "live";
    if (look && looked !== state.position) { looked = state.position; inbox.seen(); } // once a position: a refusal is not asked again
  }
  function drawRows(shown) {
    const here = new Set(shown.map((n) => n.id));
    for (const [id, row] of rows) if (!here.has(id)) { row.element.remove(); rows.delete(id); }
    shown.forEach((notice, i) => {
      let row = rows.get(notice.id);
      if (!row) rows.set(notice.id, row = noticeRow(notice, actions));
      row.update(notice, i + 1);
      if (feed.children[i] !== row.element) feed.insertBefore(row.element, feed.children[i] ?? null);
    });
  }

  function step(by) {
    const all = [...feed.children], at = all.indexOf(document.activeElement.closest("article"));
    all[Math.max(0, Math.min(all.length - 1, at < 0 ? 0 : at + by))]?.focus();
  }
  panel.addEventListener("keydown", (e) => {
    if (e.key === "Escape") { e.stopPropagation(); return close(); }
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const id = e.target.closest("article")?.dataset.id, onRow = e.target.matches("article");
    const keys = {
      j: () => step(1), PageDown: () => step(1), k: () => step(-1), PageUp: () => step(-1), z: () => lastUndo?.(),
      ...(id ? { r: () => actions.toggleRead(id), e: () => (rows.get(id).notice.state?.archived_at ? actions.unarchive(id) : actions.archive(id)) } : {}),
      ...(onRow ? { Enter: () => actions.open(id) } : {}),
    };
    if (keys[e.key]) { e.preventDefault(); keys[e.key](); }
  });
  panel.querySelector("[role=tablist]").addEventListener("keydown", (e) => {
    const names = Object.keys(TABS), by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (!by) return;
    inbox.show(names[(names.indexOf(state.tab) + by + names.length) % names.length]);
    requestAnimationFrame(() => panel.querySelector("[role=tab][aria-selected=true]").focus());
  });
  panel.querySelectorAll("[role=tab]").forEach((t) => t.addEventListener("click", () => inbox.show(t.dataset.tab)));
  bell.addEventListener("click", () => (isOpen() ? close() : open()));
  panel.querySelector(".close").addEventListener("click", close);
  news.addEventListener("click", () => { release(); scroller.scrollTop = 0; feed.firstElementChild?.focus(); });
  olderButton.addEventListener("click", () => inbox.more());
  markAll.addEventListener("click", () => {
    const done = inbox.readAll();
    if (done) offerUndo("All marked as read", "", done.undo);
    panel.focus();
  });
  document.addEventListener("pointerdown", (e) => {
    if (isOpen() && !e.composedPath().some((el) => [panel, bell].includes(el) || el.classList?.contains("toasts"))) { panel.hidden = true; bell.setAttribute("aria-expanded", "false"); }
  });
  everySecond(() => { if (isOpen()) rows.forEach((row) => row.tick()); });

  inbox.on("arrived", (notice) => {
    const { title, text, severity, id } = notice;
    if (isOpen() || document.hidden) return toasts.speak(title, severity === "critical");
    toasts.show({ notice: id, title, text, severity: severity ?? "info", action: { label: "Open", run: () => openAt(id) } });
  });
  inbox.on("ended", (event) => {
    const notice = event.notice ?? state.rows.get(event.ids?.[0]);
    if (notice) toasts.speak(`Over: ${notice.title}`);
  });
  inbox.on("rejected", ({ as, error }) => toasts.show({ title: `Could not be marked ${as}`, text: error.message, severity: "error" }));
  inbox.subscribe((s) => { state = s; draw(); });
}
