"""The alert of the benchmark: every change of an entity is worth a notice."""

import json
import sys

configs: list[str] = []
for line in sys.stdin:
    m = json.loads(line)
    if m["type"] == "hello":
        print('{"type":"hello","v":1}', flush=True)
        continue
    if m["type"] == "config" and m["op"] == "set":
        configs.append(m["id"])
    if m["type"] == "entity" and not m.get("snapshot") and m["op"] == "set":
        for config in configs:
            said = {
                "type": "notice",
                "kind": "event",
                "key": f"{config}/{m['value']['n']}",
                "config": config,
                "title": str(m["value"]["n"]),
                "entity": {"type": m["entity_type"], "id": m["id"]},
            }
            print(json.dumps(said))
    print('{"type":"done"}', flush=True)
