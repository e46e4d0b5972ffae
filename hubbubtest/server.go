package hubbubtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/audit"
	"example.com/hubbub/internal/model"
)

// T is what the kit needs of a test: a *testing.T has it, and so have a *rapid.T and Ginkgo's.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any) // does not return
	Cleanup(func())
}

// Patience is how long a Client waits for what must come, by the test's clock, before it fails the test.
const Patience = time.Minute

// host is by which the clients know the server.
const host = "hubbub.test"

// Server is a hubbub.Server on a network of its own, in memory. Its methods may be called from any goroutine, but those
// that may fail the test only from the test's own.
type Server struct {
	*hubbub.Server

	t       T
	cfg     hubbub.Config
	network *network
	logged  *logBuffer
	clock   atomic.Int64 // numbers the events of all logs
	ports   atomic.Int64

	mu      sync.Mutex
	clients []*Client // all there ever were; guarded by mu
	own     *model.Log
	names   []string // by which it has published to users
}

// began is not before the clocks of the server's workers began.
var began = time.Now()

// NewServer starts a server that ends with the test. It works with the real clock, and in a synctest bubble with the
// bubble's; there it must be called before anything else is timed, because a bubble's clock begins in the year 2000 and
// is put forward to now. A panic in the server fails the test. The log, which a Logger in cfg would take away, is
// printed then; Log has it.
func NewServer(t T, cfg hubbub.Config) *Server {
	t.Helper()
	if cfg.IO != "" && cfg.IO != "pump" {
		t.Fatalf("hubbubtest: io %q: only %q works in memory", cfg.IO, "pump")
	}
	cfg.IO = "pump"
	s := &Server{t: t, cfg: cfg, network: newNetwork(), logged: &logBuffer{}, own: &model.Log{Name: "the application", Client: model.Server}}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(s.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	// The workers count from the start of the process: in a bubble that is still to come, and no timer would ever fire.
	time.Sleep(time.Until(began))
	server, err := hubbub.New(cfg)
	if err != nil {
		t.Fatalf("hubbubtest: %v", err)
	}
	s.Server = server
	served := make(chan error, 1)
	go func() { served <- server.Serve(s.network) }()
	t.Cleanup(func() { s.stop(served) })
	return s
}

func (s *Server) stop(served chan error) {
	s.checkAccounts()
	for _, c := range s.all() {
		c.Drop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		s.t.Errorf("hubbubtest: shut the server down: %v", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		s.t.Errorf("hubbubtest: %v", err)
	}
	if log := s.Log(); strings.Contains(log, "panic") {
		s.t.Errorf("hubbubtest: the server's log speaks of a panic:\n%s", log)
	}
}

// checkAccounts waits until all that the server counts is what is there: what a test leaves behind may be under way still.
func (s *Server) checkAccounts() {
	var faults []string
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if faults = audit.Server(s.Server); len(faults) == 0 {
			return
		}
	}
	s.t.Errorf("hubbubtest: the server's accounts don't fit: %s", strings.Join(faults, "; "))
}

// Log is what the server has logged so far, from level debug on; empty where cfg had a Logger.
func (s *Server) Log() string { return s.logged.String() }

// Publish is hubbub.Server's, and noted for Check, but for what goes to a User.
func (s *Server) Publish(ctx context.Context, p hubbub.Publication) (at hubbub.Position, err error) {
	room := p.Room
	switch {
	case p.Everyone:
		room = model.Everyone
	case p.Client != "":
		room = model.Direct(strings.ToLower(p.Client))
	case p.User != "":
		s.mu.Lock()
		s.names = append(s.names, p.From)
		s.mu.Unlock()
		return s.Server.Publish(ctx, p)
	}
	err = s.note(room, p, func() (hubbub.Position, error) {
		at, err = s.Server.Publish(ctx, p)
		return at, err
	})
	return at, err
}

func (s *Server) note(room string, p hubbub.Publication, do func() (hubbub.Position, error)) error {
	text, _ := json.Marshal(p.Content)
	sent := model.Event{
		Kind: model.Sent, Room: room, Message: string(text), ID: fmt.Sprint(s.clock.Add(1)),
		From: p.From, Key: p.Key, Exclude: strings.ToLower(p.Exclude),
	}
	s.add(sent)
	at, err := do()
	sent.Kind, sent.Position = model.Acked, model.Position{Epoch: at.Epoch, Offset: int64(at.Offset)}
	if err != nil {
		sent.Kind, sent.Reason = model.Refused, err.Error()
	}
	s.add(sent)
	return err
}

// DeleteMessage is hubbub.Server's, and noted for Check: who doesn't get the message then has lost nothing.
func (s *Server) DeleteMessage(ctx context.Context, room string, at hubbub.Position) error {
	return s.noteDeleted(ctx, room, at.Offset, func() error { return s.Server.DeleteMessage(ctx, room, at) })
}

// DeleteHistory is hubbub.Server's, and noted for Check.
func (s *Server) DeleteHistory(ctx context.Context, room string) error {
	return s.noteDeleted(ctx, room, 0, func() error { return s.Server.DeleteHistory(ctx, room) })
}

// Join is hubbub.Server's, and noted for Check.
func (s *Server) Join(ctx context.Context, room, client string) error {
	s.add(model.Event{Kind: model.PutIn, Room: room, From: strings.ToLower(client)}) // first: others may hear of it before it ends
	return s.Server.Join(ctx, room, client)
}

// noteDeleted notes what was taken back: one message, or with 0 all up to where the room is.
func (s *Server) noteDeleted(ctx context.Context, room string, offset uint64, do func() error) error {
	err := do()
	if r, unknown := s.Server.Room(ctx, room); err == nil && unknown == nil {
		e := model.Event{Kind: model.Deleted, Room: room, Position: model.Position{Epoch: r.Position.Epoch, Offset: int64(offset)}}
		if offset == 0 {
			e.ToOffset = int64(r.Position.Offset)
		}
		s.add(e)
	}
	return err
}

func (s *Server) add(e model.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.At, e.Time = s.clock.Add(1), time.Now()
	s.own.Events = append(s.own.Events, e)
}

func (s *Server) all() []*Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Client(nil), s.clients...)
}

// DialContext reaches the server, whatever the address: for an http.Transport, or for another WebSocket client.
func (s *Server) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	l, err := s.network.dial(ctx, s.nextAddr(""), linkBuffer)
	if err != nil {
		return nil, err
	}
	return l.client, nil
}

// HTTPClient reaches the server's pages, "http://any.host/healthz". It keeps no connection, so no goroutine is left.
func (s *Server) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: s.DialContext, DisableKeepAlives: true}, Timeout: Patience}
}

// nextAddr is the address of the next client, as the server sees it.
func (s *Server) nextAddr(ip string) net.Addr {
	a := &net.TCPAddr{IP: net.ParseIP(ip), Port: 1024 + int(s.ports.Add(1))%60000}
	if ip == "" {
		a.IP = net.IPv4(127, 0, 0, 1)
	}
	return a
}

// Check holds what all clients, also those that have gone, saw since the server started against what the server
// promises, and fails the test with each message that was lost in silence, doubled, out of order, or given to one whom
// it was not for. Every content must be another within its room. It waits until what was acknowledged has arrived, but
// for clients whose link is stalled.
func (s *Server) Check() {
	s.t.Helper()
	for _, f := range s.Faults() {
		s.t.Errorf("hubbubtest: %s", f)
	}
}

// Faults is Check without failing the test.
func (s *Server) Faults() (all []string) {
	s.t.Helper()
	for _, c := range s.all() {
		c.settle()
	}
	var logs []*model.Log
	for _, c := range s.all() {
		logs = append(logs, c.copyLog())
	}
	s.mu.Lock()
	logs = append(logs, &model.Log{Name: s.own.Name, Client: s.own.Client, Events: s.own.Events})
	names := slices.Clone(s.names)
	s.mu.Unlock()
	for _, f := range model.Check(model.Run{Logs: logs, Policy: s.policy, Names: names, Now: time.Now(), Window: max(0, s.cfg.Effective().ResumeWindow)}) {
		all = append(all, f.String())
	}
	return all
}

// policy is what a room promises, as the checker wants it.
func (s *Server) policy(room string) model.Policy {
	cfg := s.cfg.Effective()
	switch {
	case room == model.Everyone && cfg.SlowConsumer != "disconnect": // of chats there is no latest
		return model.Policy{SlowConsumer: "drop-oldest", QueueBytes: cfg.SendQueueBytes}
	case room == model.Everyone || room[0] == 0: // model.Direct
		return model.Policy{SlowConsumer: "disconnect"}
	}
	p, _, err := s.cfg.PolicyOf(room)
	if err != nil {
		return model.Policy{} // no room has such a name
	}
	return model.Policy{
		History: model.History{Messages: p.History.Messages, Age: p.History.Age, Bytes: p.History.Bytes}, Presence: p.Presence, IncludeSender: p.IncludeSender,
		SlowConsumer: p.SlowConsumer, QueueBytes: cfg.SendQueueBytes,
	}
}

// logBuffer keeps the beginning of a log, and its panics.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const maxLog = 1 << 20

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() < maxLog || bytes.Contains(p, []byte("panic")) {
		l.b.Write(p)
	}
	return len(p), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
