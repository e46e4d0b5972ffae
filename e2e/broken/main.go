//go:build unix

// Command broken is a program with the server in it and a fault of its own, for the stories of docs/troubleshooting.md
// that no outsider can provoke: one worker, a log that breaks or stands still at a client's broken frame, and handlers
// that fail or take too long.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"example.com/hubbub"
)

func main() {
	listen := flag.String("listen", "localhost:8080", "where it listens")
	key := flag.String("api-key", "", "a key of the API")
	panics := flag.Bool("panics", false, "the log panics at the first broken frame; else it stands still until SIGUSR1")
	flag.Parse()
	if err := run(*listen, *key, *panics); err != nil {
		log.Fatal(err)
	}
}

func run(listen, key string, panics bool) error {
	apiKey, err := hubbub.APIKeyOf("test", key)
	if err != nil {
		return err
	}
	goOn := make(chan os.Signal, 1)
	signal.Notify(goOn, syscall.SIGUSR1)
	text := slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})
	srv, err := hubbub.New(hubbub.Config{
		Workers:     1,
		Logger:      slog.New(&faultyLog{Handler: text, panics: panics, goOn: goOn}),
		APIKeys:     []hubbub.APIKey{apiKey},
		HookTimeout: 100 * time.Millisecond,
		Handlers: map[string]hubbub.Handler{
			"fail": func(context.Context, *hubbub.Message) (any, error) { return nil, errors.New("the database is gone") },
			"wait": func(ctx context.Context, _ *hubbub.Message) (any, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
		},
	})
	if err != nil {
		return err
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	l, err := hubbub.Listen(listen, nil)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case <-stop.Done():
		return srv.Shutdown(context.Background())
	case err := <-ended:
		return err
	}
}

// faultyLog is a log whose writer, a worker, comes to harm at the first line about a broken frame.
type faultyLog struct {
	slog.Handler
	panics bool
	goOn   <-chan os.Signal
	once   sync.Once
}

func (l *faultyLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "connection failed" {
		l.once.Do(func() {
			_ = l.Handler.Handle(ctx, slog.NewRecord(r.Time, slog.LevelInfo, "a fault", 0))
			if l.panics {
				panic("a fault of the log")
			}
			<-l.goOn
		})
	}
	return l.Handler.Handle(ctx, r)
}
