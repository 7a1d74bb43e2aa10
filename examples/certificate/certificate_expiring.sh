#!/bin/sh
# Certificate expiring: raise when a certificate ends within metric.days, resolve when it was renewed.
#
# An alert config for it:  {"name": "certificate-expiring", "channel": {"inbox": ["u1"]}, "metric": {"days": 14}}
# It looks at entities such as:  {"name": "www.example.test", "pem": "-----BEGIN CERTIFICATE-----\n…"}
#
# What it knows stands in files of a directory of its own: config/ID holds days, entity/ID the end (seconds since 1970),
# open/CONFIG!ID is there while a notice is open. Ids are written as in URLs, so that any id makes a file name; id/ID holds
# it as it is.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/id" "$dir/config" "$dir/entity" "$dir/kind" "$dir/name" "$dir/open"
resumed=false

# One line to Tidings, from jq's arguments.
say() { jq --null-input --compact-output "$@"; }

# The end of a certificate in seconds since 1970; nothing if it is none.
end_of() {
    text=$(printf '%s\n' "$1" | openssl x509 -noout -enddate 2>/dev/null) || return 0
    date -d "${text#notAfter=}" +%s
}

# What is new about one pair of a config and a certificate.
check() {
    days=$(cat "$dir/config/$1") end=$(cat "$dir/entity/$2") key="$dir/open/$1!$2"
    left=$(((end - now / 1000) / 86400))
    if [ $((end - now / 1000)) -lt $((days * 86400)) ]; then
        [ ! -e "$key" ] || return 0
        : >"$key"
        say --arg config "$(cat "$dir/id/$1")" --arg id "$(cat "$dir/id/$2")" --arg kind "$(cat "$dir/kind/$2")" \
            --arg name "$(cat "$dir/name/$2")" --arg until "$(date -u -d "@$end" +%Y-%m-%d)" --argjson left "$left" '
            {type: "notice", key: "\($config | @uri)/\($id)", config: $config, entity: {type: $kind, id: $id},
             severity: (if $left < 3 then "error" else "warning" end),
             title: "Certificate of \($name[:200]) ends on \($until)", data: {days: $left}}'
    elif [ -e "$key" ]; then
        rm "$key"
        say --arg config "$(cat "$dir/id/$1")" --arg id "$(cat "$dir/id/$2")" '{type: "resolve", key: "\($config | @uri)/\($id)"}'
    fi
}

while IFS= read -r line; do
    type='' op='' id='' raw='' now=0 snapshot=false news=false kind='' name='' pem='' days='' open=''
    eval "$(printf '%s\n' "$line" | jq -r '
        @sh "type=\(.type) op=\(.op // "") raw=\(.id // "") id=\(.id // "" | @uri) now=\(.now) snapshot=\(.snapshot // false)",
        @sh "kind=\(.entity_type // "") name=\(.value.name? // .id // "" | tostring) pem=\(.value.pem? // "" | tostring)",
        @sh "days=\(.value.metric?.days? | numbers | floor) ", "",
        (if .type == "hello" then @sh "resumed=\(.resumed)",
            @sh "open=\([.open[] / "/" | "\(.[0])!\(.[1:] | join("/") | @uri)"] | join(" "))" else "" end)')"
    [ -z "$id" ] || printf %s "$raw" >"$dir/id/$id"
    case $type in
    hello)
        for key in $open; do # the first "/" of a key parts config and certificate
            : >"$dir/open/$key"
        done
        say '{type: "hello", v: 1, tick_s: 21600, wants: ["config", "entity"]}'
        continue
        ;;
    config)
        rm -f "$dir/config/$id"
        if [ -n "$days" ]; then
            echo "$days" >"$dir/config/$id"
        elif [ "$op" = set ]; then
            say --arg config "$(cat "$dir/id/$id")" '{type: "error", config: $config, text: "metric has to be like {\"days\": 14}"}'
        fi
        ;;
    entity)
        rm -f "$dir/entity/$id"
        end=$(end_of "$pem")
        if [ -n "$end" ]; then
            echo "$end" >"$dir/entity/$id"
            printf %s "$kind" >"$dir/kind/$id"
            printf %s "$name" >"$dir/name/$id"
        elif [ "$op" = set ]; then
            echo "W! $name has no certificate that can be read" >&2
        fi
        ;;
    esac
    [ "$snapshot" = true ] || news=true
    [ "$type $resumed" != "ready true" ] || news=false # after a restart the world is no news
    for config in "$dir"/config/*; do
        for entity in "$dir"/entity/*; do
            [ "$news" = true ] && [ -e "$config" ] && [ -e "$entity" ] || continue
            config=${config##*/} entity=${entity##*/}
            case "$type $id" in
            "ready "* | "tick "* | "config $config" | "entity $entity") check "$config" "$entity" ;;
            esac
            config=$dir/config/$config
        done
    done
    [ "$op" != delete ] || rm -f "$dir/open/$id!"* "$dir/open/"*"!$id" # what is gone, Tidings resolves
    say '{type: "done"}'
done
