package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"example.com/hubbub/internal/bench"
)

// benchCmd has a command for each mode. None of their flags is an environment variable: HUBBUB_COMPRESSION and its like
// are the server's.
type benchCmd struct {
	Idle    benchIdle    `cmd:"" help:"Hold connections: what memory each costs the server."`
	Connect benchConnect `cmd:"" help:"Open connections and close them again: handshakes a second."`
	Echo    benchEcho    `cmd:"" help:"Send on every connection, and wait for the same to come back."`
	Fanout  benchFanout  `cmd:"" help:"Publish to rooms: messages that reach all members."`
}

// Help is shown by hubbub bench --help.
func (benchCmd) Help() string {
	return `Against a server on this machine no flag is needed:

    hubbub serve &
    hubbub bench fanout

The result is a table on stdout, or with --json one object. The status is 1 when a message was lost, doubled or out of order, or a connection broke. Control-C ends a run early, and prints the result so far. docs/bench.md explains the figures.`
}

// benchTarget are the flags that all modes have.
type benchTarget struct {
	URL         string        `default:"ws://localhost:8080" env:"-" placeholder:"URL" help:"The server, ws:// or wss://; without a path /ws is added, by echo /echo (${default})."`
	Duration    time.Duration `default:"10s" env:"-" placeholder:"TIME" help:"How long is measured (${default})."`
	Concurrency int           `default:"0" env:"-" placeholder:"N" help:"Connections that are opened at once (0: 128; by connect 64)."`
	Timeout     time.Duration `default:"10s" env:"-" placeholder:"TIME" help:"How long opening one connection may take (${default})."`
	Header      []string      `sep:"none" env:"-" placeholder:"LINE" help:"One more line of the handshake, such as \"Origin: https://example.com\"; may be repeated."`
	Insecure    bool          `env:"-" help:"Accept any certificate."`
	CA          string        `name:"ca" env:"-" placeholder:"FILE" help:"Trust the certificates in this file, PEM, and no others."`
	Compression bool          `env:"-" help:"Offer permessage-deflate, and compress what is sent."`
	ServerPID   int           `name:"server-pid" default:"0" env:"-" placeholder:"PID" help:"The server's process, for its CPU and memory (0: who listens there, if that is this machine)."`
	JSON        bool          `name:"json" env:"-" help:"Print the result as one JSON object."`
	Quiet       bool          `short:"q" env:"-" help:"Print no progress."`
}

// benchFrames are the flags for servers of other protocols.
type benchFrames struct {
	Init     []string `sep:"none" env:"-" placeholder:"FRAME" help:"Template of a text frame that each connection sends at first, in place of Hubbub's join; may be repeated."`
	InitWait bool     `env:"-" help:"Send each --init only when a frame has come since the one before."`
	Ready    string   `env:"-" placeholder:"TEXT" help:"A connection has joined when a frame with this text comes; else once it has sent --init."`
	Reply    []string `sep:"none" env:"-" placeholder:"FRAME=ANSWER" help:"Answer a frame that is exactly this, for heartbeats; may be repeated."`
}

func (c *benchFrames) options(o *bench.Options) {
	o.Init, o.InitWait, o.Ready, o.Reply = c.Init, c.InitWait, c.Ready, c.Reply
}

// benchLoad are the flags of the modes that send.
type benchLoad struct {
	Rate    float64       `default:"0" env:"-" placeholder:"N" help:"Messages a second in all; latency counts from when each was due (0: as fast as --window lets)."`
	Size    size          `default:"128" env:"-" placeholder:"SIZE" help:"Of a payload, such as 512 or 16KiB (${default})."`
	Warmup  time.Duration `default:"1s" env:"-" placeholder:"TIME" help:"Load before the measurement begins (${default})."`
	Drain   time.Duration `default:"5s" env:"-" placeholder:"TIME" help:"A message is lost when it has not come and for so long nothing else has (${default})."`
	Publish string        `env:"-" placeholder:"FRAME" help:"Template of a message, in place of Hubbub's; it needs %p."`
}

func (c *benchLoad) options(o *bench.Options) {
	o.Rate, o.Size, o.Warmup, o.Drain, o.Publish = c.Rate, int(c.Size), c.Warmup, c.Drain, c.Publish
}

const placeholders = "Templates: %r is the room's name, %n its number, %i the connection's number, %p the payload, %% a percent sign."

type benchIdle struct {
	benchTarget `embed:""`
	Conns       int           `default:"1000" env:"-" placeholder:"N" help:"Connections (${default})."`
	Rooms       int           `default:"0" env:"-" placeholder:"N" help:"Rooms that they are spread over (0: none is joined)."`
	Settle      time.Duration `default:"2s" env:"-" placeholder:"TIME" help:"How long the server is left alone after the connects before its memory is read (${default})."`
	benchFrames `embed:""`
}

// Help is shown by hubbub bench idle --help.
func (benchIdle) Help() string {
	return `Opens connections, and reads the server's memory before, once they have settled, and after --duration.

    hubbub bench idle --conns 10000
    hubbub bench idle --conns 10000 --rooms 10 --duration 1m

` + placeholders
}

// Run does what the flags say.
func (c *benchIdle) Run() error {
	o := bench.Options{Mode: bench.Idle, Conns: c.Conns, Rooms: c.Rooms, Settle: c.Settle}
	c.benchFrames.options(&o)
	return c.run(o)
}

type benchConnect struct {
	benchTarget `embed:""`
	Warmup      time.Duration `default:"0s" env:"-" placeholder:"TIME" help:"Load before the measurement begins (${default})."`
}

// Help is shown by hubbub bench connect --help.
func (benchConnect) Help() string {
	return `Opens connections, TCP, TLS and upgrade, and closes each with a Close at once.

    hubbub bench connect
    hubbub bench connect --concurrency 16 --url wss://chat.example.com`
}

// Run does what the flags say.
func (c *benchConnect) Run() error {
	return c.run(bench.Options{Mode: bench.Connect, Warmup: c.Warmup})
}

type benchEcho struct {
	benchTarget `embed:""`
	Conns       int `default:"100" env:"-" placeholder:"N" help:"Connections (${default})."`
	Window      int `default:"1" env:"-" placeholder:"N" help:"Messages under way at once on each (${default})."`
	benchLoad   `embed:""`
	benchFrames `embed:""`
}

// Help is shown by hubbub bench echo --help.
func (benchEcho) Help() string {
	return `Every connection sends, and when a message has come back the next one.

    hubbub bench echo --conns 1000 --window 16
    hubbub bench echo --conns 1000 --rate 5000 --size 16KiB
    hubbub bench echo --url wss://echo.example.com/ --publish '{"text":"%p"}'

` + placeholders
}

// Run does what the flags say.
func (c *benchEcho) Run() error {
	o := bench.Options{Mode: bench.Echo, Conns: c.Conns, Window: c.Window}
	c.benchLoad.options(&o)
	c.benchFrames.options(&o)
	return c.run(o)
}

type benchFanout struct {
	benchTarget   `embed:""`
	Rooms         int    `default:"1" env:"-" placeholder:"N" help:"Rooms (${default})."`
	Members       int    `default:"100" env:"-" placeholder:"N" help:"Connections in each (${default})."`
	Publishers    int    `default:"0" env:"-" placeholder:"N" help:"Members that publish, in all (0: one a room, and at least 16 or all)."`
	Window        int    `default:"16" env:"-" placeholder:"N" help:"Messages under way at once, in all, until their last receiver has them (${default})."`
	IncludeSender bool   `env:"-" help:"The server sends a message to its publisher too."`
	Order         string `default:"" enum:",room,publisher" env:"-" placeholder:"ORDER" help:"What the server promises: one order for all of a \"room\" (Hubbub's), or that of each \"publisher\" (with --publish)."`
	benchLoad     `embed:""`
	benchFrames   `embed:""`
}

// Help is shown by hubbub bench fanout --help.
func (benchFanout) Help() string {
	return `Members of a room publish, and every other member has to get it once, in order.

    hubbub bench fanout --members 1000
    hubbub bench fanout --rooms 100 --members 10 --publishers 1000 --window 64
    hubbub bench fanout --members 1000 --rate 20 --duration 1m
    hubbub bench fanout --url ws://localhost:8000/connection/websocket \
        --init '{"id":1,"connect":{}}' --init '{"id":2,"subscribe":{"channel":"%r"}}' \
        --publish '{"id":3,"publish":{"channel":"%r","data":"%p"}}' \
        --init-wait --ready '"id":2' --reply '{}={}' --include-sender

` + placeholders
}

// Run does what the flags say.
func (c *benchFanout) Run() error {
	o := bench.Options{
		Mode: bench.Fanout, Rooms: c.Rooms, Members: c.Members, Publishers: c.Publishers, Window: c.Window,
		IncludeSender: c.IncludeSender, Order: bench.Order(c.Order),
	}
	c.benchLoad.options(&o)
	c.benchFrames.options(&o)
	return c.run(o)
}

// run runs and prints. The error says what went wrong with the messages, too.
func (c *benchTarget) run(o bench.Options) error {
	if c.Duration <= 0 {
		return usageError{fmt.Errorf("--duration %s: must be greater than 0", c.Duration)}
	}
	secure, err := c.secure()
	if err != nil {
		return usageError{err}
	}
	o.URL, o.Duration, o.Concurrency, o.Timeout = c.URL, c.Duration, c.Concurrency, c.Timeout
	o.Header, o.TLS, o.Compression, o.ServerPID = c.Header, secure, c.Compression, c.ServerPID
	erase := func() {}
	if !c.Quiet {
		o.Progress, o.ProgressEvery, erase = progress(os.Stderr)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second one ends the process at once; but not that which follows immediately: timeout(1) sends two.
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) })
	result, err := bench.Run(ctx, o)
	erase()
	if bad := (*bench.OptionsError)(nil); errors.As(err, &bad) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = json.NewEncoder(os.Stdout).Encode(result)
	} else {
		err = result.Print(os.Stdout)
	}
	if err != nil {
		return err
	}
	return result.Err()
}

// secure is what wss:// is checked by.
func (c *benchTarget) secure() (*tls.Config, error) {
	config := &tls.Config{InsecureSkipVerify: c.Insecure}
	if c.CA == "" {
		return config, nil
	}
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca %s: no certificate in it", c.CA)
	}
	return config, nil
}

// progress shows how far a run is: on a terminal on one line that changes, elsewhere on a line now and then. erase
// takes the line away.
func progress(f *os.File) (show func(bench.Status), every time.Duration, erase func()) {
	if !term.IsTerminal(int(f.Fd())) {
		return func(s bench.Status) { fmt.Fprintln(f, s) }, 5 * time.Second, func() {}
	}
	width := func() int {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
		return 80
	}
	return liveLine(f, width), 250 * time.Millisecond, func() { fmt.Fprint(f, "\r\x1b[K") }
}

// liveLine writes each status over the one before, cut to the terminal's width, or it would leave a line behind.
func liveLine(w io.Writer, width func() int) func(bench.Status) {
	return func(s bench.Status) {
		text := []rune(s.String())
		fmt.Fprint(w, "\r", strings.TrimRight(string(text[:min(len(text), width()-1)]), " "), "\x1b[K")
	}
}
