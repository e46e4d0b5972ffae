package nats

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
)

// maxPayload is the largest message that a server of ours takes.
const maxPayload = 8 << 20

// MaxBody is the largest body that may be published, in bytes: its group must fit into a message.
const MaxBody = 6 << 20

const startTimeout = time.Minute

// Start runs a NATS server in this process, with its streams in a folder. Nothing listens on the network. It waits until
// what is in the folder has been read.
func Start(dir string, cfg Config) (*Broker, error) {
	s, err := serve(dir, cfg.Logger)
	if err != nil {
		return nil, fmt.Errorf("the log in %s: %w", dir, err)
	}
	return connect(s, cfg, client.DefaultURL, client.InProcessServer(s)) // the URL isn't used then
}

func serve(dir string, log *slog.Logger) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "hubbub",
		DontListen: true,
		JetStream:  true,
		StoreDir:   dir,
		MaxPayload: maxPayload,
		NoSigs:     true,
		// How long what was acknowledged may be in the system's hands alone. With each message it would cost a disk's turn.
		SyncInterval: time.Second,
	})
	if err != nil {
		return nil, err
	}
	if log != nil {
		s.SetLoggerV2(serverLog{log}, false, false, false)
	}
	s.Start()
	if !s.ReadyForConnections(startTimeout) || !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, errors.New("it doesn't start: the lines before this say why")
	}
	return s, nil
}

// serverLog passes on what a NATS server logs, apart from what it says each time that it starts.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Noticef(format string, v ...any) { l.log.Debug("NATS: " + text(format, v)) }
func (l serverLog) Warnf(format string, v ...any)   { l.log.Warn("NATS: " + text(format, v)) }
func (l serverLog) Errorf(format string, v ...any)  { l.log.Error("NATS: " + text(format, v)) }
func (l serverLog) Fatalf(format string, v ...any)  { l.log.Error("NATS: " + text(format, v)) }
func (l serverLog) Debugf(string, ...any)           {}
func (l serverLog) Tracef(string, ...any)           {}

func text(format string, v []any) string { return strings.TrimSpace(fmt.Sprintf(format, v...)) }
