// Times for people: the wire has UTC, the reader's browser knows language and zone. Relative times grow old, so each lives in a
// <time> that one ticking clock rewrites; its title says the exact time.
import { h, say } from "./dom.js";

const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "narrow" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const short = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const dayShort = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const STEPS = [["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];

export function ago(at, now = Date.now()) {
  const seconds = (Date.parse(at) - now) / 1000;
  if (!Number.isFinite(seconds)) return "";
  if (Math.abs(seconds) < 5) return "now";
  const [unit, size] = STEPS.find(([, s]) => Math.abs(seconds) >= s) ?? STEPS.at(-1);
  return relative.format(Math.round(seconds / size), unit);
}

/** "12:05" today, "3 May, 12:05" else. */
export function clock(at) {
  const date = new Date(at);
  return (date.toDateString() === new Date().toDateString() ? short : dayShort).format(date);
}

/** "in 30 s", "in 4 min": for what is still to come. */
export function until(at, now = Date.now()) {
  const seconds = Math.ceil((Date.parse(at) - now) / 1000);
  if (seconds <= 0) return "";
  return seconds < 120 ? `in ${seconds} s` : seconds < 7200 ? `in ${Math.round(seconds / 60)} min` : `at ${clock(at)}`;
}

export function time(at, extra = "") {
  const element = h("time", { class: `ago ${extra}` });
  retime(element, at);
  return element;
}
export function retime(element, at) {
  if (element.dateTime === at || !at) return;
  element.dateTime = at;
  element.title = exact.format(new Date(at));
  say(element, ago(at));
}

const tickers = new Set([() => document.querySelectorAll("time.ago").forEach((t) => say(t, ago(t.dateTime)))]);
/** Calls `f` once a second while the page is seen. */
export const everySecond = (f) => tickers.add(f);
setInterval(() => { if (!document.hidden) tickers.forEach((f) => f()); }, 1000);
