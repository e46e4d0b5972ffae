// Command scale says what a load takes, from what was measured of its parts: how many nodes, what of them is used, what
// NATS has to do, and what breaks first. docs/scaling.md has an example, and where each cost comes from.
//
//	go run ./bench/scale -connections 10000000 -publishes 5000
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
)

func main() {
	l, m := defaultLoad, defaultMachine
	flag.Float64Var(&l.Connections, "connections", l.Connections, "clients that are connected")
	flag.Float64Var(&l.RoomsOfClient, "rooms-per-client", l.RoomsOfClient, "rooms that each of them is in")
	flag.Float64Var(&l.RoomSize, "room-size", l.RoomSize, "members of a room")
	flag.Float64Var(&l.Publishes, "publishes", l.Publishes, "messages published a second, in all rooms together")
	flag.Float64Var(&l.Bytes, "bytes", l.Bytes, "bytes of a message")
	flag.BoolVar(&l.History, "history", l.History, "rooms keep a history, with three replicas")
	flag.Float64Var(&l.Connects, "connects", l.Connects, "clients that connect a second: a deploy, or a morning")
	flag.Float64Var(&l.Pings, "ping-interval", l.Pings, "seconds between two pings of a connection")
	flag.Float64Var(&m.Cores, "cores", m.Cores, "processors of a node")
	flag.Float64Var(&m.Memory, "memory", m.Memory, "GiB of a node")
	flag.Float64Var(&m.Network, "network", m.Network, "Gbit/s of a node")
	flag.Float64Var(&m.Use, "use", m.Use, "how much of all that may be used when nothing is wrong")
	nodes := flag.Float64("nodes", 0, "so many nodes (default: as few as do)")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "Says what a load takes, from what was measured of its parts.\n\nUsage: go run ./bench/scale [flags]\n\nFlags:")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := check(l, m, *nodes, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if *nodes == 0 {
		*nodes = fewest(l, m)
	}
	fmt.Print(report(l, m, *nodes))
}

func check(l load, m machine, nodes float64, rest []string) error {
	for _, v := range []struct {
		name     string
		is, from float64
	}{
		{"connections", l.Connections, 1}, {"rooms-per-client", l.RoomsOfClient, 0}, {"room-size", l.RoomSize, 1}, {"publishes", l.Publishes, 0}, {"bytes", l.Bytes, 1},
		{"connects", l.Connects, 0}, {"ping-interval", l.Pings, 1}, {"cores", m.Cores, 1}, {"memory", m.Memory, 0.1}, {"network", m.Network, 0.01}, {"use", m.Use, 0.01}, {"nodes", nodes, 0},
	} {
		if v.is < v.from || v.is != v.is {
			return fmt.Errorf("-%s is %v; it must be at least %v", v.name, v.is, v.from)
		}
	}
	if m.Use > 1 {
		return fmt.Errorf("-use is %v; it must be at most 1", m.Use)
	}
	if len(rest) > 0 {
		return fmt.Errorf("%q is no flag", rest[0])
	}
	return nil
}

// report is what so many nodes have to do.
func report(l load, m machine, nodes float64) string {
	u := use(l, nodes)
	var b strings.Builder
	fmt.Fprintf(&b, "%.0f nodes of %.0f cores, %.0f GiB and %.0f Gbit/s\n\n", nodes, m.Cores, m.Memory, m.Network)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "of each node\t\tof what it has")
	fmt.Fprintf(w, "connections\t%.0f\t\n", u.connections)
	for _, p := range u.parts(m) {
		fmt.Fprintf(w, "%s\t%s\t%.0f %%\n", p.name, p.is, 100*p.share)
	}
	fmt.Fprintln(w, "\nbetween nodes\t")
	fmt.Fprintf(w, "nodes that have members of a room\t%.1f\n", u.spread)
	fmt.Fprintf(w, "messages that NATS takes a second\t%.0f\n", l.Publishes)
	fmt.Fprintf(w, "and brings to nodes\t%.0f\n", u.brought)
	fmt.Fprintf(w, "cores of all NATS servers together\t%.1f\n", u.natsCores)
	fmt.Fprintf(w, "memory of all of them for who listens to what\t%.1f GiB\n", u.interest/gib)
	fmt.Fprintf(w, "traffic out of them\t%.2f Gbit/s\n", u.natsTraffic/gbit)
	w.Flush()
	fmt.Fprintf(&b, "\nWhat is at its bound first: %s.\n", u.first(m))
	return b.String()
}
