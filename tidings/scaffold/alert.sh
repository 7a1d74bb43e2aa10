#!/bin/sh
# Raises a notice while a field of an entity is above `high`; replace `check` by what your alert is about.
#
# The whole alert is one jq program: a fold over the lines of stdin. --unbuffered matters: what is not flushed was never
# said.
exec jq --null-input --compact-output --unbuffered '

  # What is new about one pair of a config and an entity.
  def check($config; $name):
    "\($config)/\($name)" as $key
    | (.limits[$config] | objects) as {$field, $high}
    | .entities[$name] as {$type, $id, $body}
    | ($body[$field // ""]? | numbers) as $value
    | if $value > $high and (.open[$key] | not) then
        .open[$key] = true
        | .out += [{type: "notice", key: $key, config: $config, entity: {$type, $id},
                    title: "\($field) of \($id) is \($value)", severity: "warning"}]
      elif $value <= $high and .open[$key] then
        del(.open[$key]) | .out += [{type: "resolve", key: $key}]
      else . end;

  foreach inputs as $line ({limits: {}, entities: {}, open: {}};
    .out = []
    | if $line.type == "hello" then
        .open = ([$line.open[] | {(.): true}] | add // {})
        | .out = [{type: "hello", v: 1, wants: ["config", "entity"]}]
      else
        "\($line.entity_type)/\($line.id)" as $name
        | if $line.type == "config" then
            if $line.op == "set" then .limits[$line.id] = $line.value.metric else del(.limits[$line.id]) end
          elif $line.type == "entity" then
            if $line.op == "set" then .entities[$name] = {type: $line.entity_type, id: $line.id, body: $line.value}
            else del(.entities[$name]) end
          else . end
        | if $line.snapshot then .    # the world at the start is only remembered, until `ready`
          else reduce ((.limits | keys[]) as $c | (.entities | keys[]) as $e | [$c, $e]) as [$c, $e] (.; check($c; $e) // .)
            | [(.limits | keys[]) + "/" + (.entities | keys[])] as $known
            | .open |= with_entries(select(.key | IN($known[])))    # what is gone, Tidings resolves
          end
        | .out += [{type: "done"}]    # only now does Tidings count what was said
      end;
    .out[])
'
