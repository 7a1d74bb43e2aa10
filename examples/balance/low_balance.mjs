// Low balance: raise when an account's balance is below `low`, or will be at its present rate within `days`; resolve
// when neither holds any more.
//
// An alert config for it:  {"name": "low-balance", "channel": {"inbox": ["u1"]}, "metric": {"low": 100, "days": 7}}
// It looks at entities such as:  {"name": "ACME", "balance": 250.5}
//
// The rate comes from the balances of the last week; they are this program's state, which Tidings keeps with each `done`.
import { createInterface } from "node:readline";

const DAY = 86_400_000;
const KEPT = 50; // balances of an account

const configs = new Map(); // config id -> {low, days}
const accounts = new Map(); // entity id -> {type, name, balance}
const open = new Set(); // keys of open notices: Tidings hands them back after a restart
let history = {}; // entity id -> [[time, balance], …], oldest first
let resumed = false;

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const isNumber = (value) => typeof value === "number";

/** Keep the newest version of a config or an account, or forget it. True if the history has changed. */
function remember(line) {
  if (line.type === "config") {
    configs.delete(line.id);
    if (line.op !== "set") return false;
    const { low, days = 0 } = line.value.metric ?? {};
    if (isNumber(low) && isNumber(days)) configs.set(line.id, { low, days });
    else say({ type: "error", config: line.id, text: 'metric has to be like {"low": 100, "days": 7}' });
  } else if (line.type === "entity") {
    if (line.op !== "set") return accounts.delete(line.id) && delete history[line.id];
    const { name = line.id, balance } = line.value;
    if (!isNumber(balance)) return false; // as if nothing had been said
    accounts.set(line.id, { type: line.entity_type, name, balance });
    if (line.snapshot && history[line.id]) return false; // the state knows it already
    const recent = (history[line.id] ?? []).filter(([at]) => at > line.now - 7 * DAY);
    history[line.id] = [...recent.slice(1 - KEPT), [line.now, balance]];
    return true;
  }
  return false;
}

/** How much an account loses a day: least squares over what is remembered; 0 while that is less than an hour. */
function lossPerDay(points) {
  const span = points.at(-1)[0] - points[0][0];
  if (span < DAY / 24) return 0;
  const mean = (index) => points.reduce((sum, point) => sum + point[index], 0) / points.length;
  const [middle, level] = [mean(0), mean(1)];
  const over = points.reduce((sum, [at, balance]) => sum + (at - middle) * (balance - level), 0);
  return (-over / points.reduce((sum, [at]) => sum + (at - middle) ** 2, 0)) * DAY;
}

/** What is new about one pair of a config and an account. */
function check(config, id) {
  const key = `${encodeURIComponent(config)}/${id}`; // so that the first / parts them, whatever the ids are
  const { low, days } = configs.get(config);
  const { type, name, balance } = accounts.get(id);
  const loss = lossPerDay(history[id]);
  const left = loss > 0 ? Math.max(0, (balance - low) / loss) : Infinity; // days
  const isLow = balance < low;
  if ((isLow || left < days) && !open.has(key)) {
    open.add(key);
    const title = isLow ? `Balance of ${name} is ${balance}` : `Balance of ${name} lasts ${Math.ceil(left)} more days`;
    const text = isLow ? `below ${low}` : `at ${Math.round(loss)} a day it is below ${low} then`;
    const severity = isLow ? "error" : "warning";
    say({ type: "notice", key, config, entity: { type, id }, severity, title: title.slice(0, 300), text, data: { balance } });
  } else if (!isLow && left >= days && open.delete(key)) {
    say({ type: "resolve", key, data: { balance } });
  }
}

for await (const text of createInterface({ input: process.stdin })) {
  const line = JSON.parse(text);
  if (line.type === "hello") {
    line.open.forEach((key) => open.add(key));
    history = line.state ?? {};
    resumed = line.resumed;
    say({ type: "hello", v: 1, wants: ["config", "entity"] });
    continue;
  }
  const changed = remember(line);
  const news = !line.snapshot && !(line.type === "ready" && resumed); // after a restart the world is no news
  for (const config of configs.keys())
    for (const id of accounts.keys())
      if (news && (line.type === "ready" || line.id === config || line.id === id)) check(config, id);
  for (const key of line.op === "delete" ? open : []) {
    const [config, ...id] = key.split("/"); // what is about something that is gone, Tidings resolves: only forget it
    if (line.id === (line.type === "config" ? decodeURIComponent(config) : id.join("/"))) open.delete(key);
  }
  say({ type: "done", ...(changed ? { state: history } : {}) });
}
