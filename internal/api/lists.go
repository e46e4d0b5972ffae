package api

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/protocol/room"
)

// How many a list has.
const (
	usualList = 100
	maxList   = 1000
)

// encode makes JSON of what can't fail to be it.
func encode(v any) ([]byte, *problem) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, problemOf(err)
	}
	return b, nil
}

// limit is the query's.
func (c *call) limit() (int, *problem) {
	text := c.query.Get("limit")
	if text == "" && !c.query.Has("limit") {
		return usualList, nil
	}
	n, ok := parseOffset(text)
	if !ok || n < 1 || n > maxList {
		return 0, bad("limit must be a whole number from 1 to %d", maxList)
	}
	return int(n), nil
}

// room is the name in the path.
func (c *call) room() (string, *problem) {
	if err := protocol.CheckRoom([]byte(c.args[0])); err != nil {
		return "", fault(err.Code, "room can't be used: "+err.Message)
	}
	return c.args[0], nil
}

// afterID is the query's after where it is a client's id, zero for none. An empty one is none, as it is where names are
// listed: so a loop over pages needs no case of its own for the first.
func (c *call) afterID() (id hub.ID, no *problem) {
	after := c.query.Get("after")
	if after == "" {
		return id, nil
	}
	id, is := hub.ParseID([]byte(after))
	if !is {
		no = bad("after is no client's id: %s", shown(after))
	}
	return id, no
}

// appendMore ends a list, and the object that it is in.
func appendMore(dst []byte, more bool) []byte {
	return append(strconv.AppendBool(append(dst, `],"more":`...), more), '}')
}

func (a *API) history(c *call) ([]byte, *problem) {
	name, no := c.room()
	if no != nil {
		return nil, no
	}
	var q hub.PageQuery
	if q.Limit, no = c.limit(); no != nil {
		return nil, no
	}
	if q.Since, no = c.position("since"); no != nil {
		return nil, no
	}
	if q.Before, no = c.position("before"); no != nil {
		return nil, no
	}
	if q.Since != nil && q.Before != nil {
		return nil, bad("since and before exclude each other")
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), waitFor)
	defer cancel()
	page, at, more, err := a.Hub.History(ctx, name, q)
	if err != nil {
		return nil, problemOf(err)
	}
	out := room.AppendString([]byte(`{"room":`), name)
	if at.Epoch != "" {
		out = appendPosition(append(out, ','), at)
	}
	out = room.AppendMessages(append(out, `,"messages":`...), page)
	return append(strconv.AppendBool(append(out, `,"more":`...), more), '}'), nil
}

// position reads EPOCH:OFFSET of the query, nil for none.
func (c *call) position(name string) (*protocol.Position, *problem) {
	if !c.query.Has(name) {
		return nil, nil
	}
	at, ok := parsePosition(c.query.Get(name))
	if !ok {
		return nil, bad("%s must be EPOCH:OFFSET, as an answer told them: %s", name, shown(c.query.Get(name)))
	}
	return &at, nil
}

// parsePosition reads a position: an epoch may have a colon in it, too.
func parsePosition(text string) (at protocol.Position, ok bool) {
	colon := strings.LastIndexByte(text, ':')
	if colon < 1 || colon > protocol.MaxEpoch {
		return at, false
	}
	offset, ok := parseOffset(text[colon+1:])
	return protocol.Position{Epoch: []byte(text[:colon]), Offset: offset}, ok
}

// parseOffset reads digits alone.
func parseOffset(text string) (uint64, bool) {
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil && n <= maxOffset && text[0] != '+'
}

func (a *API) presence(c *call) ([]byte, *problem) {
	name, no := c.room()
	if no != nil {
		return nil, no
	}
	limit, no := c.limit()
	if no != nil {
		return nil, no
	}
	after, no := c.afterID()
	if no != nil {
		return nil, no
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), waitFor)
	defer cancel()
	count, members, more, err := a.Hub.PresenceAfter(ctx, name, after, limit)
	if err != nil {
		return nil, problemOf(err)
	}
	out := strconv.AppendInt([]byte(`{"count":`), int64(count), 10)
	if a.Hub.Policy(name).Presence == hub.PresenceFull {
		out = room.AppendMembers(append(out, `,"members":`...), members)
	}
	return append(strconv.AppendBool(append(out, `,"more":`...), more), '}'), nil
}

// client is what a list tells of one.
type client struct {
	Client string `json:"client"`
	User   string `json:"user,omitempty"`
	Parked bool   `json:"parked"` // its connection is lost, and its session may still be resumed
}

func clientOf(c hub.ClientInfo) client { return client{c.ID.String(), c.User, c.Parked} }

func clientsOf(list []hub.ClientInfo) []client {
	told := make([]client, 0, len(list))
	for _, c := range list {
		told = append(told, clientOf(c))
	}
	return told
}

func (a *API) listClients(c *call) ([]byte, *problem) {
	limit, no := c.limit()
	if no != nil {
		return nil, no
	}
	switch order := c.query.Get("order"); {
	case order == "unsent":
		return a.clientsByUnsent(c, limit)
	case order != "id" && c.query.Has("order"):
		return nil, bad("order must be id or unsent, not %s", shown(order))
	}
	after, no := c.afterID()
	if no != nil {
		return nil, no
	}
	clients, more, err := a.Hub.ClientsAfter(c.r.Context(), after, limit)
	if err != nil {
		return nil, problemOf(err)
	}
	return encode(struct {
		Clients []client `json:"clients"`
		More    bool     `json:"more"`
	}{clientsOf(clients), more})
}

func (a *API) client(c *call) ([]byte, *problem) {
	id, is := hub.ParseID([]byte(c.args[0]))
	if !is {
		return nil, problemOf(hub.ErrUnknownClient)
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), waitFor)
	defer cancel()
	d, err := a.Hub.Client(ctx, id)
	if err != nil {
		return nil, problemOf(err)
	}
	return encode(detailOf(d))
}

// clientDetail is what is told of one client.
type clientDetail struct {
	client
	Since   int64    `json:"since"` // Unix milliseconds
	Address string   `json:"address,omitempty"`
	Unsent  int64    `json:"unsent_bytes"`
	Rooms   []string `json:"rooms"`
}

func detailOf(d hub.ClientDetail) clientDetail {
	return clientDetail{clientOf(d.ClientInfo), d.Since.UnixMilli(), d.Address, d.Unsent, append([]string{}, d.Rooms...)}
}

// clientsByUnsent lists who is connected to this node, those first for whom most waits. It has no further pages: the
// figures of a moment ago say nothing of where the next one begins.
func (a *API) clientsByUnsent(c *call, limit int) ([]byte, *problem) {
	if c.query.Has("after") {
		return nil, bad("after goes with order=id alone")
	}
	clients, more, err := a.Hub.ClientsByUnsent(c.r.Context(), limit, 2*time.Second) // who looks at what goes wrong is not to wait for a worker that hangs
	if err != nil {
		return nil, problemOf(err)
	}
	told := make([]clientDetail, 0, len(clients))
	for _, d := range clients {
		told = append(told, detailOf(d))
	}
	return encode(struct {
		Clients []clientDetail `json:"clients"`
		More    bool           `json:"more"`
	}{told, more})
}

func (a *API) listUsers(c *call) ([]byte, *problem) {
	limit, no := c.limit()
	if no != nil {
		return nil, no
	}
	type user struct {
		User    string `json:"user"`
		Clients int    `json:"clients"`
	}
	users, more, err := a.Hub.UsersAfter(c.r.Context(), c.query.Get("after"), limit)
	if err != nil {
		return nil, problemOf(err)
	}
	told := make([]user, 0, len(users))
	for _, u := range users {
		told = append(told, user(u))
	}
	return encode(struct {
		Users []user `json:"users"`
		More  bool   `json:"more"`
	}{told, more})
}

func (a *API) user(c *call) ([]byte, *problem) {
	clients, err := a.Hub.UserClients(c.r.Context(), c.args[0])
	if err == nil && len(clients) == 0 {
		err = hub.ErrUnknownUser
	}
	if err != nil {
		return nil, problemOf(err)
	}
	return encode(struct {
		User    string   `json:"user"`
		Clients []client `json:"clients"`
	}{c.args[0], clientsOf(clients)})
}

// recentLog is what GET /log says.
func (a *API) recentLog(*call) ([]byte, *problem) {
	if a.RecentLog == nil {
		return nil, nothing("log: the program keeps none of its lines")
	}
	return encode(struct {
		Lines []string `json:"lines"`
	}{append([]string{}, a.RecentLog()...)})
}
