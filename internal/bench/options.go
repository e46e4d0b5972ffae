package bench

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Mode is what a run does.
type Mode string

// The modes.
const (
	Idle    Mode = "idle"    // holds connections
	Connect Mode = "connect" // opens and closes connections
	Echo    Mode = "echo"    // every connection sends, and gets it back
	Fanout  Mode = "fanout"  // some publish, all members of the room receive
)

// Order is what the server promises about the order of messages.
type Order string

// The orders.
const (
	ByRoom      Order = "room"      // all members of a room receive in one order
	ByPublisher Order = "publisher" // what one publisher sent arrives in its order
)

// What is sent to a Hubbub, where Options name nothing else.
const (
	hubbubInit    = `{"msg_type":"join_room","room":"%r","id":1}`
	hubbubReady   = `"msg_type":"joined"`
	hubbubPublish = `{"msg_type":"room_message","room":"%r","content":"%p"}`
	hubbubError   = `{"msg_type":"error"`
)

// Options say what a run does. A field that is zero takes its default.
type Options struct {
	Mode Mode
	// URL is the server's: ws://, wss://, http:// or https://. Default: ws://localhost:8080. Without a path it gets
	// /ws, or /echo in the mode Echo.
	URL string
	// Header are more lines of the handshake's request, "Name: value".
	Header []string
	// TLS is used with wss://. Its ServerName defaults to the URL's host.
	TLS *tls.Config
	// Compression offers permessage-deflate without context takeover, and compresses what is sent.
	Compression bool

	// Conns is how many connections Idle and Echo hold. Default: 1000 and 100. Fanout has Rooms times Members.
	Conns int
	// Rooms is into how many rooms the connections are spread. Default: 1 for Fanout, else 0: none is joined.
	Rooms int
	// Members is how many connections each room has. Default: 100.
	Members int
	// Publishers is how many connections publish, each to its own room. Default: one a room, and at least 16 or all.
	Publishers int
	// Window is how many messages are under way at once, while Rate is 0: for Fanout in all, for Echo on each
	// connection. Default: 16 and 1.
	Window int
	// Rate is how many messages are sent a second, in all. Default: 0, as fast as the window lets.
	Rate float64
	// Size is a payload's size in bytes, at least MinSize. Default: 128.
	Size int

	// Duration is how long is measured, after Warmup. Default: 10 s; Warmup has none.
	Duration, Warmup time.Duration
	// Settle is how long the server is left alone after the connects. Default: 500 ms.
	Settle time.Duration
	// Timeout bounds opening a connection, TCP, TLS and upgrade together, and joining. Default: 10 s.
	Timeout time.Duration
	// Drain is how long a message may be under way when nothing else arrives: then it is lost. Default: 5 s.
	Drain time.Duration
	// Concurrency is how many connections are opened at once. Default: 128, and 64 for Connect.
	Concurrency int

	// Init are templates of frames that each connection sends at first, and Publish that of a message; %r is the room's
	// name, %n its number, %i the connection's number, %p the payload, %% a percent sign. Default: the room protocol of
	// Hubbub; for Echo the payload alone.
	Init    []string
	Publish string
	// InitWait sends each frame of Init only when one has come since the frame before.
	InitWait bool
	// Ready is a text in the frame that tells a connection that it has joined. Default: none is waited for; for Hubbub
	// its joined.
	Ready string
	// Reply are answers to frames, "FRAME=ANSWER", for servers whose heartbeat is a message.
	Reply []string
	// IncludeSender says that a publisher gets its own messages too.
	IncludeSender bool
	// Order is what is checked. Default: ByRoom for Hubbub, else ByPublisher.
	Order Order

	// ServerPID is the server's process. Default: the one that listens there, if that is this machine.
	ServerPID int
	// Progress, where it is set, is called from one goroutine every ProgressEvery (default: 1 s) until Run returns.
	Progress      func(Status)
	ProgressEvery time.Duration

	hubbub bool // its room protocol is spoken; withDefaults sets it
}

const (
	// MinSize is the smallest payload: the marker by which it is known again.
	MinSize = markerSize
	// maxSize is the largest.
	maxSize = 8 << 20
	// maxPairs bounds the state of the checks, four bytes for each member and publisher of its room.
	maxPairs = 1 << 26
	// maxWindow bounds what is under way: half of the ring of publishes.
	maxWindow = ringSize / 2
)

// OptionsError says that Options can't be used; nothing was done.
type OptionsError struct{ Err error }

func (e *OptionsError) Error() string { return e.Err.Error() }
func (e *OptionsError) Unwrap() error { return e.Err }

// withDefaults fills in what is zero.
func (o Options) withDefaults() Options {
	o.hubbub = o.Publish == "" && len(o.Init) == 0
	setDefault(&o.URL, "ws://localhost:8080")
	setDefault(&o.Size, 128)
	setDefault(&o.Duration, 10*time.Second)
	setDefault(&o.Settle, 500*time.Millisecond)
	setDefault(&o.Timeout, 10*time.Second)
	setDefault(&o.Drain, 5*time.Second)
	setDefault(&o.ProgressEvery, time.Second)
	setDefault(&o.Concurrency, map[Mode]int{Connect: 64}[o.Mode])
	setDefault(&o.Concurrency, 128)
	switch o.Mode {
	case Idle:
		setDefault(&o.Conns, 1000)
	case Echo:
		setDefault(&o.Conns, 100)
		setDefault(&o.Window, 1)
		setDefault(&o.Publish, "%p")
	case Fanout:
		setDefault(&o.Rooms, 1)
		setDefault(&o.Members, 100)
		setDefault(&o.Window, 16)
		setDefault(&o.Publishers, min(max(16, o.Rooms), o.Rooms*o.Members))
		o.Conns = o.Rooms * o.Members
	}
	if o.hubbub && o.Rooms > 0 {
		o.Init, o.Ready = []string{hubbubInit}, hubbubReady
		setDefault(&o.Publish, hubbubPublish)
		setDefault(&o.Order, ByRoom)
	}
	setDefault(&o.Order, ByPublisher)
	return o
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// validate names every option that can't be. The defaults are filled in.
func (o *Options) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch o.Mode {
	case Idle, Connect, Echo, Fanout:
	default:
		bad("mode %q: unknown", o.Mode)
	}
	const most = 1 << 22
	for _, n := range []struct {
		name               string
		value, least, most int
	}{
		{"conns", o.Conns, 0, most},
		{"rooms", o.Rooms, 0, most},
		{"members", o.Members, 0, most},
		{"publishers", o.Publishers, 0, 1<<24 - 1},
		{"window", o.Window, 0, maxWindow},
		{"size", o.Size, MinSize, maxSize},
		{"concurrency", o.Concurrency, 1, 1 << 16},
		{"server-pid", o.ServerPID, 0, 1 << 30},
	} {
		if n.value < n.least || n.value > n.most {
			bad("%s %d: not between %d and %d", n.name, n.value, n.least, n.most)
		}
	}
	for _, t := range []struct {
		name  string
		value time.Duration
	}{{"duration", o.Duration}, {"warmup", o.Warmup}, {"settle", o.Settle}, {"timeout", o.Timeout}, {"drain", o.Drain}} {
		if t.value < 0 || t.value > 24*time.Hour {
			bad("%s %s: not between 0s and 24h", t.name, t.value)
		}
	}
	if o.Rate < 0 || o.Rate > 1e8 {
		bad("rate %g: not between 0 and 1e8", o.Rate)
	}
	if o.Order != ByRoom && o.Order != ByPublisher {
		bad("order %q: unknown; use %q or %q", o.Order, ByRoom, ByPublisher)
	}
	for _, h := range o.Header {
		if name, _, ok := strings.Cut(h, ":"); !ok || name == "" || strings.ContainsAny(h, "\r\n") {
			bad("header %q: not of the form \"Name: value\"", h)
		}
	}
	for _, r := range o.Reply {
		if frame, _, ok := strings.Cut(r, "="); !ok || frame == "" {
			bad("reply %q: not of the form FRAME=ANSWER", r)
		}
	}
	if o.Mode == Fanout {
		errs = append(errs, o.validateFanout()...)
	}
	return errors.Join(errs...)
}

func (o *Options) validateFanout() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Members < 2 && !o.IncludeSender {
		bad("members %d: a publisher needs somebody who receives", o.Members)
	}
	if o.Conns > 1<<22 {
		bad("rooms %d times members %d: more than %d connections", o.Rooms, o.Members, 1<<22)
	}
	if o.Publishers > o.Conns {
		bad("publishers %d: more than there are connections, %d", o.Publishers, o.Conns)
	}
	if perRoom := (o.Publishers + o.Rooms - 1) / max(o.Rooms, 1); o.Conns*perRoom > maxPairs {
		bad("members %d, publishers %d: more than %d pairs to keep an eye on; fewer publishers will do", o.Members, o.Publishers, maxPairs)
	}
	if o.Publish == "" {
		bad("init without publish: what a publisher sends is not known")
	}
	return errs
}

// parseURL reads the URL, with the path that the mode wants where it has none.
func (o *Options) parseURL() (*url.URL, error) {
	text := o.URL
	if !strings.Contains(text, "://") {
		text = "ws://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("url %q: %w", o.URL, errors.Unwrap(err))
	}
	switch u.Scheme {
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	case "ws", "wss":
	default:
		return nil, fmt.Errorf("url %q: neither ws:// nor wss://", o.URL)
	}
	switch {
	case u.Hostname() == "":
		return nil, fmt.Errorf("url %q: no host", o.URL)
	case u.User != nil:
		return nil, fmt.Errorf("url %q: a user's name can't stand there; give a header Authorization", o.URL)
	}
	if u.Path == "" {
		u.Path = "/ws"
		if o.Mode == Echo {
			u.Path = "/echo"
		}
	}
	u.Fragment = ""
	return u, nil
}
