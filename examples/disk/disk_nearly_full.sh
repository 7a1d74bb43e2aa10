#!/bin/sh
# Disk nearly full: raise when a disk of a host is at metric.percent or more, resolve when all of its disks are below.
#
# An alert config for it:  {"name": "disk-nearly-full", "channel": {"inbox": ["u1"]}, "metric": {"percent": 90}}
# It looks at entities with disks:  {"name": "web-1", "disks": [{"mount": "/", "percent": 97.1}]}
#
# The whole alert is one jq program: a fold over the lines of stdin. --unbuffered matters: what is not flushed was never said.
exec jq --null-input --compact-output --unbuffered '

  # Remember a config or an entity, or forget it.
  def put($table; $line):
    if $line.op == "delete" then del(.[$table][$line.id]) else .[$table][$line.id] = $line.value end;

  # metric.percent, or 90: what people type is checked here, since a program that stumbles over it would stumble for ever.
  def limit($config): ($config.metric | objects | .percent | numbers) // 90;

  # The disks of a host that are too full for a config, the fullest first.
  def full($config; $host):
    [$host.disks | arrays[] | objects | select((.percent | numbers) >= limit($config))] | sort_by(-.percent);

  # What is new about these pairs of a config and a host: leaves it in .out and keeps .open in step.
  def check($configs; $hosts):
    . as $all
    | reduce ($configs[] as $c | $hosts[] as $h | [$c, $h]) as [$c, $h] (.;
        "\($c | @uri)/\($h)" as $key
        | (if $all.config[$c] and $all.entity[$h] then full($all.config[$c]; $all.entity[$h]) else [] end) as $full
        | if ($full | length) > 0 and (.open[$key] | not) then
            .open[$key] = true
            | .out += [{
                type: "notice", key: $key, config: $c, entity: {type: $all.kind[$h], id: $h},
                severity: (if $full[0].percent >= 98 then "error" else "warning" end),
                title: ("Disk \($full[0].mount) of \($all.entity[$h].name // $h) is \($full[0].percent)% full" | .[:300]),
                text: ($full | map("\(.mount): \(.percent)%") | join(", ")),
                data: {disks: $full}
              }]
          elif ($full | length) == 0 and .open[$key] then
            del(.open[$key])
            | .out += [{type: "resolve", key: $key}]
          else . end);

  foreach inputs as $line ({config: {}, entity: {}, kind: {}, open: {}, resumed: false};
    .out = []
    | if $line.type == "hello" then
        .open = ([$line.open[] | {(.): true}] | add // {})
        | .resumed = $line.resumed
        | .out = [{type: "hello", v: 1, wants: ["config", "entity"]}]
      else
        (if $line.type == "config" then put("config"; $line)
         elif $line.type == "entity" then put("entity"; $line) | .kind[$line.id] = $line.entity_type
         else . end)
        | (if $line.snapshot then .
           elif $line.type == "config" then check([$line.id]; .entity | keys)
           elif $line.type == "entity" then check(.config | keys; [$line.id])
           elif $line.type == "ready" and (.resumed | not) then check(.config | keys; .entity | keys)
           else . end)
        | .out += [{type: "done"}]    # only now does Tidings count what was said
      end;
    .out[])
'
