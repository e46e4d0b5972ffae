package model

import (
	"strings"
	"testing"
	"time"
)

// lobby is a run in a room that tells who is in it; its clock moves by a second with each event.
type lobby struct {
	*run
}

const day = 24 * time.Hour

func (l *lobby) say(name string, e Event) {
	e.Room = "lobby"
	if e.Kind == Closed {
		e.Room = ""
	}
	e.Time = time.Unix(0, 0).Add(time.Duration(l.at) * time.Second)
	l.add(name, e)
}

func (l *lobby) join(name string, data string) {
	id := l.id()
	l.say(name, Event{Kind: JoinSent, ID: id, Data: data})
	l.say(name, Event{Kind: Joined, ID: id})
}

func (l *lobby) leave(name string) {
	id := l.id()
	l.say(name, Event{Kind: LeaveSent, ID: id})
	l.say(name, Event{Kind: Left, ID: id})
}

func (l *lobby) members(names ...string) (all []Member) {
	for _, n := range names {
		name, data, _ := strings.Cut(n, "=")
		all = append(all, Member{Client: "id of " + name, Data: data})
	}
	return all
}

func (l *lobby) ask(name string, count int, names ...string) {
	id := l.id()
	l.say(name, Event{Kind: Asked, ID: id})
	l.say(name, Event{Kind: Present, ID: id, Count: count, Members: l.members(names...)})
}

func (l *lobby) came(name string, count int, names ...string) {
	l.say(name, Event{Kind: Came, Count: count, Members: l.members(names...)})
}

func (l *lobby) went(name string, count int, names ...string) {
	l.say(name, Event{Kind: Went, Count: count, Members: l.members(names...)})
}

// back is dan's connection after one that was lost, which resumes its session with that room.
func (l *lobby) back(room string) {
	l.logs["dan again"].Client = "id of dan"
	id := l.id()
	l.add("dan again", Event{Kind: JoinSent, Room: room, ID: id, Time: time.Unix(l.at, 0)})
	l.add("dan again", Event{Kind: Asked, ID: id, Time: time.Unix(l.at, 0)})
	l.add("dan again", Event{Kind: Joined, Room: room, ID: id, Time: time.Unix(l.at, 0)})
	l.add("dan again", Event{Kind: Answered, ID: id, Time: time.Unix(l.at, 0)})
}

// In each story ann is in the room, has asked who is there, and hears the news.
func TestWhatIsToldOfMembers(t *testing.T) {
	for _, story := range []struct {
		name string
		tell func(l *lobby)
		want string // how often something is mistold, to whom
	}{
		{"somebody comes and goes", func(l *lobby) {
			l.join("bob", "1")
			l.came("ann", 2, "bob=1")
			l.leave("bob")
			l.went("ann", 1, "bob")
		}, ""},
		{"who comes is not told", func(l *lobby) { l.join("bob", "") }, "ann"},
		{"who comes is told with other data", func(l *lobby) {
			l.join("bob", "1")
			l.came("ann", 2, "bob=2")
		}, "ann"},
		{"who leaves is not told", func(l *lobby) {
			l.join("bob", "")
			l.came("ann", 2, "bob")
			l.leave("bob")
		}, "ann ann"}, // nor is the count right
		{"one comes who never joined", func(l *lobby) {
			l.came("ann", 1, "bob")
			l.went("ann", 1, "bob")
		}, "ann ann"},
		{"one comes twice", func(l *lobby) {
			l.join("bob", "")
			l.came("ann", 2, "bob")
			l.leave("bob")
			l.join("bob", "")
			l.came("ann", 2, "bob")
		}, "ann"},
		{"with other data it may come twice", func(l *lobby) {
			l.join("bob", "1")
			l.came("ann", 2, "bob=1")
			l.leave("bob")
			l.join("bob", "2")
			l.came("ann", 2, "bob=2")
		}, ""},
		{"one goes twice", func(l *lobby) {
			l.join("bob", "")
			l.came("ann", 2, "bob")
			l.leave("bob")
			l.went("ann", 1, "bob")
			l.join("bob", "")
			l.leave("bob")
			l.went("ann", 1, "bob")
		}, "ann"},
		{"one goes who is back in time", func(l *lobby) {
			l.join("dan", "1")
			l.came("ann", 2, "dan=1")
			l.say("dan", Event{Kind: Closed})
			l.went("ann", 1, "dan")
			l.back("lobby")
			l.came("ann", 2, "dan=1")
		}, "ann"},
		{"one stays who is back in time", func(l *lobby) {
			l.join("dan", "1")
			l.came("ann", 2, "dan=1")
			l.say("dan", Event{Kind: Closed})
			l.back("lobby")
		}, ""},
		{"one goes who is back and doesn't name the room", func(l *lobby) {
			l.join("dan", "1")
			l.came("ann", 2, "dan=1")
			l.say("dan", Event{Kind: Closed})
			l.back("attic")
			l.went("ann", 1, "dan")
		}, ""},
		{"one goes who doesn't come back", func(l *lobby) {
			l.join("dan", "1")
			l.came("ann", 2, "dan=1")
			l.say("dan", Event{Kind: Closed})
			l.at += 3600
			l.went("ann", 1, "dan")
		}, ""},
		{"one stays who doesn't come back", func(l *lobby) {
			l.join("dan", "1")
			l.came("ann", 2, "dan=1")
			l.say("dan", Event{Kind: Closed})
		}, "ann ann"},
		{"news to one who is gone", func(l *lobby) {
			l.join("bob", "")
			l.came("ann", 2, "bob")
			l.join("cat", "")
			l.came("ann", 3, "cat")
			l.leave("cat")
			l.went("cat", 2, "cat")
			l.went("ann", 2, "cat")
		}, "cat"},
		{"an answer without one who is there", func(l *lobby) {
			l.join("bob", "")
			l.came("ann", 2, "bob")
			l.ask("cat", 1, "ann")
		}, "cat cat"},
		{"an answer with one who isn't", func(l *lobby) {
			l.join("bob", "")
			l.leave("bob")
			l.ask("cat", 2, "ann", "bob")
		}, "cat cat"},
		{"an answer with one who may be back", func(l *lobby) {
			l.join("dan", "")
			l.came("ann", 2, "dan")
			l.say("dan", Event{Kind: Closed})
			l.ask("cat", 2, "ann", "dan")
			l.ask("cat", 1, "ann")
			l.at += 3600
			l.went("ann", 1, "dan")
		}, ""},
		{"a wrong count, where only that is told", func(l *lobby) {
			l.policy.Presence = "count"
			l.join("bob", "")
			l.ask("cat", 3)
			l.ask("cat", 2)
		}, "cat"},
		{"news where none are told", func(l *lobby) {
			l.policy.Presence = "count"
			l.join("bob", "")
			l.came("ann", 2, "bob")
		}, "ann"},
		{"news after a gap are of no use until one asks", func(l *lobby) {
			l.join("bob", "")
			l.say("ann", Event{Kind: Gap, Count: 1, Reason: "drop-oldest"})
			l.ask("cat", 2, "ann", "bob")
		}, ""},
		{"but then they are", func(l *lobby) {
			l.join("bob", "")
			l.say("ann", Event{Kind: Gap, Count: 1, Reason: "drop-oldest"})
			l.ask("ann", 2, "ann", "bob")
			l.leave("bob")
		}, "ann"},
	} {
		t.Run(story.name, func(t *testing.T) {
			l := &lobby{run: newRun(false, "ann", "bob", "cat", "dan", "dan again")}
			l.policy = Policy{Presence: "full"}
			l.join("ann", "")
			l.ask("ann", 1, "ann")
			story.tell(l)
			faults := Check(Run{Logs: l.order, Policy: func(string) Policy { return l.policy }, Now: time.Unix(0, 0).Add(day), Window: time.Minute})
			var got []string
			for _, f := range faults {
				if f.Kind == Mistold || f.Kind == Misdelivered {
					got = append(got, f.Client)
				}
			}
			if strings.Join(got, " ") != story.want || len(got) != len(faults) {
				t.Errorf("mistold are %q, want %q: %v", got, story.want, faults)
			}
		})
	}
}
