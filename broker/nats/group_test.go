package nats

import (
	"bytes"
	"slices"
	"testing"

	client "github.com/nats-io/nats.go"

	"example.com/hubbub/broker"
)

func groupOf(room string, bodies ...string) []byte {
	var messages []pending
	for _, body := range bodies {
		messages = append(messages, pending{Message: broker.Message{Body: []byte(body)}})
	}
	return appendGroup(nil, room, messages)
}

func TestGroup(t *testing.T) {
	want := []string{"one", "", "three"}
	bodies, err := parseGroup("room", groupOf("room", want...))
	var got []string
	for _, b := range bodies {
		got = append(got, string(b))
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	whole := groupOf("room", "one")
	for _, b := range [][]byte{nil, {}, {2}, whole[:3], whole[:len(whole)-1], groupOf("room"), groupOf("another", "one"),
		groupOf("room", slices.Repeat([]string{"m"}, maxGroup+1)...), append(slices.Clone(whole), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)} {
		if bodies, err := parseGroup("room", b); err == nil {
			t.Errorf("%x is taken: %q", b, bodies)
		}
	}
}

// Whatever stands in a stream, it is a group or it isn't one: each body lies in what was received, and what was taken is
// what appendGroup makes.
func FuzzParseGroup(f *testing.F) {
	f.Add("room", groupOf("room", "one", "", "three"))
	f.Add("", groupOf("", "m"))
	f.Add("room", []byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add("room", groupOf("room", slices.Repeat([]string{"m"}, maxGroup+1)...))
	f.Fuzz(func(t *testing.T, room string, b []byte) {
		bodies, err := parseGroup(room, b)
		if err != nil {
			return
		}
		if len(bodies) == 0 || len(bodies) > maxGroup {
			t.Fatalf("%d bodies", len(bodies))
		}
		var messages []pending
		for _, body := range bodies {
			messages = append(messages, pending{Message: broker.Message{Body: body}})
		}
		made := appendGroup(nil, room, messages)
		again, err := parseGroup(room, made)
		if err != nil || len(made) > len(b) { // a length may be written in more bytes than it needs
			t.Fatalf("%x is made of what was read of %x: %v", made, b, err)
		}
		for i := range bodies {
			if !bytes.Equal(again[i], bodies[i]) {
				t.Fatalf("body %d is %x and was %x", i, again[i], bodies[i])
			}
		}
	})
}

// Whatever a server says of a message, an offset that is taken fits into what clients can count.
func FuzzReadGroup(f *testing.F) {
	f.Add("12", "11", "2026-01-02T03:04:05.678Z", groupOf("room", "m"))
	f.Add("18446744073709551615", "", "", []byte{})
	f.Add("140737488355327", "-1", "2026-01-02T03:04:05Z", groupOf("room", "m"))
	f.Add("0", "0", "0001-01-01T00:00:00Z", groupOf("room", "m", "n"))
	f.Fuzz(func(t *testing.T, seq, before, at string, b []byte) {
		m := &client.Msg{Header: client.Header{"Nats-Sequence": {seq}, "Nats-Last-Sequence": {before}, "Nats-Time-Stamp": {at}}, Data: b}
		g, err := readGroup("room", m)
		if err == nil && (g.seq == 0 || len(g.bodies) == 0) {
			t.Fatalf("%+v is a group", g)
		}
		var last uint64
		for _, e := range g.entries(nil) {
			if e.Offset <= last || e.Offset >= 1<<53 || e.Offset > g.last() {
				t.Fatalf("offset %d behind %d, of a group up to %d", e.Offset, last, g.last())
			}
			last = e.Offset
		}
	})
}

func TestVersions(t *testing.T) {
	for version, old := range map[string]bool{"2.10.29": true, "1.9.0": true, "2.11.0": false, "2.15.3": false, "2.12.0-RC.1": false, "3.0.0": false, "": false} {
		if tooOld(version) != old {
			t.Errorf("%q is too old: %v", version, !old)
		}
	}
}
