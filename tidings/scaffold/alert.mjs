// Raises a notice while a field of an entity is above `high`; replace `check` by what your alert is about.
import { createInterface } from "node:readline";

const limits = new Map(); // config id -> its metric
const entities = new Map(); // type/id -> the entity
const open = new Set(); // keys of the notices that are open: Tidings hands them back after a restart

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

/** Say what is new about one pair of a config and an entity. */
function check(config, name) {
  const key = `${config}/${name}`;
  const { field, high } = limits.get(config);
  const { type, id, body } = entities.get(name);
  const value = body[field];
  const over = typeof value === "number" && typeof high === "number" && value > high;
  if (over && !open.has(key)) {
    open.add(key);
    say({ type: "notice", key, config, entity: { type, id }, title: `${field} of ${id} is ${value}`, severity: "warning" });
  } else if (!over && open.delete(key)) {
    say({ type: "resolve", key });
  }
}

for await (const text of createInterface({ input: process.stdin })) {
  const line = JSON.parse(text);
  if (line.type === "hello") {
    line.open.forEach((key) => open.add(key));
    say({ type: "hello", v: 1, wants: ["config", "entity"] });
    continue;
  }
  if (line.type === "config") {
    limits.delete(line.id);
    if (line.op === "set") limits.set(line.id, line.value.metric ?? {});
  } else if (line.type === "entity") {
    const name = `${line.entity_type}/${line.id}`;
    entities.delete(name);
    if (line.op === "set") entities.set(name, { type: line.entity_type, id: line.id, body: line.value });
  }
  if (!line.snapshot) { // the world at the start is only remembered, until `ready`
    const known = new Set();
    for (const config of limits.keys()) for (const name of entities.keys()) {
      check(config, name);
      known.add(`${config}/${name}`);
    }
    for (const key of open) if (!known.has(key)) open.delete(key); // what is gone, Tidings resolves
  }
  say({ type: "done" }); // only now does Tidings count what was said
}
