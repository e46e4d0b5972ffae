package nats

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"

	"example.com/hubbub/internal/sparselog"
)

// maxPayload is the largest message that a server of ours takes.
const maxPayload = 8 << 20

// MaxBody is the largest body that may be published, in bytes: its group must fit into a message.
const MaxBody = 6 << 20

const startTimeout = time.Minute

// Start runs a NATS server in this process, with its streams in a folder. Nothing listens on the network. It waits until
// what is in the folder has been read.
func Start(dir string, cfg Config) (*Broker, error) {
	e := &embedded{dir: dir, log: cfg.Logger}
	err := e.take("", false)
	if err == nil {
		err = e.start()
	}
	if err != nil {
		return nil, fmt.Errorf("the log in %s: %w", dir, err)
	}
	cfg.Alone = true
	return connect(e, cfg, client.DefaultURL, client.InProcessServer(e)) // the URL isn't used then
}

// embedded is a NATS server in this process.
type embedded struct {
	dir   string
	log   *slog.Logger // nil for none
	store *Store       // nil where nothing listens
	tls   *tls.Config  // between nodes; nil for none

	mu     sync.Mutex
	s      *server.Server // nil while it starts anew, and once it has stopped
	looked time.Time      // when tryDisk did last
	over   bool
}

func (e *embedded) start() error {
	options, err := e.options()
	if err != nil {
		return err
	}
	s, err := server.NewServer(options)
	if err != nil {
		return err
	}
	says := &serverLog{log: e.log, clustered: e.clustered()}
	if says.log == nil {
		says.log = slog.New(slog.DiscardHandler)
	}
	s.SetLoggerV2(says, false, false, false)
	s.Start()
	for until := time.Now().Add(startTimeout); ; {
		ready, fatal := s.ReadyForConnections(startTimeout/1000), says.fatal.Load()
		switch {
		case fatal != nil:
			err = errors.New(*fatal)
		case ready && s.JetStreamEnabled():
			e.s = s
			return nil
		case ready || time.Now().After(until):
			err = errors.New("it doesn't start: the lines before this say why")
		default:
			continue
		}
		s.Shutdown()
		s.WaitForShutdown()
		return err
	}
}

// InProcessConn implements nats.InProcessConnProvider: connections come back to the server that there is then.
func (e *embedded) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.s == nil {
		return nil, errors.New("the server is down")
	}
	return e.s.InProcessConn()
}

// stop ends the server for good. Where other stores are there it hands what it leads to them before.
func (e *embedded) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
	if e.s != nil && e.clustered() {
		e.handOver()
	}
	e.end()
}

// end: e.mu is held.
func (e *embedded) end() {
	if e.s != nil {
		e.s.Shutdown()
		e.s.WaitForShutdown()
		e.s = nil
	}
}

// reviveAfter is the time between two looks at whether the server has to be started anew.
const reviveAfter = 5 * time.Second

// revive starts the server anew, where it has taken nothing for a while though the disk does: once the disk was full, or
// failed, JetStream writes to that stream's files no more. It is called when that may be so, and does nothing where
// it was called a moment ago.
func (e *embedded) revive() {
	if !e.mu.TryLock() {
		return // another one does it already: each room that waits asks for it
	}
	defer e.mu.Unlock()
	if e.clustered() && !e.sick() || !e.tryDisk() {
		return
	}
	e.end()
	if err := e.start(); err != nil {
		e.takesNothing(err)
	} else if e.log != nil {
		e.log.Warn("the log of rooms took nothing for a while, and was opened anew", "folder", e.dir)
	}
}

// look says in the log where the disk is why no stream can be made. Such a server needn't start anew: it has no file yet
// that it has given up. As revive, it does nothing where either was called a moment ago.
func (e *embedded) look() {
	if e.mu.TryLock() {
		e.tryDisk()
		e.mu.Unlock()
	}
}

// tryDisk says whether the disk takes something, as far as it is time to look. e.mu is held.
func (e *embedded) tryDisk() bool {
	if e.over || time.Since(e.looked) < reviveAfter {
		return false
	}
	e.looked = time.Now()
	err := e.writes()
	if err != nil {
		e.takesNothing(err)
	}
	return err == nil
}

func (e *embedded) takesNothing(err error) {
	if e.log != nil {
		e.log.Error("the log of rooms takes nothing", "folder", e.dir, "error", err)
	}
}

// writes says whether the disk takes a little.
func (e *embedded) writes() error {
	f, err := os.CreateTemp(filepath.Dir(e.dir), "try-*")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 256<<10))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
}

// serverLog passes on what a NATS server logs, apart from what it says each time that it starts: what goes wrong at most
// once a second.
type serverLog struct {
	log              *slog.Logger
	clustered        bool
	warnings, errors sparselog.Log
	fatal            atomic.Pointer[string] // the first thing that keeps it from running
}

func (l *serverLog) Noticef(format string, v ...any) { l.log.Debug("NATS: " + text(format, v)) }
func (l *serverLog) Warnf(format string, v ...any) {
	says := text(format, v) // the format may be %s alone
	if l.clustered && (strings.HasPrefix(says, "Waiting for routing") || strings.HasPrefix(says, "JetStream has not established contact")) {
		l.log.Debug("NATS: " + says) // follow says so, too
		return
	}
	l.warnings.Log(l.log, slog.LevelWarn, "NATS: "+says)
}
func (l *serverLog) Errorf(format string, v ...any) {
	says := text(format, v)
	if l.clustered && strings.HasPrefix(says, "Error trying to connect to route") {
		l.log.Debug("NATS: " + says) // follow says so in words for the operator, where it goes on
		return
	}
	l.errors.Log(l.log, slog.LevelError, "NATS: "+hint(says))
}
func (l *serverLog) Fatalf(format string, v ...any) {
	why := text(format, v)
	l.fatal.CompareAndSwap(nil, &why)
	l.log.Error("NATS: " + why)
}
func (l *serverLog) Debugf(string, ...any) {}
func (l *serverLog) Tracef(string, ...any) {}

// hint is what an operator has to know of an error of NATS.
func hint(text string) string {
	switch {
	case strings.Contains(text, server.ErrAuthentication.Error()), strings.Contains(text, "Authorization Violation"):
		return text + ": one of the two has another --cluster-secret or another --cluster-name"
	case strings.Contains(text, "Rejecting connection, cluster name"):
		return text + ": all nodes must have the same --cluster-name"
	case strings.Contains(text, "duplicate name"):
		return text + ": two stores have the same id, for one's data-dir is a copy of the other's; give it an empty one"
	}
	return text
}

func text(format string, v []any) string { return strings.TrimSpace(fmt.Sprintf(format, v...)) }
