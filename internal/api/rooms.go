package api

import (
	"context"
	"math"
	"strconv"
	"strings"

	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/protocol/room"
)

func (a *API) listRooms(c *call) ([]byte, *problem) {
	q, no := c.roomQuery()
	if no != nil {
		return nil, no
	}
	rooms, more, err := a.Hub.RoomsAfter(c.r.Context(), q)
	if err != nil {
		return nil, problemOf(err)
	}
	out := []byte(`{"rooms":[`)
	for i, r := range rooms {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendRoom(out, r), '}')
	}
	return appendMore(out, more), nil
}

func (c *call) roomQuery() (q hub.RoomQuery, no *problem) {
	q = hub.RoomQuery{Prefix: c.query.Get("prefix"), Contains: c.query.Get("contains"), After: c.query.Get("after")}
	if q.Limit, no = c.limit(); no != nil {
		return q, no
	}
	if c.query.Has("order") {
		var err error
		if q.Order, err = hub.ParseRoomOrder(c.query.Get("order")); err != nil {
			return q, bad("order %v", err)
		}
	}
	if q.Order == hub.ByName || q.After == "" {
		return q, nil
	}
	figure, name, ok := strings.Cut(q.After, ":")
	n, err := strconv.ParseFloat(figure, 64)
	if !ok || err != nil || name == "" || !(n >= 0 && n <= math.MaxInt32) {
		return q, bad("after must be FIGURE:ROOM in this order, of the last room of the page before: %s", shown(q.After))
	}
	if q.After = name; q.Order == hub.ByRate {
		n *= rateOf
	}
	q.Figure = int(math.Round(n))
	return q, nil
}

// rateOf is of how many seconds hub.RoomInfo.Recent is.
const rateOf = 10

// appendRoom appends a room without its last brace.
func appendRoom(dst []byte, r hub.RoomInfo) []byte {
	dst = room.AppendString(append(dst, `{"room":`...), r.Name)
	dst = strconv.AppendInt(append(dst, `,"members":`...), int64(r.Members), 10)
	dst = strconv.AppendFloat(append(dst, `,"rate":`...), float64(r.Recent)/rateOf, 'f', -1, 64)
	if r.Position.Epoch != "" {
		dst = appendPosition(append(dst, ','), r.Position)
	}
	return dst
}

func (a *API) room(c *call) ([]byte, *problem) {
	name, no := c.room()
	if no != nil {
		return nil, no
	}
	user := c.query.Get("user")
	if c.query.Has("user") {
		if err := protocol.CheckUser(user); err != nil {
			return nil, bad("user can't be used: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), waitFor)
	defer cancel()
	r, ok, err := a.Hub.Room(ctx, name)
	switch {
	case err != nil:
		return nil, problemOf(err)
	case !ok:
		return nil, nothing("room: it has neither members nor history")
	}
	may, _ := a.Hub.Policies().AccessFor(name, user)
	policy, no := encode(policyOf(a.Hub.Policy(name), may))
	if no != nil {
		return nil, no
	}
	why, no := encode(a.Why(name, user))
	out := append(append(appendRoom(nil, r), `,"policy":`...), policy...)
	return append(append(append(out, `,"why":`...), why...), '}'), no
}

// policy is what a room gets, by the names of the file. Times are in milliseconds.
type policy struct {
	History       *kept  `json:"history"` // null for none
	Presence      string `json:"presence"`
	Join          string `json:"join"`
	Read          string `json:"read"`
	Publish       string `json:"publish"`
	IncludeSender bool   `json:"include_sender"`
	SlowConsumer  string `json:"slow_consumer"`
	IdleTTL       int64  `json:"idle_ttl_ms"`
}

type kept struct {
	Messages int   `json:"messages"`
	Age      int64 `json:"age_ms"`
	Bytes    int   `json:"bytes"`
}

func policyOf(p *hub.Policy, may *hub.Access) policy {
	told := policy{nil, p.Presence.String(), may.Join.String(), may.Read.String(), may.Publish.String(), p.IncludeSender, p.SlowConsumer.String(), p.IdleTTL.Milliseconds()}
	if h := p.History; h != (history.Bounds{}) {
		told.History = &kept{h.Messages, h.Age.Milliseconds(), h.Bytes}
	}
	return told
}

// Reason is why a field of a room's policy is as it is.
type Reason struct {
	Field string `json:"field"` // of policy
	// By is "rule" where the rule says it, "default" where it doesn't, "setting" where --slow-consumer does then, or
	// "built_in".
	By    string `json:"by"`
	Match string `json:"match"`          // of the rule that counts for the field
	Rule  *int   `json:"rule,omitempty"` // its place in rooms; nil for one that is built in
}
