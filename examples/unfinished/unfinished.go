// Unfinished task: raise when a task is not done at its deadline, resolve when it is done or gets a later one.
//
// An alert config for it:  {"name": "unfinished", "channel": {"inbox": ["u1"]}, "metric": {"grace_s": 60}}
// It looks at entities such as:  {"name": "nightly import", "due_at": "2026-01-01T06:00:00Z", "done": false}
//
// A deadline passes without any change of the task, so this program asks for ticks: time is an input like any other.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

type line struct {
	Type       string
	Op         string
	Now        int64
	Snapshot   bool
	Resumed    bool
	Open       []string
	EntityType string `json:"entity_type"`
	ID         string
	Value      json.RawMessage
}

type task struct {
	Kind  string    `json:"-"`
	Name  string    `json:"name"`
	DueAt time.Time `json:"due_at"`
	Done  bool      `json:"done"`
}

type object = map[string]any

var (
	graces = map[string]*time.Duration{} // config id -> how long after the deadline
	tasks  = map[string]task{}           // entity id -> the task
	open   = map[string]bool{}           // keys of the notices that are open: Tidings hands them back after a restart
)

// say is one line to Tidings. Stdout is not buffered here: a line that stays in a buffer was never said.
func say(message object) {
	text, err := json.Marshal(message)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(text, '\n'))
}

// remember keeps the newest version of a config or a task, or forgets it.
func remember(l line) {
	switch {
	case l.Type == "config" && l.Op == "delete":
		delete(graces, l.ID)
	case l.Type == "config":
		var config struct {
			Metric struct {
				Grace *float64 `json:"grace_s"`
			}
		}
		delete(graces, l.ID)
		if err := json.Unmarshal(l.Value, &config); err != nil || config.Metric.Grace == nil {
			say(object{"type": "error", "config": l.ID, "text": `metric has to be like {"grace_s": 60}`})
			return
		}
		grace := time.Duration(*config.Metric.Grace * float64(time.Second))
		graces[l.ID] = &grace
	case l.Type == "entity":
		delete(tasks, l.ID)
		found := task{Kind: l.EntityType}
		if l.Op == "set" && json.Unmarshal(l.Value, &found) == nil && !found.DueAt.IsZero() {
			tasks[l.ID] = found
		}
	}
}

// check says what is new about one pair of a config and a task.
func check(now time.Time, config, id string) {
	key := url.PathEscape(config) + "/" + id // so that the first / parts them, whatever the ids are
	t := tasks[id]
	late := !t.Done && !now.Before(t.DueAt.Add(*graces[config]))
	switch {
	case late && !open[key]:
		open[key] = true
		say(object{
			"type": "notice", "key": key, "config": config, "entity": object{"type": t.Kind, "id": id},
			"severity": "error", "title": fmt.Sprintf("%.200s is not done", t.Name),
			"text": "it was due at " + t.DueAt.UTC().Format(time.RFC3339),
		})
	case !late && open[key]:
		delete(open, key)
		say(object{"type": "resolve", "key": key})
	}
}

func main() {
	input, resumed := bufio.NewReaderSize(os.Stdin, 1<<20), false
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
		if l.Type == "hello" {
			for _, key := range l.Open {
				open[key] = true
			}
			resumed = l.Resumed
			say(object{"type": "hello", "v": 1, "tick_s": 1, "wants": []string{"config", "entity"}})
			continue
		}
		remember(l)
		quiet := l.Snapshot || (l.Type == "ready" && resumed) // the world at the start is no news after a restart
		now := time.UnixMilli(l.Now)
		for config := range graces {
			for id := range tasks {
				if !quiet && (l.Type == "tick" || l.Type == "ready" || l.ID == config || l.ID == id) {
					check(now, config, id)
				}
			}
		}
		for key := range open { // what is about something that is gone, Tidings resolves: here it is only forgotten
			config, id, _ := strings.Cut(key, "/")
			if l.Op == "delete" && (l.Type == "config" && url.PathEscape(l.ID) == config || l.Type == "entity" && l.ID == id) {
				delete(open, key)
			}
		}
		say(object{"type": "done"})
	}
}
