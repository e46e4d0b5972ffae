package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options are how a Hub behaves. The zero value works.
type Options struct {
	// Token is asked for the client's token before it connects, when the one before was refused or ends soon, and before
	// the end that the server has named. It may be called from any goroutine, one call at a time, must return when ctx
	// ends, or Close waits for it, and must not call Close. When it returns a token that was just refused, the client
	// stops. nil: no token.
	Token func(ctx context.Context) (string, error)

	HTTPClient *http.Client // makes the handshakes; nil: http.DefaultClient
	Header     http.Header  // of each handshake
	Logger     *slog.Logger // what happens, at level debug; nil: nothing is logged

	// MinDelay and MaxDelay bound how long the client waits before it comes back: a random time that doubles with each
	// try. 0: half a second, and half a minute. What the server says goes before.
	MinDelay, MaxDelay time.Duration

	// Timeout is how long the server may take over the handshake, over its welcome, and over each answer that the client
	// wants as it comes back. 0: 10 s.
	Timeout time.Duration

	// QueueCalls and QueueBytes bound the calls that wait for an answer, also while there is no connection; beyond them
	// a call is ErrQueueFull. 0: 1000, and 1 MiB.
	QueueCalls, QueueBytes int

	// BufferBytes is how much of each room is kept while nobody reads it, about: see "Slow readers". 0: 1 MiB.
	BufferBytes int

	// MaxMessageBytes is the longest message of the server that is taken; a longer one stops the client. 0: 16 MiB.
	MaxMessageBytes int64

	// DedupWindow is the server's --dedup-window. A publish that was sent longer ago isn't sent again. 0: 2 minutes.
	DedupWindow time.Duration

	// PingInterval and PongTimeout are after how much silence of the server it is asked for a sign of life, and how much
	// later the line counts as dead. 0: what the server's welcome says of its own.
	PingInterval, PongTimeout time.Duration
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&o.MinDelay, 500*time.Millisecond)
	set(&o.MaxDelay, 30*time.Second)
	o.MaxDelay = max(o.MaxDelay, o.MinDelay)
	set(&o.Timeout, 10*time.Second)
	set(&o.DedupWindow, 2*time.Minute)
	if o.QueueCalls <= 0 {
		o.QueueCalls = 1000
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = 1 << 20
	}
	if o.BufferBytes <= 0 {
		o.BufferBytes = 1 << 20
	}
	if o.MaxMessageBytes <= 0 {
		o.MaxMessageBytes = 16 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// State is what a Hub is doing.
type State string

// The states.
const (
	Connecting State = "connecting"
	Online     State = "online"  // calls reach the server
	Waiting    State = "waiting" // before it connects again
	Closed     State = "closed"  // for good
)

// Status is a Hub's state, for people: Err is why it isn't online, and Until when it connects again.
type Status struct {
	State State
	Err   error
	Until time.Time
}

// Hub is a client of one server: one connection at a time, and a session that outlives it.
type Hub struct {
	// Static.
	url    string
	opts   Options
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   chan struct{} // closed when no goroutine is left
	prefix string        // of publish_ids
	inbox  *inbox        // chats and direct messages
	poked  chan struct{} // a call waits: see inbox.put

	waiting atomic.Int64 // calls.count, for the inboxes

	mu      sync.Mutex // what is below
	status  Status
	changed chan struct{} // closed when the status or a list of members changes
	rooms   map[string]*Room
	calls   calls
	conn    *connection // nil while there is none
	session session
	tokens  tokens
}

// session is what the server's welcome said last.
type session struct {
	clientID, user, resume string
	expires                time.Time     // zero: never
	skew                   time.Duration // how far the server's clock is ahead
	clockKnown             bool          // a pong has told it, on this connection or one before
	maxMessage             int           // 0: unknown
}

// New makes a client that connects in the background. url is the server's WebSocket, ws://localhost:8080/ws.
func New(address string, o Options) (*Hub, error) {
	u, err := url.Parse(address)
	if err != nil || !slices.Contains([]string{"ws", "wss", "http", "https"}, u.Scheme) || u.Host == "" || u.Fragment != "" {
		return nil, fmt.Errorf("url %q: an address is wanted such as ws://localhost:8080/ws", address)
	}
	h := newHub(address, o)
	go h.keep()
	return h, nil
}

func newHub(address string, o Options) *Hub {
	h := &Hub{
		url: address, opts: o.withDefaults(), done: make(chan struct{}), prefix: rand.Text(), poked: make(chan struct{}, 1),
		status: Status{State: Connecting}, changed: make(chan struct{}), rooms: map[string]*Room{}, calls: calls{sent: map[uint64]*call{}},
	}
	h.inbox = newInbox("", h.opts.BufferBytes)
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// Dial is New, and waits until the client is connected, or can't be. When ctx ends before, the error says why it isn't
// connected yet.
func Dial(ctx context.Context, address string, o Options) (*Hub, error) {
	h, err := New(address, o)
	if err != nil {
		return nil, err
	}
	var last error
	for s := range h.States(ctx) {
		switch {
		case s.State == Online:
			return h, nil
		case s.Err != nil:
			last = s.Err
		}
	}
	h.Close()
	if ctx.Err() != nil && last != nil {
		return nil, fmt.Errorf("connect to %s: %w: %w", address, ctx.Err(), last)
	}
	if ctx.Err() != nil {
		last = ctx.Err()
	}
	return nil, fmt.Errorf("connect to %s: %w", address, last)
}

// Close ends the session, and waits until no goroutine is left, at most some 10 s for a server that doesn't answer.
// Calls that wait are ErrClosed, or ErrUnknown. What has come and wasn't read still is.
func (h *Hub) Close() error {
	h.cancel()
	<-h.done
	return nil
}

// State is what the client is doing now.
func (h *Hub) State() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.status
}

// States ranges over what the client is doing, the state of now first, until ctx ends or the client is Closed. Who is
// slower than they change gets the newest.
func (h *Hub) States(ctx context.Context) iter.Seq[Status] {
	return func(yield func(Status) bool) {
		var shown Status
		for ctx.Err() == nil {
			h.mu.Lock()
			status, changed := h.status, h.changed
			h.mu.Unlock()
			if status != shown {
				shown = status
				if !yield(status) || status.State == Closed {
					return
				}
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

// setStatus also logs it.
func (h *Hub) setStatus(s Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status = s
	h.change()
	h.opts.Logger.Debug("hubbub client", "state", s.State, "err", s.Err)
}

// change wakes who waits for h.changed. h.mu is held.
func (h *Hub) change() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// ClientID is the client's id, "" before it was connected. It changes where the session could not be resumed.
func (h *Hub) ClientID() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.session.clientID
}

// User is the name that the server knows the client by, "" for none.
func (h *Hub) User() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.session.user
}

// Room is the room with this name, the same one each time. It doesn't join it.
func (h *Hub) Room(name string) *Room {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.room(name)
}

// room is Room. h.mu is held.
func (h *Hub) room(name string) *Room {
	r := h.rooms[name]
	if r == nil {
		r = &Room{hub: h, name: name, inbox: newInbox(name, h.opts.BufferBytes)}
		if h.status.State == Closed {
			r.inbox.end()
		}
		h.rooms[name] = r
	}
	return r
}

// joined are the rooms that the client is in, by name. h.mu is held.
func (h *Hub) joined() (all []*Room) {
	for _, name := range slices.Sorted(maps.Keys(h.rooms)) {
		if r := h.rooms[name]; r.joined {
			all = append(all, r)
		}
	}
	return all
}

// Events ranges over chats and direct messages, Gaps among chats, and Entered. It ends with ctx, or after Close when all
// is read.
func (h *Hub) Events(ctx context.Context) iter.Seq[Event] { return h.inbox.all(ctx) }

// Messages ranges over the chats and direct messages alone.
func (h *Hub) Messages(ctx context.Context) iter.Seq[Message] { return messages(h.inbox.all(ctx)) }

// messages are those of some events, until a Left.
func messages(events iter.Seq[Event]) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for e := range events {
			switch e := e.(type) {
			case Message:
				if !yield(e) {
					return
				}
			case Left:
				return
			}
		}
	}
}

// Chat sends to every connected client but this one. nil says that the server has passed it on.
func (h *Hub) Chat(ctx context.Context, content any) error {
	return h.tell(ctx, outgoing{Type: "chat"}, content)
}

// Send sends to one client, by its id.
func (h *Hub) Send(ctx context.Context, clientID string, content any) error {
	return h.tell(ctx, outgoing{Type: "direct_message", To: clientID}, content)
}

func (h *Hub) tell(ctx context.Context, m outgoing, content any) (err error) {
	if m.Content, err = contentOf(content); err != nil {
		return err
	}
	_, err = h.do(ctx, &call{kind: atMostOnce, message: m})
	return err
}

// Request asks the application, which answers what it will.
func (h *Hub) Request(ctx context.Context, method string, content any) (json.RawMessage, error) {
	c, err := contentOf(content)
	if err != nil {
		return nil, err
	}
	answer, err := h.do(ctx, &call{kind: atMostOnce, message: outgoing{Type: "request", Method: method, Content: c}})
	return answer.Content, err
}
