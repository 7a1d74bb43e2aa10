// What happens to one notice: the browser's twin of the server's fold. Pure functions over frozen rows; the same rules serve
// the events of the log and the commands that still wait for theirs, so an optimistic view can't differ in kind from a real one.

const CHANGES = {
  seen: (s, at) => ({ ...s, seen_at: s.seen_at ?? at }),
  read: (s, at) => ({ ...s, read_at: s.read_at ?? at, seen_at: s.seen_at ?? at }), // read implies seen
  unread: (s) => ({ ...s, read_at: null }),
  archived: (s, at) => ({ ...s, archived_at: s.archived_at ?? at, seen_at: s.seen_at ?? at }),
  unarchived: (s) => ({ ...s, archived_at: null }),
  snoozed: (s, _at, until) => ({ ...s, snoozed_until: until ?? null }),
  returned: (s) => ({ ...s, snoozed_until: null, read_at: null, seen_at: null }), // it comes back as new
};

/** Whether a forward still waits for its time. */
export const waits = (forward) => [undefined, null, "", "waiting", "pending", "postponed"].includes(forward.outcome);

/** The first read, archived or end stops every forward that waits, for good: `unread` does not arm it again. */
function stopped(notice, reason) {
  const forwards = notice.forwards?.map((f) => (waits(f) ? { ...f, outcome: "skipped", reason } : f));
  return forwards ? { ...notice, forwards } : notice;
}
export const ended = (notice, at) => ({ ...stopped(notice, "ended"), ended_at: notice.ended_at ?? at });

/** The notice after a mark `as` made at `at` (RFC 3339); an unknown mark changes nothing, so that a newer server does no harm. */
export function marked(notice, as, at, until) {
  const change = CHANGES[as];
  if (!change) return notice;
  const next = { ...notice, state: change(notice.state ?? {}, at, until) };
  return ["read", "archived"].includes(as) ? stopped(next, as) : next;
}

const present = (n) => !n.state?.archived_at && !n.state?.snoozed_until;
export const isUnread = (n) => present(n) && !n.state?.read_at;
export const isUnseen = (n) => present(n) && !n.state?.seen_at;

export const TABS = {
  all: { state: undefined, holds: present },
  unread: { state: "unread", holds: isUnread },
  archived: { state: "archived", holds: (n) => Boolean(n.state?.archived_at) },
};

/** Milliseconds of the raise; text can't be compared, because "…05Z" and "…05.1Z" sort the wrong way round. */
export const raisedAt = (n) => Date.parse(n.raised_at) || 0;
export const newestFirst = (a, b) => raisedAt(b) - raisedAt(a) || (a.id < b.id ? 1 : -1);

/** Unread and unseen after a command over rows of which only those in `covered` are touched: the change, not the sum. */
export function difference(before, after) {
  return { unread: isUnread(after) - isUnread(before), unseen: isUnseen(after) - isUnseen(before) };
}
