package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/front"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
)

const (
	// heartbeat is how often a tail that has nothing to tell sends a comment, so that proxies keep it and a listener
	// that is gone is found.
	heartbeat = 15 * time.Second
	// takeWithin is how long a listener may take to read what it was sent.
	takeWithin = 10 * time.Second
)

// tailOf reads what a tail is of.
func (c *call) tailOf() (of hub.TailOf, no *problem) {
	given := 0
	for _, name := range []string{"room", "client", "user"} {
		if c.query.Has(name) {
			given++
		}
	}
	if given != 1 {
		return of, bad("one of room, client and user must say what to listen to")
	}
	switch text := c.query.Get("content"); {
	case text == "true":
		of.Content = true
	case text != "false" && c.query.Has("content"):
		return of, bad("content must be true or false")
	}
	switch {
	case c.query.Has("room"):
		of.Room = c.query.Get("room")
		if err := protocol.CheckRoom([]byte(of.Room)); err != nil {
			return of, fault(err.Code, "room can't be used: "+err.Message)
		}
	case c.query.Has("user"):
		of.User = c.query.Get("user")
		if err := protocol.CheckUser(of.User); err != nil {
			return of, bad("user can't be used: %v", err)
		}
	default:
		id, is := hub.ParseID([]byte(c.query.Get("client")))
		if !is {
			return of, bad("client is no client's id: %s", shown(c.query.Get("client")))
		}
		of.Client = id
	}
	return of, nil
}

// tail sends what passes for as long as the listener likes, as Server-Sent Events.
func (a *API) tail(w http.ResponseWriter, c *call, to *route) {
	no := a.prepare(c, to)
	var of hub.TailOf
	if no == nil {
		of, no = c.tailOf()
	}
	var t *hub.Tail
	if no == nil {
		var err error
		t, err = a.Hub.Tail(of)
		no = problemOf(err)
	}
	if no != nil {
		a.refuse(w, c, to, no)
		return
	}
	defer t.Close()
	front.Keep(c.r)
	a.counts.add(to, http.StatusOK)
	a.counts.tails.Add(1)
	defer a.counts.tails.Add(-1)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h["Cache-Control"] = noStore
	h.Set("X-Accel-Buffering", "no") // nginx passes it on as it comes
	s := stream{w, http.NewResponseController(w)}
	s.conn.SetReadDeadline(time.Time{}) // that of the request would end its context
	if c.r.Method == http.MethodHead || s.send([]byte(": listening\n\n")) != nil {
		return
	}
	ctx, end := context.WithCancel(c.r.Context())
	defer end()
	listen(ctx, &s, permitted{t, func() bool { return a.still(c.key, to.right) }, end})
}

// permitted ends the listening once the listener's key has been taken away.
type permitted struct {
	heard
	may func() bool
	end func()
}

func (p permitted) Next(ctx context.Context) (items []hub.TailItem, lost int64, err error) {
	if items, lost, err = p.heard.Next(ctx); !p.may() {
		p.end()
		return nil, 0, nil
	}
	return items, lost, err
}

// still says whether a key that a call began with counts, and has a right, also by the settings of now.
func (a *API) still(key *auth.APIKey, right auth.Rights) bool {
	return slices.ContainsFunc(a.now().Keys, func(k auth.APIKey) bool { return k.Digest == key.Digest && k.Rights&right == right })
}

// heard is what a hub.Tail hears.
type heard interface {
	Next(ctx context.Context) (items []hub.TailItem, lost int64, err error)
}

// listen sends what t hears until the listener or the server goes.
func listen(ctx context.Context, s *stream, t heard) {
	for {
		wait, cancel := context.WithTimeout(ctx, heartbeat)
		items, lost, err := t.Next(wait)
		silent := wait.Err() != nil
		cancel()
		var out []byte
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && silent:
			out = []byte(": nothing has passed\n\n")
		case err != nil:
			s.send([]byte("event: end\ndata: {\"reason\":\"the server is stopping\"}\n\n"))
			return
		}
		for i := range items {
			out = appendItem(out, &items[i])
		}
		if lost > 0 {
			out = append(strconv.AppendInt(append(out, "event: lost\ndata: {\"count\":"...), lost, 10), "}\n\n"...)
		}
		if s.send(out) != nil {
			return
		}
	}
}

// stream is a listener's connection.
type stream struct {
	w    http.ResponseWriter
	conn *http.ResponseController
}

// send gives the listener its time and waits until all is on its way.
func (s *stream) send(b []byte) error {
	s.conn.SetWriteDeadline(time.Now().Add(takeWithin)) // where it can't be set the listener's server has its own
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	return s.conn.Flush()
}

// event is what a listener is told of something that has passed.
type event struct {
	Time     int64           `json:"time"`
	Room     string          `json:"room,omitempty"`
	Client   string          `json:"client,omitempty"`
	User     string          `json:"user,omitempty"`
	To       string          `json:"to,omitempty"`
	From     string          `json:"from,omitempty"`
	Key      string          `json:"key,omitempty"`
	Bytes    int             `json:"bytes,omitempty"`
	Epoch    string          `json:"epoch,omitempty"`
	Offset   uint64          `json:"offset,omitempty"`
	ToOffset uint64          `json:"to_offset,omitempty"`
	Code     int             `json:"code,omitempty"`
	Content  json.RawMessage `json:"content,omitempty"` // without white space: an event's line must not break
}

func appendItem(dst []byte, i *hub.TailItem) []byte {
	id := func(id hub.ID) string {
		if id == (hub.ID{}) {
			return ""
		}
		return id.String()
	}
	data, err := json.Marshal(event{
		i.Time, i.Room, id(i.Client.ID), i.Client.User, id(i.To), i.From, i.Key, i.Size, i.Epoch, i.Offset, i.ToOffset, i.Code, i.Content,
	})
	if err != nil { // of a content that is no JSON, which nothing lets in
		return dst
	}
	dst = append(append(dst, "event: "...), string(i.Kind)...)
	return append(append(append(dst, "\ndata: "...), data...), "\n\n"...)
}
