package main

import (
	"math"
	"strings"
	"testing"
)

// Fewest is the edge: so many fit, one less doesn't.
func TestFewest(t *testing.T) {
	for _, l := range []load{
		defaultLoad,
		{Connections: 1000, RoomsOfClient: 1, RoomSize: 10, Publishes: 10, Bytes: 100, Pings: 25},
		{Connections: 1e6, RoomsOfClient: 1, RoomSize: 1e6, Publishes: 10, Bytes: 100, Pings: 10, History: true},
		{Connections: 2e6, RoomsOfClient: 10, RoomSize: 2, Publishes: 300_000, Bytes: 1000, Pings: 25, History: true, Connects: 1000},
	} {
		n := fewest(l, defaultMachine)
		if !use(l, n).fits(defaultMachine) {
			t.Errorf("%+v: %v nodes don't do", l, n)
		}
		if n > 1 && use(l, n-1).fits(defaultMachine) {
			t.Errorf("%+v: %v nodes do, not only %v", l, n-1, n)
		}
	}
}

// A room whose members all are on one node loads no other.
func TestSpread(t *testing.T) {
	if u := use(load{Connections: 100, RoomsOfClient: 1, RoomSize: 1, Publishes: 1000, Bytes: 100, Pings: 25}, 10); math.Abs(u.spread-1) > 1e-9 || u.brought > 1e-6 {
		t.Errorf("a room of one is on %v nodes, and %v messages are brought", u.spread, u.brought)
	}
	if u := use(load{Connections: 1e6, RoomsOfClient: 1, RoomSize: 1e6, Publishes: 1, Bytes: 100, Pings: 25}, 10); math.Abs(u.spread-10) > 1e-6 {
		t.Errorf("a room of a million is on %v of ten nodes", u.spread)
	}
}

func TestReport(t *testing.T) {
	got := report(defaultLoad, defaultMachine, 12)
	for _, want := range []string{"12 nodes of 8 cores", "processors", "cores of all NATS servers", "at its bound first: "} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q:\n%s", want, got)
		}
	}
}

func TestCheck(t *testing.T) {
	bad := defaultLoad
	bad.RoomSize = 0
	if err := check(bad, defaultMachine, 0, nil); err == nil || !strings.Contains(err.Error(), "-room-size is 0") {
		t.Errorf("a room of nobody: %v", err)
	}
	bad.RoomSize = math.NaN()
	if check(bad, defaultMachine, 0, nil) == nil || check(defaultLoad, machine{8, 8, 8, 1.5}, 0, nil) == nil || check(defaultLoad, defaultMachine, 0, []string{"x"}) == nil {
		t.Error("nonsense is taken")
	}
}

// The cost of storing a message is what was measured where it was, and falls in between.
func TestLogCost(t *testing.T) {
	for _, m := range stored {
		if got := logCost(m.rate); math.Abs(got-m.time) > 1e-12 {
			t.Errorf("%v a second: %v, %v was measured", m.rate, got, m.time)
		}
	}
	last := logCost(1)
	for rate := 1.; rate < 1e6; rate *= 1.3 {
		if now := logCost(rate); now > last {
			t.Errorf("it grows at %v a second", rate)
		} else {
			last = now
		}
	}
}

// What the run of 90,000 connections on five nodes took, the model says too.
func TestTheRunOf90000(t *testing.T) {
	l := load{Connections: 90_000, RoomsOfClient: 1, RoomSize: 90_000, Publishes: 1, Bytes: 200, Pings: 1e9, History: true}
	u := use(l, 5)
	if each := 1e6 * u.cpu * 5 / 90_000; each < 7 || each > 12 {
		t.Errorf("%.1f us a delivery, 9.1 were measured", each)
	}
	if u.spread < 4.99 || u.connections != 18_000 {
		t.Errorf("the room is on %v nodes of %v clients", u.spread, u.connections)
	}
}

// What idle connections took on 13 servers by themselves, the model says too.
func TestTheRunOf247000(t *testing.T) {
	u := use(load{Connections: 247_000, RoomSize: 1, Bytes: 200, Pings: 25}, 13)
	if busy := 13 * u.cpu; busy < 0.07 || busy > 0.11 {
		t.Errorf("pings take %.3f of a core, 0.085 were measured", busy)
	}
	if each := u.memory / u.connections; each < 4500 || each > 6000 {
		t.Errorf("%.0f bytes a connection, some 5,300 were measured", each)
	}
	if short := use(load{Connections: 247_000, RoomSize: 1, Bytes: 200, Pings: 10}, 13); short.cpu < 2*u.cpu {
		t.Errorf("pings every 10 s take %.3f of a core, and every 25 s %.3f", 13*short.cpu, 13*u.cpu)
	}
}
