// One WebSocket to the gateway for the whole page. It authenticates with its first frame, keeps each subscription's position and
// resumes from it, and never gives up: every end but a 44xx (fix something first) is followed by another try, 1 to 60 s away with
// full jitter, or at once when the network or the tab comes back.

const FIRST_WAIT = 1_000, LONGEST_WAIT = 60_000; // ms
const STEADY = 10_000, QUIET = 25_000, ANSWER_WITHIN = 10_000; // ms: a socket that slept with the machine looks open and is dead

export class ProtocolError extends Error {
  constructor({ code = "unknown", message = code, retry = false }) { super(message); this.code = code; this.retry = retry; }
}
const lost = () => new ProtocolError({ code: "connection_lost", message: "The connection was lost.", retry: true });

/**
 * @param token  async () → the JWT; asked for at every connect
 * @returns start, stop, wake, request(body) → ok or ProtocolError, onStatus(f), and subscribe(channel, {answer, push, error}, options):
 *          `answer` gets a whole snapshot or resume answer, never a part. Status: connecting, live, catching-up, offline, denied
 */
export function createConnection({ url, token, open = (u) => new WebSocket(u), timers = globalThis, random = Math.random }) {
  let socket = null, status = "offline", stopped = true, attempt = 0, retry = null, pulse = null, lastId = 1, signedIn = Infinity;
  const waiting = new Map(), subscriptions = new Map(), watchers = new Set();

  function become(next, reason) {
    if (next === status) return;
    status = next;
    watchers.forEach((f) => f(status, reason));
  }
  const ready = () => socket?.readyState === 1 && (status === "live" || status === "catching-up");
  const caughtUp = () => become([...subscriptions.values()].every((s) => s.answered) ? "live" : "catching-up");

  async function connect() {
    timers.clearTimeout(retry);
    retry = null;
    if (stopped || socket) return;
    become("connecting");
    const mine = socket = open(url);
    mine.onopen = async () => {
      const jwt = await token();
      if (socket === mine) ask({ auth: { token: jwt } }, { ok: authenticated, error: refused });
    };
    mine.onmessage = (m) => { if (socket === mine) receive(m.data); };
    mine.onclose = (e) => { if (socket === mine) closed(e.code, e.reason); };
  }
  function authenticated() {
    signedIn = Date.now();
    caughtUp();
    subscriptions.forEach(ask_for);
  }
  function refused(problem) {
    if (problem.code === "connection_lost") return; // `closed` is at work already
    closed(problem.retry ? 4503 : 4401, problem.message);
  }
  function closed(code, reason) {
    const old = socket;
    socket = null;
    timers.clearTimeout(pulse);
    old?.close();
    subscriptions.forEach((s) => { s.answered = false; s.parts = []; });
    const asked = [...waiting.values()];
    waiting.clear();
    asked.forEach((w) => w.error(lost()));
    if (Date.now() - signedIn > STEADY) attempt = 0; // one that breaks off at once again must not be hammered
    signedIn = Infinity;
    if (code >= 4400 && code < 4500) {
      stopped = true;
      return become("denied", reason || "The gateway asks for another sign-in.");
    }
    if (stopped) return become("offline");
    become("offline", reason);
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.min(attempt++, 6));
    retry = timers.setTimeout(connect, random() * wait);
  }

  function ask(body, { ok, error }) {
    const id = lastId++;
    waiting.set(id, { ok, error });
    socket.send(JSON.stringify({ id, ...body }));
    return id;
  }
  function beat() {
    timers.clearTimeout(pulse);
    pulse = timers.setTimeout(probe, QUIET);
  }
  function probe() {
    if (!ready()) return;
    const mine = socket, dead = timers.setTimeout(() => { if (socket === mine) closed(1006, "no answer"); }, ANSWER_WITHIN);
    const alive = () => timers.clearTimeout(dead);
    ask({ ping: {} }, { ok: alive, error: alive });
  }
  function receive(text) {
    const frame = JSON.parse(text);
    beat();
    if (frame.id !== undefined) {
      const w = waiting.get(frame.id);
      if (!w) return;
      if (!frame.ok?.more) waiting.delete(frame.id);
      if (frame.error) w.error(new ProtocolError(frame.error)); else w.ok(frame.ok ?? {});
      return;
    }
    const s = subscriptions.get(frame.channel);
    if (!s?.answered) return; // of a subscription that is over
    if (frame.error) return failed(s, new ProtocolError(frame.error));
    s.handlers.push(frame);
    s.position = frame.position ?? s.position;
  }

  // ---- subscriptions
  function ask_for(s) {
    s.parts = [];
    const since = s.position ? { since: s.position } : {};
    ask({ subscribe: { channel: s.channel, ...s.options, ...since } }, { ok: (ok) => part(s, ok), error: (e) => failed(s, e) });
  }
  function part(s, ok) { // applied whole: what breaks off halfway is asked for again
    if (subscriptions.get(s.channel) !== s) return;
    s.parts.push(...(ok.snapshot ?? []));
    if (ok.more) return;
    s.answered = true;
    s.handlers.answer({ ...ok, snapshot: s.parts });
    s.parts = [];
    s.position = ok.position ?? s.position;
    caughtUp();
  }
  function failed(s, problem) {
    if (problem.code === "connection_lost" || subscriptions.get(s.channel) !== s) return;
    if (problem.code === "position_lost") {
      s.position = null;
      s.answered = false;
      caughtUp();
      return ask_for(s);
    }
    if (problem.retry) return closed(4503, problem.message);
    s.answered = true; // refused for good: it holds up nobody
    s.handlers.error?.(problem);
    caughtUp();
  }

  /** Something changed outside (network, tab): try now, or look whether the socket is still alive. */
  function wake() {
    if (stopped) return;
    if (ready()) return probe();
    if (retry) { attempt = 0; connect(); }
  }
  return {
    start() { stopped = false; connect(); },
    stop() { stopped = true; timers.clearTimeout(retry); if (socket) closed(1000); },
    wake,
    onStatus(f) { watchers.add(f); f(status); return () => watchers.delete(f); },
    request(body) {
      return new Promise((ok, error) => { if (ready()) ask(body, { ok, error }); else error(lost()); });
    },
    subscribe(channel, handlers, options = {}) {
      const s = { channel, handlers, options, position: null, answered: false, parts: [] };
      subscriptions.set(channel, s);
      if (ready()) { caughtUp(); ask_for(s); }
      return {
        unsubscribe() {
          if (subscriptions.get(channel) !== s) return;
          subscriptions.delete(channel);
          if (ready()) { ask({ unsubscribe: { channel } }, { ok() {}, error() {} }); caughtUp(); }
        },
      };
    },
  };
}
