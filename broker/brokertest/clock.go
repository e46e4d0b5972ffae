package brokertest

import (
	"testing"
	"time"

	"example.com/hubbub/broker"
)

// aClockThatJumps sets the logs' clock forward and back by a day while nodes publish. Members miss nothing, and
// nothing is told as lost; who opens a room or reads it gets what is left by the new clock, and a floor that is true.
func aClockThatJumps(t *testing.T, w *world) {
	if w.Clock == nil {
		t.Skip("the clock by which these logs go can't be set apart from the machine's")
	}
	defer w.Clock(0)
	tr := &traffic{w: w, nodes: []*node{w.start(), w.start()}, rooms: []broker.Room{roomy("one"), roomy("two")}}
	visitor := w.start()
	for _, n := range tr.nodes {
		for _, r := range tr.rooms {
			n.join(r)
		}
	}
	const day = 24 * time.Hour
	for _, jump := range []struct {
		name     string
		from, to time.Duration
	}{
		{"forward", 0, day},
		{"back", day, 0},
		{"further back", 0, -day},
		{"forward again", -day, 0},
	} {
		before := map[string]broker.Position{}
		tr.run(visitor, func() {
			for _, r := range tr.rooms {
				before[r.Name] = tr.nodes[0].until(r, "before "+jump.name).at
			}
			w.Clock(jump.to)
		})
		for _, r := range tr.rooms {
			last := tr.nodes[0].until(r, "after "+jump.name)
			if last.err != nil || last.at.Epoch != before[r.Name].Epoch || last.at.Offset <= before[r.Name].Offset {
				t.Fatalf("%s: %q goes on with %+v, it was at %+v", jump.name, r.Name, last, before[r.Name])
			}
			for i, n := range tr.nodes {
				if v := n.sees(r.Name); v.lost > 0 {
					t.Errorf("%s: node %d was told %d times that messages of %q are gone", jump.name, i, v.lost, r.Name)
				}
			}
			log := visitor.read(r, 0)
			w.whole(r.Name, log.At.Epoch, log.Floor, log.Entries)
			once(t, r.Name, log.Entries)
			w.ordered(t, r.Name)
			if n := len(log.Entries); n == 0 || log.Entries[n-1].Offset != last.at.Offset {
				t.Errorf("%s: the log of %q ends before what was published last", jump.name, r.Name)
			}
			if jump.from == 0 && jump.to > 0 && log.Floor < before[r.Name].Offset {
				t.Errorf("a day later %q has what is behind %d; before it came %d", r.Name, log.Floor, before[r.Name].Offset)
			}
		}
	}
}
