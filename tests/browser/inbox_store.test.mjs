// The page's inbox store and connection against an oracle: at every moment without a waiting command the view is the fold of the
// log at the store's position, counts included, whatever is lost, repeated or refused on the way.
import assert from "node:assert/strict";
import test from "node:test";

import { createConnection } from "../../api/web/connection.js";
import { createInbox } from "../../api/web/inbox.js";
import { members, object } from "../../api/web/json-text.js";
import { isUnread, isUnseen, marked } from "../../api/web/notices.js";
import { Gateway } from "./fake_gateway.mjs";

const turn = () => new Promise((resolve) => setImmediate(resolve));

class Page { // one browser page whose clock and socket the test moves
  constructor(gateway) {
    this.gateway = gateway;
    this.timers = [];
    const timers = { setTimeout: (f) => { const t = { f }; this.timers.push(t); return t; }, clearTimeout: (t) => { this.timers = this.timers.filter((x) => x !== t); } };
    const open = () => { this.socket = gateway.socket(); return this.socket; };
    this.connection = createConnection({ url: "", token: async () => "t", open, timers, random: () => 0 });
    this.inbox = createInbox({ connection: this.connection, fetchPage: async (q) => gateway.page(q), pageSize: 4, later: timers.setTimeout });
    this.rejected = [];
    this.inbox.on("rejected", (r) => this.rejected.push(r));
    this.inbox.start();
    this.connection.start();
  }
  async connect() {
    await this.fire();
    this.socket.onopen();
    await turn();
  }
  async fire() { const due = this.timers; this.timers = []; due.forEach((t) => t.f()); await turn(); }
  serve(lose) { if (this.socket?.readyState === 1) this.gateway.serve(this.socket, lose); }
  async receive() {
    const frame = this.socket.readyState === 1 && this.socket.out.shift();
    if (frame) this.socket.onmessage({ data: JSON.stringify(frame) });
    await turn();
  }
  async drain() {
    for (let i = 0; i < 1000 && (this.socket.in.length || this.socket.out.length); i += 1) { this.serve(); await this.receive(); }
  }
  drop(code = 1006) { this.socket.readyState = 3; this.socket.subscribed = false; this.socket.onclose({ code, reason: "" }); }
  get view() { return this.inbox.state; }
  agree(whole = true) { // the view is the fold at the position
    const { position, rows, counts, pending } = this.view, at = Number(position.slice(1)), fold = this.gateway.fold(at);
    assert.equal(pending, 0);
    assert.deepEqual(counts, this.gateway.counts(at), `counts at ${position}`);
    for (const [id, row] of rows) assert.deepEqual(row, fold.get(id), `${id} at ${position}`);
    const shown = [...fold.values()].reverse().filter((n) => !n.state.archived_at).map((n) => n.id);
    if (whole) assert.deepEqual(this.view.items.map((n) => n.id), shown);
  }
}

async function started(notices = 5) {
  const gateway = new Gateway();
  for (let i = 0; i < notices; i += 1) gateway.raise();
  const page = new Page(gateway);
  await page.connect();
  await page.drain();
  assert.equal(page.view.status, "live");
  return { gateway, page };
}

test("a snapshot and the events after it make what a fresh snapshot makes", async () => {
  const { gateway, page } = await started();
  gateway.raise();
  gateway.mark("read", ["n1", "n5"]);
  gateway.mark("unread", ["n1"]);
  gateway.mark("archived", ["n2"]);
  gateway.end("n3");
  await page.drain();
  const other = new Page(gateway);
  await other.connect();
  await other.drain();
  page.agree();
  assert.deepEqual(page.view.counts, other.view.counts);
  for (const [id, row] of other.view.rows) assert.deepEqual(page.view.rows.get(id), row);
});

test("a command shows at once, and the overlay empties when the event with its cause comes", async () => {
  const { page } = await started();
  page.inbox.read("n4");
  assert.deepEqual(page.view.counts, { unread: 4, unseen: 4 });
  assert.equal(page.view.pending, 1);
  await page.drain();
  page.agree();
  assert.equal(page.view.counts.unread, 4);
});

test("a refused command rolls back and is told", async () => {
  const { gateway, page } = await started();
  gateway.refuse = () => true;
  page.inbox.archive("n4");
  assert.equal(page.view.items.length, 4);
  await page.drain();
  page.agree();
  assert.equal(page.view.items.length, 5);
  assert.equal(page.rejected[0].error.code, "forbidden");
});

test("mark-all leaves what came after the position shown unread, and undo restores exactly", async () => {
  const { gateway, page } = await started();
  gateway.mark("read", ["n0"]);
  await page.drain();
  const { undo } = page.inbox.readAll();
  assert.equal(page.view.counts.unread, 0);
  gateway.raise();
  await page.receive(); // arrives while the command is on its way
  assert.equal(page.view.counts.unread, 1);
  await page.drain();
  page.agree();
  assert.deepEqual([page.view.counts.unread, page.view.rows.get("n5").state.read_at], [1, null]);
  await undo();
  await page.drain();
  page.agree();
  assert.equal(page.view.counts.unread, 5);
  assert.ok(page.view.rows.get("n0").state.read_at);
});

test("a command whose event was lost is repeated after the reconnect and answered done", async () => {
  const { page } = await started();
  page.inbox.read("n1");
  page.serve();
  page.drop();
  assert.equal(page.view.status, "offline");
  assert.equal(page.view.pending, 1);
  await page.connect();
  await page.drain();
  page.agree();
  assert.ok(page.view.rows.get("n1").state.read_at);
});

test("a lost position begins again with a fresh snapshot", async () => {
  const { gateway, page } = await started();
  page.drop();
  gateway.raise();
  await page.connect();
  for (let i = 0; i < 10; i += 1) { page.serve(true); await page.receive(); }
  await page.drain();
  page.agree();
});

test("44xx stops and asks for a token, anything else comes back", async () => {
  const { page } = await started();
  page.drop(4502);
  assert.equal(page.view.status, "offline");
  await page.connect();
  await page.drain();
  page.drop(4401);
  assert.equal(page.view.status, "denied");
  assert.deepEqual(page.timers, []);
});

test("older pages join without changing what is newer, and each tab has its own end", async () => {
  const gateway = new Gateway();
  gateway.pageSize = 4;
  for (let i = 0; i < 11; i += 1) gateway.raise();
  const page = new Page(gateway);
  await page.connect();
  await page.drain();
  assert.equal(page.view.items.length, 4);
  await page.inbox.more();
  assert.equal(page.view.items.length, 8);
  await page.inbox.more();
  assert.deepEqual([page.view.items.length, page.view.hasMore], [11, false]);
  page.inbox.archive(["n0", "n1"]);
  await page.drain();
  page.inbox.show("archived");
  await turn();
  assert.deepEqual(page.view.items.map((n) => n.id), ["n1", "n0"]);
  page.agree(false);
});

function dice(seed) { // mulberry32: the same walk in every run
  return () => { seed = (seed + 0x6d2b79f5) | 0; let t = Math.imul(seed ^ (seed >>> 15), 1 | seed); t ^= t + Math.imul(t ^ (t >>> 7), 61 | t); return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32; };
}

async function walk(seed, pageSize) {
  const d = dice(seed), pick = (list) => list[Math.floor(d() * list.length)];
  const gateway = new Gateway();
  const refused = new Set();
  let compared = 0;
  gateway.pageSize = pageSize;
  gateway.refuse = (cmd) => { if (d() < 0.05) refused.add(cmd); return refused.has(cmd); };
  for (let i = 0; i < 6; i += 1) gateway.raise();
  const pages = [new Page(gateway), new Page(gateway)];
  for (const p of pages) await p.connect();
  for (let step = 0; step < 300; step += 1) {
    const page = pick(pages), { inbox } = page, x = d();
    const id = () => pick([...gateway.fold().keys()]);
    if (page.socket.readyState === 3) { if (x < 0.4) await page.connect(); }
    else if (x < 0.30) page.serve(d() < 0.2);
    else if (x < 0.70) await page.receive();
    else if (x < 0.74) page.drop();
    else if (x < 0.76) await inbox.more();
    else if (x < 0.77) await page.fire();
    else if (x < 0.83) gateway.raise();
    else if (x < 0.86) gateway.mark(pick(["read", "unread", "archived", "unarchived"]), [id()]);
    else if (x < 0.88) inbox.readAll();
    else if (x < 0.90) inbox.seen();
    else inbox[pick(["read", "unread", "archive", "unarchive"])](id());
    for (const p of pages) {
      const { pending, position } = p.view;
      if (pending || !position) continue;
      if (pageSize > 300) p.agree(p.view.status === "live"); else assert.deepEqual(p.view.counts, gateway.counts(Number(position.slice(1))));
      compared += 1;
    }
  }
  for (const p of pages) { if (p.socket.readyState === 3) await p.connect(); }
  for (let i = 0; i < 20; i += 1) for (const p of pages) { await p.drain(); await p.fire(); }
  for (const p of pages) { await p.drain(); p.agree(pageSize > 300); }
  return compared;
}

test("two pages, random commands, drops, refusals and lost positions: no drift", async () => {
  let compared = 0;
  for (let seed = 1; seed <= 100; seed += 1) compared += await walk(seed, seed % 2 ? 1000 : 4);
  assert.ok(compared > 2000, `${compared} comparisons`);
});

test("the members of a JSON object keep their text", () => {
  const text = '{ "a" : 1.0, "m": {"x":[1, {"y":"}\\""}]},"big":12345678901234567890 ,"s":"q\\\\" }';
  assert.deepEqual(members(text), [["a", "1.0"], ["m", '{"x":[1, {"y":"}\\""}]}'], ["big", "12345678901234567890"], ["s", '"q\\\\"']]);
  assert.equal(object(members(text)), '{"a":1.0,"m":{"x":[1, {"y":"}\\""}]},"big":12345678901234567890,"s":"q\\\\"}');
  assert.deepEqual(members("{}"), []);
  assert.throws(() => members("[1]"), TypeError);
});

test("what was snoozed comes back as unread and unseen, read or not", () => {
  const at = "2026-01-01T00:00:00.000Z", fresh = { id: "n1", state: { seen_at: null, read_at: null, archived_at: null, snoozed_until: null } };
  const asleep = marked(marked(fresh, "read", at), "snoozed", at, "2026-01-02T00:00:00.000Z");
  assert.deepEqual([isUnread(asleep), isUnseen(asleep)], [false, false]);
  const back = marked(asleep, "returned", at);
  assert.deepEqual([isUnread(back), isUnseen(back)], [true, true]);
});
