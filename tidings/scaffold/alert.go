// Raises a notice while a field of an entity is above `high`; replace `check` by what your alert is about.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

type line struct {
	Type       string
	Op         string
	Snapshot   bool
	Open       []string
	EntityType string `json:"entity_type"`
	ID         string
	Value      object
}

type object = map[string]any

type name struct{ kind, id string }

var (
	limits   = map[string]object{} // config id -> its metric
	entities = map[name]object{}   // the entities
	open     = map[string]bool{}   // keys of the notices that are open: Tidings hands them back after a restart
)

// say is one line to Tidings. Stdout is not buffered here: a line that stays in a buffer was never said.
func say(message object) {
	text, err := json.Marshal(message)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(text, '\n'))
}

// check says what is new about one pair of a config and an entity, and returns its key.
func check(config string, entity name) string {
	key := config + "/" + entity.kind + "/" + entity.id
	field, _ := limits[config]["field"].(string)
	high, wanted := limits[config]["high"].(float64)
	value, known := entities[entity][field].(float64)
	over := wanted && known && value > high
	switch {
	case over && !open[key]:
		open[key] = true
		say(object{
			"type": "notice", "key": key, "config": config, "severity": "warning",
			"entity": object{"type": entity.kind, "id": entity.id},
			"title":  fmt.Sprintf("%s of %s is %v", field, entity.id, value),
		})
	case !over && open[key]:
		delete(open, key)
		say(object{"type": "resolve", "key": key})
	}
	return key
}

func main() {
	input := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		text, err := input.ReadBytes('\n')
		if err != nil {
			return // the end of its input is how Tidings says goodbye
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			fmt.Fprintln(os.Stderr, "E! a line that is none:", err)
			os.Exit(1)
		}
		switch l.Type {
		case "hello":
			for _, key := range l.Open {
				open[key] = true
			}
			say(object{"type": "hello", "v": 1, "wants": []string{"config", "entity"}})
			continue
		case "config":
			delete(limits, l.ID)
			if l.Op == "set" {
				limits[l.ID], _ = l.Value["metric"].(object)
			}
		case "entity":
			delete(entities, name{l.EntityType, l.ID})
			if l.Op == "set" {
				entities[name{l.EntityType, l.ID}] = l.Value
			}
		}
		if !l.Snapshot { // the world at the start is only remembered, until `ready`
			known := map[string]bool{}
			for config := range limits {
				for entity := range entities {
					known[check(config, entity)] = true
				}
			}
			for key := range open {
				if !known[key] { // what is gone, Tidings resolves
					delete(open, key)
				}
			}
		}
		say(object{"type": "done"}) // only now does Tidings count what was said
	}
}
