package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// A load is what clients do.
type load struct {
	Connections, RoomsOfClient, RoomSize float64
	Publishes, Connects                  float64 // a second
	Bytes                                float64 // of a message
	Pings                                float64 // seconds between two of a connection
	History                              bool
}

var defaultLoad = load{Connections: 10e6, RoomsOfClient: 3, RoomSize: 100, Publishes: 5000, Connects: 10e6 / 1800, Bytes: 200, Pings: 25, History: true}

// A machine is what a node has, and how much of it may be used.
type machine struct{ Cores, Memory, Network, Use float64 }

var defaultMachine = machine{Cores: 8, Memory: 32, Network: 10, Use: 0.5}

const (
	gib  = 1 << 30
	gbit = 1e9 / 8 // bytes a second
)

// Costs as they were measured; docs/scaling.md says by which command. Seconds of one core, and bytes.
const (
	connectionMemory = 383.  // of the process, idle, in a room
	kernelMemory     = 4850. // of the kernel, for a connection's one end
	roomMemory       = 2400. // of a node, for a room that it has open and follows, beside what its history keeps
	deliveryTime     = 9.1e-6
	publishTime      = 12e-6 // at the node to which the publisher is connected
	arrivalTime      = 12e-6 // at a node with members, for a message of another
	connectTime      = 45e-6
	pingTime         = 9e-6 // a ping of an idle connection and its pong
	pingBytes        = 134. // out of a node: the ping, and what TCP says to the pong
	frameBytes       = 130. // around a message, in TCP's and ours

	coreTime       = 0.6e-6 // of the servers, for a message without history
	bringTime      = 2.2e-6 // of the servers, for each node that it is brought to
	interestMemory = 1200.  // of the servers, for a node that listens to a room
	envelope       = 120.   // bytes around a message between nodes
)

// used is what a load takes of so many nodes.
type used struct {
	cpu, memory, network, connections float64 // of each node: cores, bytes, bytes a second
	spread, brought                   float64
	natsCores, natsTraffic, interest  float64
}

// use is what so many nodes have to do, when clients choose theirs by chance.
func use(l load, nodes float64) (u used) {
	rooms := l.Connections * l.RoomsOfClient / l.RoomSize
	deliveries := l.Publishes * (l.RoomSize - 1)
	u.spread = nodes * (1 - math.Pow(1-1/nodes, l.RoomSize))
	here := rooms * u.spread / nodes // rooms that a node has members of
	u.brought = l.Publishes * max(0, u.spread-1)
	u.connections = l.Connections / nodes

	u.cpu = (deliveries*deliveryTime + l.Publishes*publishTime + u.brought*arrivalTime + l.Connects*connectTime + l.Connections/l.Pings*pingTime) / nodes
	u.memory = u.connections*(connectionMemory+kernelMemory) + here*roomMemory
	if l.History {
		u.memory += here * min(64<<10, 100*l.Bytes)
	}
	u.network = (deliveries*(l.Bytes+frameBytes) + u.brought*(l.Bytes+envelope) + l.Connections/l.Pings*pingBytes) / nodes
	if nodes > 1 {
		store := coreTime
		if l.History {
			store = logCost(l.Publishes)
		}
		copies := u.brought
		if l.History {
			copies += 2 * l.Publishes // the replicas
		}
		u.natsCores = l.Publishes*store + u.brought*bringTime
		u.natsTraffic = copies * (l.Bytes + envelope)
		u.interest = here * nodes * interestMemory
	}
	return u
}

// stored is what it costs the three servers together to store a message with three replicas, at so many a second: the more
// there are the more go at once.
var stored = []struct{ rate, time float64 }{{1000, 330e-6}, {2000, 185e-6}, {10_000, 112e-6}, {40_000, 33e-6}}

// logCost is that at a rate: between those that were measured on a straight line of logarithms.
func logCost(rate float64) float64 {
	rate = min(max(rate, stored[0].rate), stored[len(stored)-1].rate)
	i := 1
	for stored[i].rate < rate {
		i++
	}
	a, b := stored[i-1], stored[i]
	share := math.Log(rate/a.rate) / math.Log(b.rate/a.rate)
	return a.time * math.Pow(b.time/a.time, share)
}

// part is one thing of a node's, and which share of it is used.
type part struct {
	name, is string
	share    float64
}

func (u used) parts(m machine) []part {
	return []part{
		{"processors", fmt.Sprintf("%.2f", u.cpu), u.cpu / m.Cores},
		{"memory", fmt.Sprintf("%.2f GiB", u.memory/gib), u.memory / (m.Memory * gib)},
		{"network", fmt.Sprintf("%.2f Gbit/s", u.network/gbit), u.network / (m.Network * gbit)},
	}
}

// fits says that none of a node's parts is used more than it may.
func (u used) fits(m machine) bool {
	return !slices.ContainsFunc(u.parts(m), func(p part) bool { return p.share > m.Use })
}

// first is what is used most.
func (u used) first(m machine) string {
	parts := u.parts(m)
	most := slices.MaxFunc(parts, func(a, b part) int { return cmp.Compare(a.share, b.share) })
	if servers := u.natsCores / m.Cores; servers > 3*m.Use { // three servers store each message
		return fmt.Sprintf("NATS, whose three stores would need %.0f cores each: shards on more servers, fewer replicas, or rooms without history", u.natsCores/3)
	}
	return fmt.Sprintf("the %s of a node (%.0f %%)", most.name, 100*most.share)
}

// fewest is how few nodes do; one more does, too.
func fewest(l load, m machine) float64 {
	nodes := 1.
	for !use(l, nodes).fits(m) && nodes < 1e6 {
		nodes *= 2
	}
	low := max(1, nodes/2)
	for low < nodes {
		if middle := math.Floor((low + nodes) / 2); use(l, middle).fits(m) {
			nodes = middle
		} else {
			low = middle + 1
		}
	}
	return nodes
}
