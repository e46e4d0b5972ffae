package hubbub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/nats"
	"example.com/hubbub/internal/front"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/protocol/room"
	"example.com/hubbub/internal/wire"
)

// Config sizes a Server. The zero value works: each field that is zero takes its default.
type Config struct {
	// Workers is how many event-loop workers own the connections. Default: GOMAXPROCS.
	Workers int
	// MaxConnections is how many WebSockets may be open; above it an upgrade gets 503. Default: the limit of open files
	// less max(64, a 32nd), which stays free for requests that are not upgraded yet; where the
	// logs of rooms are in DataDir, less 64, 8, and 24 for each pair of messages and age in Rooms, if that is more; but of
	// these the logs take half of the limit at most.
	MaxConnections int
	// MaxConnectionsPerIP is how many of them may come from one address; of IPv6 from one /64. Above it an upgrade gets
	// 429. Behind a proxy all clients have the proxy's address, unless TrustedProxies names it. Default: 0, no limit.
	MaxConnectionsPerIP int
	// MaxRoomsPerClient is how many rooms a client may be in. Default: 1000.
	MaxRoomsPerClient int
	// MaxMessageBytes bounds a client's message, all its fragments together; a larger one closes the connection with
	// 1009. At least 128; below 1 KiB a client can't come back to a room of the longest name. Default: 64 KiB.
	MaxMessageBytes int
	// SendQueueBytes and SendQueueAge are what a client may leave unsent before SlowConsumer acts: that many bytes, and
	// the oldest of them that old. Less bytes than MaxMessageBytes are refused. Default: 1 MiB, 30 s.
	SendQueueBytes int
	SendQueueAge   time.Duration
	// MaxBufferedBytes bounds what all clients together leave unsent or half received, and what is kept for them:
	// history, lost sessions, publish_ids, presence, what waits for hooks. Of the latter one client, or one user, may
	// take a 64th, or what its other limits come to, up to an eighth, and one address four times as much, where
	// MaxConnectionsPerIP, TrustedProxies or one of Limits.Address is set; beyond it is told "rate_limited" or
	// "limit_reached". Above it all the rooms that nobody is in go first, with their history; then parked sessions;
	// then the largest debtors are closed with 1013; upgrades get 503 and /readyz says so. Default: a quarter of the
	// memory that the process may use.
	MaxBufferedBytes int64
	// SlowConsumer is what happens to a client that can't keep up, in rooms whose policy names nothing else: see
	// RoomPolicy.SlowConsumer. Default: "disconnect".
	SlowConsumer string
	// Rooms are the policies of rooms: the first counts whose Match matches. After them come two that are built in: the
	// room "lobby" has full presence, and every other room the defaults of RoomPolicy. At most 1000.
	Rooms []RoomPolicy
	// Limits are how often a client, a user and an address may do a thing. Default: as often as they like.
	Limits Limits
	// Chat and Direct are who may send chats and direct messages: "anyone", "users" (who has a name), "granted" (whose
	// token says so), or "server", the application alone. Default: "anyone", but "users" where some way of identifying
	// clients is set.
	Chat, Direct string
	// DedupWindow is how long a publish_id counts: the same publisher's next message to the room with it is
	// acknowledged and not delivered again. At least 1 s. Default: 2 min.
	DedupWindow time.Duration
	// ResumeWindow is how long a session is kept whose connection was lost, for its client to resume; until then the
	// others don't see it leave. Whole seconds, at least 1 s; negative: not at all. Default: 30 s.
	ResumeWindow time.Duration
	// PingInterval is how often a client is pinged; one that gave no sign of life, not a single byte, for PingInterval
	// and PongTimeout together is closed. Both at least 1 s. Default: 25 s, 10 s.
	PingInterval time.Duration
	PongTimeout  time.Duration
	// HandshakeTimeout is how long the head of a request may take, on a Server's own listener; of a connection's first one
	// with TLS's handshake. Default: 10 s.
	HandshakeTimeout time.Duration
	// ShutdownDelay is how long Shutdown still accepts connections while /readyz says 503 already, so that a load
	// balancer notices. Default: 0.
	ShutdownDelay time.Duration
	// AllowedOrigins are patterns of the origins whose pages may connect, beside the server's own; "*" stands for any
	// run of characters: "https://*.example.com", "http://localhost:*". A bare "*" lets every page on the web act in
	// the name of your users. Opened files and the shells of some desktop programs are "null" or "file://", which only
	// these very words let in. A pattern that matches nothing that a browser sends is refused. Default: the server's
	// own origin only.
	AllowedOrigins []string
	// TrustedProxies are the addresses of proxies and ranges of them (CIDR), and "unix" for whoever connects by a Unix
	// socket. What they say in X-Forwarded-For or Forwarded is their clients' address from then on, in limits, logs and
	// a Request's RemoteAddr, and their X-Forwarded-Host counts beside Host where a page's origin is looked at. Each of
	// them must write one of the first two headers itself, and none may be reached by a client with the address of one.
	// Default: none.
	TrustedProxies []string
	// ProxyProtocol has each connection from TrustedProxies, which it needs, begin with a header of the PROXY protocol,
	// version 1 or 2: who the client is. One without a header is refused. A connection from elsewhere is served as it
	// is, and such a header of it is no HTTP. For Serve and ListenAndServe, with listeners of Listen or without TLS; where
	// a Server is another server's handler it does nothing. Default: false.
	ProxyProtocol bool
	// Subprotocols are the values of Sec-WebSocket-Protocol that the server agrees to: the first of a client's offers
	// that is one of these is chosen, and means nothing more. Browsers close a connection for which they offered some
	// and none was chosen. Default: none is ever chosen.
	Subprotocols []string
	// BasePath is what all paths begin with, such as "/live" for /live/ws, where the Server is mounted below a path
	// that nobody strips. Default: empty.
	BasePath string
	// Page is whether there is a page at "/" on which everybody may try the server: "on" or "off", which takes the
	// console from the public paths too. The JavaScript client at "/hubbub.js" is there in any case. Default: "on".
	Page string
	// Settings are what GET /settings and the console show of how the server was set up. It is called anew each time,
	// by any goroutine, and must leave out what is secret. Default: nothing is shown.
	Settings func() []Setting
	// Compression is permessage-deflate (RFC 7692) with the clients that offer it: "on" compresses each message by
	// itself, so that it is done once for all receivers and an idle client costs no memory; "context" lets messages
	// refer to those before them, compresses for each client anew, and keeps 16 KiB for each, 40 KiB where the client
	// does not let us bound its part; "off" declines. Default: "on".
	Compression string
	// IO is how connections are read and written: "auto" (one of the next and the last), "epoll" (Linux), "uring" (epoll,
	// and plain connections are written to by io_uring: Linux 5.19, and no filter that forbids it) or "pump" (portable).
	// Default: "auto".
	IO string
	// JWT says which tokens tell who a client is. Who has none is refused then, before the upgrade; so is who shows one
	// that isn't good, even where Anonymous is set. Default: none; whoever connects is let in.
	JWT JWT
	// Authenticate is your own way to say who a client is, in the place of JWT. It is called for each handshake, on its
	// goroutine, also without a token, and when a client that is connected shows a new one; at most MaxHookCalls at
	// once, and for HookTimeout, at whose end it has to return. Without an Identity the client is one without a token.
	// An *Error refuses, for good or with 503 by its code, and its message goes to the client; so does ErrTokenExpired.
	// Any other is logged, and the client is told to try again later. It must not call Shutdown.
	Authenticate func(ctx context.Context, c *Credentials) (*Identity, error)
	// Anonymous lets those in who show no token, without a name, where JWT or Authenticate is set.
	Anonymous bool
	// APIKeys are the keys of the HTTP API at /api/v1, for the application's backend. Default: none, and every call is
	// refused.
	APIKeys []APIKey
	// RecentLog gives the newest lines of the program's log, oldest first, for GET /api/v1/log, which needs a key with the
	// right tail. It must not wait. Default: none, and the call is 404.
	RecentLog func() []string
	// AdminApart takes /api/v1 and /metrics off the Server's paths: they are AdminHandler's alone then, for ServeAdmin
	// on another address. Default: no.
	AdminApart bool
	// Webhooks are what the application's backend is told. Default: nothing.
	Webhooks Webhooks
	// TracerProvider has what is published by the API, or by Publish, followed by spans of OpenTelemetry, through the hub,
	// its logs and other nodes, to the webhook. Spans begin and end under locks, so its processors must not block: the
	// SDK's batch processor doesn't. Default: none, which costs nothing.
	TracerProvider trace.TracerProvider
	// DataDir is a folder for what shall outlive the process: the history of rooms, with their epochs and what was published
	// once, and the webhooks that the backend has not taken yet, with the number of the next. It is made where there is
	// none, and one process's at a time. Default: none, all of it is in memory.
	DataDir string
	// NodeName is what this server is called in webhooks and by the API: letters, digits and -._, at most 128. Default:
	// an id that is kept in DataDir, or made up at each start.
	NodeName string
	// Broker keeps the logs of rooms with history and brings this node together with others, in the place of NATS: one of
	// your own, which package broker/brokertest holds to what it must do. It is one Server's, which runs it until Shutdown.
	// All nodes need the same Rooms, DedupWindow and Cluster.Secret. Where a room's history is to have other bounds, the
	// broker must give it another log, with an epoch that it never had. It must take what clients may send,
	// MaxMessageBytes and a kilobyte. Default: none; a Server is alone, and its logs are in memory, or in DataDir.
	Broker broker.Broker
	// Cluster is what this node knows of others, and makes it a store for them. Default: it is alone.
	Cluster Cluster
	// NATS are servers that keep the logs and bring nodes together, in the place of stores. Default: none.
	NATS NATS
	// Handlers are your own kinds of messages, by msg_type. The names of the protocol can't be taken.
	Handlers map[string]Handler
	// Hooks are your code in a client's life: connect, join, read, publish, request, disconnect.
	Hooks Hooks
	// Questions are what the application's backend is asked by HTTP, before the hook of the same kind.
	Questions Questions
	// HookTimeout bounds one call of a Handler or a hook; where there are Questions, their time is added. Default: 5 s.
	HookTimeout time.Duration
	// ReadAgain is what POST /api/v1/reload does: read the settings again from where they are, give them to Server.Reload, and
	// return what that does. Default: none, and the call says so.
	ReadAgain func(ctx context.Context) (changed, kept []string, err error)
	// MaxHookCalls is how many of them run at once, over all clients, and how many of Connect beside them; the others
	// wait. Those of one user, or of a client without a name, take a sixteenth of the places at most, but at least 4;
	// where MaxConnectionsPerIP, TrustedProxies or one of Limits.Address is set, those of one address four times as many.
	// Default: 1024.
	MaxHookCalls int
	// Logger gets what an operator should know. Default: slog.Default().
	Logger *slog.Logger
}

// Handler obeys a client's message of a type of your own. It runs on a goroutine of its own, one call at a time for
// each client, so it may block; ctx ends when the client is gone or the time is up. The reply, what Server.Publish
// takes, is sent to the client as {"msg_type": the same, "from": "server", "content": reply}, with the message's id; a
// nil reply is an ack if the message had an id. An *Error goes to the client; any other error is logged, and the client
// is told "internal". It may call every method of Server.
type Handler func(ctx context.Context, m *Message) (reply any, err error)

// Message is a client's message for a Handler.
type Message struct {
	Client string          // the id of who sent it
	User   string          // its name, where a Connect hook gave it one
	Type   string          // its msg_type
	Raw    json.RawMessage // the whole object as it came; checked to be JSON
}

// Decode reads the message's fields into v, which json.Unmarshal takes. Its error is meant for the client.
func (m *Message) Decode(v any) error {
	if err := json.Unmarshal(m.Raw, v); err != nil {
		return &Error{Code: BadMessage, Message: err.Error()}
	}
	return nil
}

// Error is what a client is told; whether it may retry depends on the code.
type Error = protocol.Error

// Code is one of the protocol's error codes.
type Code = protocol.Code

// The codes that a Handler may want.
const (
	BadMessage   = protocol.BadMessage
	NotMember    = protocol.NotMember
	Forbidden    = protocol.Forbidden
	RateLimited  = protocol.RateLimited
	LimitReached = protocol.LimitReached
	Unavailable  = protocol.Unavailable
	Internal     = protocol.Internal
)

const disconnect = "disconnect"

// Setting is one of those that Config.Settings shows.
type Setting struct {
	Name, Value string
	From        string // where the value is from, such as "the default"
	Hidden      bool   // it is set, and a secret: Value is empty
}

// What Page may be.
const (
	pageOn  = "on"
	pageOff = "off"
)

// What Compression may be.
const (
	compressionOn      = "on"
	compressionOff     = "off"
	compressionContext = "context"
)

// Effective is c with every field that is zero set to its default.
func (c Config) Effective() Config { return c.withDefaults() }

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	defTime := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.Workers, runtime.GOMAXPROCS(0))
	def(&c.MaxRoomsPerClient, 1000)
	def(&c.MaxMessageBytes, 64<<10)
	def(&c.SendQueueBytes, 1<<20)
	def(&c.MaxHookCalls, 1024)
	defTime(&c.SendQueueAge, 30*time.Second)
	defTime(&c.PingInterval, 25*time.Second)
	defTime(&c.PongTimeout, 10*time.Second)
	defTime(&c.DedupWindow, 2*time.Minute)
	defTime(&c.ResumeWindow, 30*time.Second)
	defTime(&c.HandshakeTimeout, 10*time.Second)
	defTime(&c.HookTimeout, 5*time.Second)
	if c.MaxBufferedBytes == 0 {
		c.MaxBufferedBytes = memoryLimit() / 4
	}
	if c.SlowConsumer == "" {
		c.SlowConsumer = disconnect
	}
	c.Questions = c.Questions.withDefaults()
	c.Chat, c.Direct = cmp.Or(c.Chat, c.outsiders()), cmp.Or(c.Direct, c.outsiders())
	c.Rooms = slices.Clone(c.Rooms)
	for i, r := range c.Rooms {
		c.Rooms[i] = r.withDefaults(c.SlowConsumer)
	}
	def(&c.MaxConnections, c.defaultMaxConnections())
	c.limitsWithDefaults()
	c.BasePath = strings.TrimRight(c.BasePath, "/")
	c.Page = cmp.Or(c.Page, pageOn)
	c.Cluster.Name = cmp.Or(c.Cluster.Name, "hubbub")
	if c.Compression == "" {
		c.Compression = compressionOn
	}
	if c.IO == "" {
		c.IO = string(loop.Auto)
	}
	defTime(&c.JWT.Leeway, defaultLeeway)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// outsiders are those who may do by default what belongs to no room.
func (c Config) outsiders() string {
	if c.identifies() || c.Questions.identify() {
		return hub.Users.String()
	}
	return hub.Anyone.String()
}

// defaultMaxConnections leaves part of the open files to requests, logs and the rest of the process.
func (c *Config) defaultMaxConnections() int {
	n := openFileLimit()
	return max(1, n-max(64+min(c.logFiles(), n/2), n/32))
}

// Validate names every setting that can't be used; New calls it. Zero stands for the default.
func (c Config) Validate() error {
	c = c.withDefaults()
	errs := slices.Concat(c.validateNumbers(), c.validateTimes(), c.validateNames(), c.validateRequests(), c.validateLimits(), c.validateIdentity(), c.validateQuestions(), c.validateWebhooks(), c.validateCluster())
	if _, err := c.policies(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.apiKeys(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// faults collects what is wrong with settings.
type faults []error

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Errorf(format, args...)) }

// leastMessage has room for a message to a room and its id.
const leastMessage = 128

func (c Config) validateNumbers() (bad faults) {
	const most = 1 << 30
	for _, n := range []struct {
		name        string
		value       int
		least, most int
	}{
		{"workers", c.Workers, 1, 1024},
		{"max-connections", c.MaxConnections, 1, most},
		{"max-connections-per-ip", c.MaxConnectionsPerIP, 0, most},
		{"max-rooms-per-client", c.MaxRoomsPerClient, 1, 1 << 20},
		{"max-message-bytes", c.MaxMessageBytes, 1, most},
		{"send-queue-bytes", c.SendQueueBytes, 1, most},
		{"max-hook-calls", c.MaxHookCalls, 1, most},
	} {
		if n.value < n.least || n.value > n.most {
			bad.add("%s %d: not between %d and %d", n.name, n.value, n.least, n.most)
		}
	}
	if n := c.MaxMessageBytes; n > 0 && n < leastMessage {
		bad.add("max-message-bytes %d: less than %d, in which hardly a message has room", n, leastMessage)
	}
	if (c.keepsLog() || c.role() > roleBroker) && c.MaxMessageBytes > nats.MaxBody {
		bad.add("max-message-bytes %d: more than the %d that the log of rooms takes (data-dir, join, nats)", c.MaxMessageBytes, nats.MaxBody)
	}
	if c.SendQueueBytes < c.MaxMessageBytes {
		bad.add("send-queue-bytes %d: less than max-message-bytes, %d", c.SendQueueBytes, c.MaxMessageBytes)
	}
	if c.MaxBufferedBytes < int64(c.MaxMessageBytes) {
		bad.add("max-buffered-bytes %d: less than max-message-bytes, %d", c.MaxBufferedBytes, c.MaxMessageBytes)
	}
	return bad
}

func (c Config) validateTimes() (bad faults) {
	for _, t := range []struct {
		name  string
		value time.Duration
		least time.Duration
	}{
		{"send-queue-age", c.SendQueueAge, time.Second},
		{"ping-interval", c.PingInterval, time.Second},
		{"pong-timeout", c.PongTimeout, time.Second},
		{"dedup-window", c.DedupWindow, time.Second},
		{"handshake-timeout", c.HandshakeTimeout, 100 * time.Millisecond},
		{"hook-timeout", c.HookTimeout, time.Millisecond},
		{"shutdown-delay", c.ShutdownDelay, 0},
	} {
		if t.value < t.least || t.value > 24*time.Hour {
			bad.add("%s %s: not between %s and 24h", t.name, t.value, t.least)
		}
	}
	if w := c.ResumeWindow; w >= 0 && (w < time.Second || w > 24*time.Hour) {
		bad.add("resume-window %s: not between 1s and 24h", w)
	}
	return bad
}

// validateNames looks at the settings whose values are words.
func (c Config) validateNames() (bad faults) {
	switch c.Compression {
	case compressionOn, compressionOff, compressionContext:
	default:
		bad.add("compression %q: unknown; use %q, %q or %q", c.Compression, compressionOn, compressionOff, compressionContext)
	}
	if c.Page != pageOn && c.Page != pageOff {
		bad.add("page %q: unknown; use %q or %q", c.Page, pageOn, pageOff)
	}
	switch loop.IO(c.IO) {
	case loop.Auto, loop.Pump:
	case loop.Epoll, loop.Uring:
		if err := loop.Supports(loop.IO(c.IO)); err != nil {
			bad.add("io %q: %w; or use %q", c.IO, err, loop.Auto)
		}
	default:
		bad.add("io %q: unknown; use %q, %q, %q or %q", c.IO, loop.Auto, loop.Epoll, loop.Uring, loop.Pump)
	}
	for _, of := range []struct{ name, value string }{{"chat", c.Chat}, {"direct", c.Direct}} {
		if _, err := hub.ParseOutsider(of.value); err != nil {
			bad.add("%s %w", of.name, err)
		}
	}
	for name, h := range c.Handlers {
		if h == nil {
			bad.add("handler %q: nil", name)
		}
		if name == "" || room.Defined(name) {
			bad.add("handler %q: the name belongs to the protocol", name)
		}
	}
	return bad
}

// validateRequests looks at what decides about requests.
func (c Config) validateRequests() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := checkBasePath(c.BasePath); err != nil {
		bad("base-path %q: %w", c.BasePath, err)
	}
	for i, p := range c.Subprotocols {
		switch {
		case !wire.IsToken(p):
			bad("subprotocols %q: not letters, digits and -._ alone", p)
		case slices.Contains(c.Subprotocols[:i], p):
			bad("subprotocols %q: stands there twice", p)
		}
	}
	for _, p := range c.TrustedProxies {
		if _, err := front.ParseProxy(p); err != nil {
			bad("trusted-proxies %q: %w", p, err)
		}
	}
	if c.ProxyProtocol && len(c.TrustedProxies) == 0 {
		bad("proxy-protocol on: it needs trusted-proxies: everyone could make up an address")
	}
	for _, p := range c.AllowedOrigins {
		if _, err := front.ParseOriginPattern(p); err != nil {
			bad("allowed-origins %q: %w", p, err)
		}
	}
	return errs
}

// checkBasePath takes what a request's path can begin with, without escapes, and a shell takes as it is.
func checkBasePath(path string) error {
	if path == "" {
		return nil
	}
	if path[0] != '/' {
		return fmt.Errorf("it doesn't begin with a slash: write /%s", path)
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/"
	if strings.Trim(path, letters) != "" {
		return errors.New("it has more than letters, digits, slashes and -._~")
	}
	for part := range strings.SplitSeq(path[1:], "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("%q is no part of a path", part)
		}
	}
	return nil
}
