package hub

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/rate"
	"example.com/hubbub/internal/sparselog"
	"example.com/hubbub/internal/wire"
)

// Limits are how much one client, one user and one address may do, in milliseconds; the zero value is no limit.
type Limits struct {
	Client          rate.Limits // its Connects don't count
	User            rate.Limits
	Address         rate.Limits // of those who came with an address: see Admit
	UserConnections int
}

// by is whom a limit is on, in the order in which they are asked: who is over its own limit takes nothing from those of
// its user and its address.
type by uint8

const (
	byClient by = iota
	byUser
	byAddress
	bys
)

var byNames = [bys]string{"client", "user", "address"}

func (b by) String() string { return byNames[b] }

// connections is the limit that is no rate, behind those that are.
const connections = rate.Kinds

func limitName(of rate.Kind) string {
	if of == connections {
		return "connections"
	}
	return of.String()
}

// tooMany is what a client is told: those who are refused are many, or quick.
var tooMany = func() (texts [bys][rate.Kinds]string) {
	for b := range bys {
		for of := range rate.Kinds {
			texts[b][of] = fmt.Sprintf("too many %s of this %s (limits.%s.%s)", of, b, b, of)
		}
	}
	return texts
}()

// limiting is what Limits come to: a part of settings.
type limiting struct {
	commands bool      // what clients send is limited
	of       [bys]bool // by limits of whom
}

func newLimiting(of Limits) (l limiting) {
	command := rate.Amounts{rate.Messages: 1, rate.Bytes: 1, rate.Joins: 1}
	l.of = [bys]bool{of.Client.Covers(&command), of.User.Covers(&command), of.Address.Covers(&command)}
	l.commands = l.of != [bys]bool{}
	return l
}

// limits are what users and addresses have left, and what was refused.
type limits struct {
	users       meters
	addresses   meters
	connections seats // of each user

	refused [bys][rate.Kinds + 1]atomic.Int64
	closed  sparselog.Log
}

// goBy has what is taken from now on be of other limits. All begin with the whole of them.
func (l *limits) goBy(c *settings) {
	l.users.goBy(&c.Limits.User)
	l.addresses.goBy(&c.Limits.Address)
	l.connections.most.Store(int64(c.Limits.UserConnections))
}

// meter is what a session has left of its own limits, and how it bears being refused. Owned by its worker.
type meter struct {
	number  uint32 // of the settings that it is of
	buckets rate.Buckets
	excess  *[rate.Kinds]rate.Excess // nil for who was never refused
}

// meter is the session's by the settings c; by others it begins anew.
func (s *session) meter(c *settings) *meter {
	m := s.extra()
	if m.meter == nil || m.meter.number != c.number {
		m.meter = &meter{number: c.number}
	}
	return m.meter
}

// charge takes what a command costs from what the client has left, its user and its address, from each or from none.
// Else it says who has too little, and counts that.
func (s *session) charge(cost *rate.Amounts) (no *protocol.Error, of rate.Kind, than rate.Limit) {
	h, c := s.hub, s.hub.cfg()
	for b := range bys {
		if !c.of[b] {
			continue
		}
		wait, of := s.chargeOne(c, b, cost)
		if wait == 0 {
			continue
		}
		for back := range b {
			s.uncharge(c, back, cost)
		}
		h.limits.refused[b][of].Add(1)
		no = &protocol.Error{
			Code:    protocol.RateLimited,
			Message: tooMany[b][of],
			After:   time.Duration(wait) * time.Millisecond,
		}
		return no, of, [bys]*rate.Limits{&c.Limits.Client, &c.Limits.User, &c.Limits.Address}[b][of]
	}
	return nil, 0, rate.Limit{}
}

func (s *session) chargeOne(c *settings, b by, cost *rate.Amounts) (wait int64, of rate.Kind) {
	l := &s.hub.limits
	switch {
	case b == byClient:
		return s.meter(c).buckets.Take(&c.Limits.Client, s.conn.Worker().Now(), cost)
	case b == byUser && s.name() != "":
		return l.users.take(payerName{user: s.name()}, cost)
	case b == byAddress && s.addr().IsValid():
		return l.addresses.take(payerName{addr: s.addr()}, cost)
	}
	return 0, 0
}

func (s *session) uncharge(c *settings, b by, cost *rate.Amounts) {
	l := &s.hub.limits
	switch {
	case b == byClient && c.of[byClient]:
		s.meter(c).buckets.Give(&c.Limits.Client, cost)
	case b == byUser && c.of[byUser] && s.name() != "":
		l.users.giveBack(payerName{user: s.name()}, cost)
	}
}

// mayDo charges for a command, or says why not. Who goes on far beyond a limit is closed then.
func (s *session) mayDo(cost *rate.Amounts) *protocol.Error {
	no, of, than := s.charge(cost)
	if no != nil {
		s.goesOn(of, than, cost[of])
	}
	return no
}

// goesOn closes a client that has been refused so often that it can't mean well. Its session isn't parked: who comes
// back begins anew, and how often it may is limited by its user's and its address's connects.
func (s *session) goesOn(of rate.Kind, than rate.Limit, n int64) {
	m := s.meter(s.hub.cfg())
	if m.excess == nil {
		m.excess = new([rate.Kinds]rate.Excess)
	}
	if !m.excess[of].Refused(than, s.conn.Worker().Now(), n) || !s.conn.Open() {
		return
	}
	s.more.final = true
	s.hub.limits.closed.Log(s.hub.cfg().Log, slog.LevelWarn, "a client goes on at ten times its limit and is closed",
		"limit", of.String(), "client", s.id, "user", s.name())
	s.conn.Close(wire.ClosePolicy, "too many "+of.String())
}

// mayDoCommand charges for what a client has sent, whatever it is.
func (s *session) mayDoCommand(raw []byte) *protocol.Error {
	if !s.hub.cfg().commands {
		return nil
	}
	return s.mayDo(&rate.Amounts{rate.Messages: 1, rate.Bytes: int64(len(raw))})
}

// mayJoin charges for a join.
func (s *session) mayJoin() *protocol.Error {
	if !s.hub.cfg().commands {
		return nil
	}
	return s.mayDo(&rate.Amounts{rate.Joins: 1})
}

// limitedRooms charges for the rooms of a resume, and says which of them the client may not join now; nil for none.
// Those that the session was in when its connection was lost cost nothing. What is refused of one resume counts once
// where it is judged who goes on: then the client may be closed behind this.
func (s *session) limitedRooms(cmd *protocol.Command) (refused []*protocol.Error) {
	if !s.hub.cfg().commands {
		return nil
	}
	for i, r := range cmd.Rooms {
		if s.find(r.Room) >= 0 || s.counted(r.Room) {
			continue
		}
		no, of, than := s.charge(&rate.Amounts{rate.Joins: 1})
		if no == nil {
			continue
		}
		if refused == nil {
			refused = make([]*protocol.Error, len(cmd.Rooms))
			s.goesOn(of, than, 1)
		}
		refused[i] = no
	}
	return refused
}

// counted says that the room counts the session though it isn't there yet: it is coming home.
func (s *session) counted(room []byte) bool {
	return s.coming() && s.more.coming.left[string(room)].room != nil
}

// Limited is why a client isn't let in just now.
type Limited struct {
	By, Limit string
	After     time.Duration // when it may try again; 0 where nobody knows
}

func (e *Limited) Error() string { return fmt.Sprintf("too many %s of this %s", e.Limit, e.By) }

// Setting is the name of what limits it.
func (e *Limited) Setting() string { return "limits." + e.By + "." + e.Limit }

// limited counts a refusal.
func (h *Hub) limited(b by, of rate.Kind, wait int64) *Limited {
	h.limits.refused[b][of].Add(1)
	return &Limited{b.String(), limitName(of), time.Duration(wait) * time.Millisecond}
}

// AddressConnects counts one connect of an address, or says why it may not; nil: it may. Any goroutine.
func (h *Hub) AddressConnects(addr netip.Addr) *Limited {
	if !addr.IsValid() {
		return nil
	}
	if wait, of := h.limits.addresses.take(payerName{addr: addr}, &rate.Amounts{rate.Connects: 1}); wait > 0 {
		return h.limited(byAddress, of, wait)
	}
	return nil
}

// AddressMayConnect says what AddressConnects would, and counts nothing. Any goroutine.
func (h *Hub) AddressMayConnect(addr netip.Addr) *Limited {
	if wait, of := h.limits.addresses.wait(payerName{addr: addr}, &rate.Amounts{rate.Connects: 1}); wait > 0 {
		return &Limited{byAddress.String(), limitName(of), time.Duration(wait) * time.Millisecond}
	}
	return nil
}

// userConnects counts one connect of a user. resume is the session that it wants back, nil for none: the connection
// that this has goes then, so the new one isn't one more. Of several nodes it asks the others.
func (h *Hub) userConnects(ctx context.Context, user string, resume *Resumption) *Limited {
	if user == "" {
		return nil
	}
	more := !(resume != nil && resume.User == user && h.connected(resume.ID))
	if more && !h.mayHaveOneMore(ctx, user) {
		return h.limited(byUser, connections, 0)
	}
	if wait, of := h.limits.users.take(payerName{user: user}, &rate.Amounts{rate.Connects: 1}); wait > 0 {
		if more {
			h.limits.connections.goes(user)
		}
		return h.limited(byUser, of, wait)
	}
	return nil
}

// connected says whether a client has a connection.
func (h *Hub) connected(id ID) bool {
	sh := h.clientShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.sessions[id] != nil
}

// sit takes one of its user's connections for the session, or closes it where there is none left: Admit has looked, and
// others may have come since.
func (s *session) sit() bool {
	h := s.hub
	if h.limits.connections.most.Load() == 0 || s.name() == "" {
		return true
	}
	if !h.limits.connections.take(s.name()) {
		no := h.limited(byUser, connections, 0)
		s.conn.Close(wire.CloseTryLater, no.Error())
		return false
	}
	s.self.sits = true
	return true
}

// rise gives the connection back.
func (s *session) rise() {
	if s.self != nil && s.self.sits {
		s.self.sits = false
		s.hub.limits.connections.leave(s.name())
	}
}

// Refusals gives how often each limit has refused something: which, by whom, and how often. Any goroutine.
func (h *Hub) Refusals(yield func(limit, by string, n int64)) {
	for b := range bys {
		for of := range connections + 1 {
			if (of == rate.Connects && b == byClient) || (of == connections && b != byUser) {
				continue
			}
			yield(limitName(of), b.String(), h.limits.refused[b][of].Load())
		}
	}
}
