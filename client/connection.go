package client

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// connection is one WebSocket: a goroutine reads, which is the keeper's own, one writes, one sees that it is alive, and
// one renews the token.
type connection struct {
	// Static.
	hub    *Hub
	ws     *websocket.Conn
	ctx    context.Context // ends when the reader does
	cancel context.CancelFunc
	wake   chan struct{} // there is something to write

	// Any goroutine.
	heard   atomic.Int64 // when the last byte came, since began
	stopped atomic.Bool  // nothing is read, because nobody takes it
	began   time.Time

	others sync.WaitGroup // its goroutines but the reader, which starts them and waits for them

	// Guarded by hub.mu.
	welcomed       bool
	unentered      int           // rooms, or pages of them, that the server has not answered for
	open           bool          // the queue may go out
	silence, grace time.Duration // PingInterval, PongTimeout
	wantPing       bool
	after          time.Duration // what reconnect said; -1: nothing
	why            error         // the client gave it up; nil: it didn't
	timers         map[string]*time.Timer
	clock          chan struct{} // closed when the server's clock is known
	clockKnown     bool
}

// What counts until welcome says otherwise.
const (
	defaultSilence = 25 * time.Second
	defaultGrace   = 10 * time.Second
)

func newConnection(h *Hub) *connection {
	c := &connection{
		hub: h, wake: make(chan struct{}, 1), began: time.Now(),
		silence: defaultSilence, grace: defaultGrace, after: -1, clock: make(chan struct{}),
		timers: map[string]*time.Timer{},
	}
	c.patience(h.opts, incoming{})
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

func (c *connection) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// giveUp ends the connection, and not the session. hub.mu is held.
func (c *connection) giveUp(why error) {
	c.why = cmp.Or(c.why, why)
	c.cancel()
}

// later calls do, with hub.mu held, unless the connection ends before or the same name is given again. hub.mu is held.
func (c *connection) later(name string, after time.Duration, do func()) {
	if t := c.timers[name]; t != nil {
		t.Stop()
	}
	var timer *time.Timer
	timer = time.AfterFunc(after, func() {
		c.hub.mu.Lock()
		defer c.hub.mu.Unlock()
		if c.timers[name] == timer {
			delete(c.timers, name)
			do()
		}
	})
	c.timers[name] = timer
}

// forgetTimers has nothing happen later any more. hub.mu is held.
func (c *connection) forgetTimers() {
	for _, t := range c.timers {
		t.Stop()
	}
	clear(c.timers)
}

// serve reads until the connection ends, and waits until its other goroutines have.
func (c *connection) serve() error {
	c.others.Go(c.write)
	c.others.Go(c.watch)
	err := c.read()
	c.cancel()
	c.ws.CloseNow()
	c.others.Wait()
	return err
}

func (c *connection) read() error {
	for {
		kind, r, err := c.ws.Reader(c.ctx)
		if err != nil {
			return err
		}
		c.hear()
		if kind != websocket.MessageText {
			return errors.New("the server sent a binary message")
		}
		raw, err := io.ReadAll(hearing{r, c})
		if err != nil {
			return err
		}
		events, err := c.hub.receive(c, raw)
		if err != nil {
			return err
		}
		for _, d := range events {
			c.stopped.Store(true)
			d.to.put(c.hub.ctx, d.event, &c.hub.waiting, c.hub.poked)
			c.hear()
			c.stopped.Store(false)
		}
	}
}

// hearing notes every byte that comes: a long message over a slow line is a sign of life too.
type hearing struct {
	io.Reader
	c *connection
}

func (r hearing) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.c.hear()
	return n, err
}

// quiet is for how long nothing has come.
func (c *connection) quiet() time.Duration {
	return time.Since(c.began) - time.Duration(c.heard.Load())
}

func (c *connection) hear() { c.heard.Store(int64(time.Since(c.began))) }

// write writes what is to be written, until the connection ends.
func (c *connection) write() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		}
		for {
			frame := c.hub.next(c)
			if frame == nil {
				break
			}
			if c.ws.Write(c.ctx, websocket.MessageText, frame) != nil {
				c.ws.CloseNow() // the reader tells why
				return
			}
		}
	}
}

// watch asks for a sign of life where nothing comes, ends the connection where none is given, and closes it when the Hub
// is closed.
func (c *connection) watch() {
	asked := int64(-1) // what was heard last when the server was asked
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.hub.ctx.Done():
			c.ws.Close(websocket.StatusNormalClosure, "")
			return
		case <-timer.C:
		}
		heard := c.heard.Load()
		quiet := time.Since(c.began) - time.Duration(heard)
		c.hub.mu.Lock()
		silence, grace := c.silence, c.grace
		switch {
		case c.stopped.Load():
			timer.Reset(grace)
		case quiet < silence:
			timer.Reset(silence - quiet)
		case heard != asked:
			asked, c.wantPing = heard, true
			c.wakeUp()
			timer.Reset(grace)
		default:
			c.giveUp(errors.New("the server gave no sign of life"))
		}
		c.hub.mu.Unlock()
	}
}

// patience sets how long the server may say nothing: by the options, else by its welcome. hub.mu is held.
func (c *connection) patience(o Options, welcome incoming) {
	c.silence = cmp.Or(max(0, o.PingInterval), max(0, time.Duration(welcome.PingIntervalMS)*time.Millisecond), c.silence)
	c.grace = cmp.Or(max(0, o.PongTimeout), max(0, time.Duration(welcome.PongTimeoutMS)*time.Millisecond), c.grace)
}
