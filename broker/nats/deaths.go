package nats

import (
	"cmp"
	"errors"
	"hash/fnv"
	"net"
	"slices"
	"strings"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
)

// A log whose leader was killed gets another one after 4 to 9 s: NATS's followers wait for a heartbeat that may be
// late, and have no setting for how long. But that a process has ended is seen at once: its routes are closed, and
// its port refuses. So each store has its own copies stand for election then. Who is elected, and with how much of
// the log, is NATS's to decide, as always; where the other one wasn't dead after all, it costs one election.

const (
	deathEvery = 100 * time.Millisecond
	deathWait  = 10 * time.Second // by then NATS has elected others by itself
	// campaignTurn is by how much the next copy waits for the one before it: who stands waits up to 0.8 s, and then
	// has to be elected. Two at the same time may split the votes, which costs another 4 to 9 s.
	campaignTurn = 1500 * time.Millisecond
)

// lookupRaftNode is what this server has of a log; nil for nothing. NATS doesn't export it, but what it returns. A
// version that has it no more doesn't link, and TestRaftNodesAreFound sees one that has changed it.
//
//go:linkname lookupRaftNode github.com/nats-io/nats-server/v2/server.(*Server).lookupRaftNode
func lookupRaftNode(s *server.Server, group string) server.RaftNode

// deaths are what a store sees of the others' ends. One goroutine's.
type deaths struct {
	s       *stores
	self    *server.Server    // whose routes these are
	routes  map[string]*route // by the name of the store at the other end
	leaving chan *client.Msg  // what stores say that stop as planned
	leave   map[string]bool   // their servers' ids
	asked   time.Time         // for addresses
	orphans []*orphan
}

// route is the way to another store.
type route struct {
	id      string // of the server in its process: another one each time that it starts
	address string // for nodes; "" while it isn't known
	lost    time.Time
}

// orphan is a log whose leader has died.
type orphan struct {
	account, group string
	term           uint64 // in which it has led
	until          time.Time
	next           time.Time // when the copy here stands for election
}

// watchDeaths looks after the other stores until the broker ends.
func (s *stores) watchDeaths() {
	d := &deaths{s: s, leaving: make(chan *client.Msg, 64), leave: map[string]bool{}}
	if _, err := s.system.ChanSubscribe(leavingSubject, d.leaving); err != nil {
		return // the connection was closed: the broker ends
	}
	for s.b.pause(deathEvery) {
		d.look()
	}
}

// leavingSubject has, in the place of the star, the id of a server that hands over what it leads and ends then.
const leavingSubject = "$SYS.SERVER.*.LAMEDUCK"

// hearLeaving notes which stores have said that they leave.
func (d *deaths) hearLeaving() {
	for {
		select {
		case m := <-d.leaving:
			if parts := strings.Split(m.Subject, "."); len(parts) == 4 {
				d.leave[parts[2]] = true
			}
		default:
			return
		}
	}
}

func (d *deaths) look() {
	self := d.s.b.server.running()
	if self == nil || self != d.self {
		*d = deaths{s: d.s, self: self, routes: map[string]*route{}, leaving: d.leaving, leave: d.leave}
	}
	if self == nil {
		return
	}
	d.hearLeaving()
	now, err := routesOf(self)
	if err != nil {
		return
	}
	for name, r := range d.routes {
		switch id := now[name]; {
		case id == r.id:
			r.lost = time.Time{}
			continue
		case r.lost.IsZero():
			r.lost = time.Now()
		}
		dead := now[name] != "" || d.refuses(r)
		if dead {
			d.died(name, d.leave[r.id], now)
		}
		if dead || time.Since(r.lost) > deathWait {
			delete(d.routes, name)
			delete(d.leave, r.id)
		}
	}
	for name, id := range now {
		if d.routes[name] == nil {
			d.routes[name] = &route{id: id}
		}
	}
	d.findAddresses()
	d.hasten()
}

// routesOf are the ids of the servers that there are routes to, by their names.
func routesOf(s *server.Server) (ids map[string]string, err error) {
	all, err := s.Routez(nil)
	if err != nil {
		return nil, err
	}
	ids = map[string]string{}
	for _, r := range all.Routes {
		ids[r.RemoteName] = r.RemoteID
	}
	return ids, nil
}

// findAddresses asks the stores for theirs, once a second while one isn't known.
func (d *deaths) findAddresses() {
	missing := false
	for _, r := range d.routes {
		missing = missing || r.address == "" && r.lost.IsZero()
	}
	if !missing || time.Since(d.asked) < time.Second {
		return
	}
	d.asked = time.Now()
	known, err := gather[server.ServerStatsMsg](d.s.b.ctx, d.s.system, "STATSZ", nil, allOf)
	if err != nil {
		return // the next time
	}
	for _, m := range known {
		if r := d.routes[m.Server.Name]; r != nil && r.id == m.Server.ID && r.address == "" {
			r.address = m.Server.Metadata[addressKey]
			d.s.b.log.Debug("the way to a store is known", "store", m.Server.Name, "address", r.address)
		}
	}
}

// refuses says whether the process at the other end of a route that is lost has ended: nobody listens there any more,
// or another one does. Who doesn't answer may be slow, or cut off.
func (d *deaths) refuses(r *route) bool {
	if r.address == "" {
		return false
	}
	c, err := d.s.connect(r.address)
	var slow net.Error
	switch {
	case err == nil:
		defer c.Close()
		return c.ConnectedServerId() != r.id
	case errors.Is(err, client.ErrTimeout), errors.As(err, &slow) && slow.Timeout():
		return false
	}
	return errors.Is(err, client.ErrNoServers) // what it says where the port refuses
}

// raftAccounts have the logs: that of rooms', and that of the cluster's own.
var raftAccounts = []string{server.DEFAULT_GLOBAL_ACCOUNT, server.DEFAULT_SYSTEM_ACCOUNT}

// died notes the logs that a store has led, where it was planned too: it may not have handed over all of them. now are the
// stores that are left.
func (d *deaths) died(name string, planned bool, now map[string]string) {
	at, led := time.Now(), 0
	for _, account := range raftAccounts {
		for group, info := range raftGroups(d.self, account, "") {
			if info.Leader == "" || info.Leader == info.ID || info.Peers[info.Leader].Name != name {
				continue
			}
			d.orphans = append(d.orphans, &orphan{
				account: account, group: group, term: info.Term, until: at.Add(deathWait),
				next: at.Add(time.Duration(turn(group, &info, now)) * campaignTurn),
			})
			led++
		}
	}
	if planned {
		d.s.b.log.Info("a store has left", "store", name)
		return
	}
	d.s.b.log.Warn("a store has died", "store", name, "logs that it led, and this one has", led)
}

// raftGroups are the logs of an account of which this server has a copy, or one of them.
func raftGroups(s *server.Server, account, group string) map[string]server.RaftzGroup {
	all := s.Raftz(&server.RaftzOptions{AccountFilter: account, GroupFilter: group})
	if all == nil {
		return nil // it ends
	}
	return (*all)[account]
}

// turn is how many of the other copies of a log stand before the one here. It isn't the same store first for all logs.
func turn(group string, info *server.RaftzGroup, now map[string]string) (before int) {
	place := func(id string) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(group + id)) // never fails
		return h.Sum64()
	}
	own := place(info.ID)
	for id, peer := range info.Peers {
		if now[peer.Name] != "" && id != info.Leader && cmp.Compare(place(id), own) < 0 {
			before++
		}
	}
	return before
}

// hasten has copies stand for election whose turn it is, until their logs have leaders.
func (d *deaths) hasten() {
	at := time.Now()
	d.orphans = slices.DeleteFunc(d.orphans, func(o *orphan) bool {
		if at.Before(o.next) {
			return false
		}
		info, has := raftGroups(d.self, o.account, o.group)[o.group]
		if !has || at.After(o.until) || info.Leader != "" && info.Term > o.term {
			return true
		}
		if node := lookupRaftNode(d.self, o.group); node != nil {
			d.s.b.log.Debug("a copy stands for election", "log", o.group, "of", o.account)
			_ = node.Campaign() // but where it leads already
		}
		o.next = at.Add(2 * campaignTurn)
		return false
	})
}
