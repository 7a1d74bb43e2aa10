// A gateway of thirty rules for the tests of the page's store: one user's log, the fold of it at any position, and sockets whose
// frames wait until the test lets them through. Written apart from the page: it is the oracle that the store is compared with.

const fresh = (seen, read, archived) => ({ seen_at: seen, read_at: read, archived_at: archived, snoozed_until: null });

export class Gateway {
  constructor() { this.log = []; this.commands = new Map(); this.sockets = []; this.refuse = () => false; this.n = 0; this.pageSize = 1000; }

  raise() {
    const n = this.n++;
    const notice = { id: `n${n}`, title: `notice ${n}`, raised_at: new Date(1e12 + n * 1000).toISOString(), ended_at: null, state: fresh(null, null, null) };
    return this.append({ op: "raised", notice });
  }
  end(id) { return this.append({ op: "ended", ids: [id] }); }
  mark(as, ids, cause) { return this.append({ op: as, ids, ...(cause ? { cause } : {}) }); }
  append(event) {
    const at = new Date(2e12 + this.log.length * 1000).toISOString();
    this.log.push({ ...event, at });
    const frame = { channel: "inbox", position: `p${this.log.length}`, event: this.log.at(-1), counts: this.counts() };
    this.sockets.filter((s) => s.subscribed).forEach((s) => s.out.push(frame));
    return this.log.length;
  }

  /** The fold of the first `length` records, as a map of id → notice. */
  fold(length = this.log.length) {
    const rows = new Map();
    for (const e of this.log.slice(0, length)) {
      if (e.op === "raised") { rows.set(e.notice.id, structuredClone(e.notice)); continue; }
      for (const id of e.ids) {
        const n = rows.get(id), s = n.state;
        if (e.op === "ended") n.ended_at = e.at;
        if (["seen", "read", "archived"].includes(e.op)) s.seen_at ??= e.at;
        if (e.op === "read") s.read_at ??= e.at;
        if (e.op === "unread") s.read_at = null;
        if (e.op === "archived") s.archived_at ??= e.at;
        if (e.op === "unarchived") s.archived_at = null;
      }
    }
    return rows;
  }
  counts(length) {
    const list = [...this.fold(length).values()].filter((n) => !n.state.archived_at);
    return { unread: list.filter((n) => !n.state.read_at).length, unseen: list.filter((n) => !n.state.seen_at).length };
  }
  page({ state, cursor, limit }) {
    const all = [...this.fold().values()].reverse()
      .filter((n) => (state === "archived" ? n.state.archived_at : !n.state.archived_at) && (state !== "unread" || !n.state.read_at));
    const start = cursor ? all.findIndex((n) => Number(n.id.slice(1)) < Number(cursor)) : 0;
    const items = start < 0 ? [] : all.slice(start, start + limit);
    const more = start >= 0 && start + limit < all.length;
    return { items, next: more ? items.at(-1).id.slice(1) : null, counts: this.counts(), position: `p${this.log.length}` };
  }

  socket() {
    const s = { readyState: 1, in: [], out: [], subscribed: false };
    s.send = (text) => s.in.push(JSON.parse(text));
    s.close = () => { s.readyState = 3; };
    this.sockets.push(s);
    return s;
  }
  /** The server reads one frame of a socket. */
  serve(s, lose = false) {
    const m = s.in.shift();
    if (!m) return;
    const ok = (body) => s.out.push({ id: m.id, ok: body });
    if (m.auth) return ok({});
    if (m.ping) return ok({});
    if (m.unsubscribe) { s.subscribed = false; return ok({}); }
    if (m.mark) return this.command(m.mark, ok, (error) => s.out.push({ id: m.id, error }));
    const { since } = m.subscribe, position = `p${this.log.length}`, counts = this.counts();
    if (since && lose) return s.out.push({ id: m.id, error: { code: "position_lost", message: "too far back", retry: false } });
    s.subscribed = true;
    if (since) {
      const changed = new Set(this.log.slice(Number(since.slice(1))).flatMap((e) => e.ids ?? [e.notice.id]));
      const rows = [...this.fold().values()].filter((n) => changed.has(n.id));
      return ok({ channel: "inbox", resumed: true, snapshot: rows, position, counts });
    }
    const first = this.page({ limit: this.pageSize });
    ok({ channel: "inbox", snapshot: first.items.slice(0, 2), more: true });
    ok({ channel: "inbox", snapshot: first.items.slice(2), next: first.next, position, counts });
  }
  command({ cmd, as, ids, up_to }, ok, error) {
    if (this.commands.has(cmd)) return ok({ cmd, done: true, position: `p${this.commands.get(cmd)}` });
    if (this.refuse(cmd)) return error({ code: "forbidden", message: "not yours", retry: false });
    const rows = this.fold();
    const known = (ids ?? [...this.fold(Number(up_to.slice(1))).keys()]).filter((id) => rows.has(id));
    const hit = ids ? known : known.filter((id) => !rows.get(id).state[as === "seen" ? "seen_at" : "read_at"]);
    this.commands.set(cmd, this.mark(as, hit, cmd));
    ok({ cmd, position: `p${this.log.length}` });
  }
}
