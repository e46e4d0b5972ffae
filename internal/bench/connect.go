package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"example.com/hubbub/internal/wsclient"
)

// handshaker counts what the openers of Connect do.
type handshaker struct {
	r *runner

	mu      sync.Mutex
	opened  int64
	row     int                     // failures in a row
	from    int64                   // when the measurement began
	latency *hdrhistogram.Histogram // of those that began since then
	failed  map[string]int
	broken  map[string]int
	first   string
}

// connect opens connections and closes them again, some at a time.
func (r *runner) connect(ctx context.Context) {
	h := &handshaker{r: r, from: 1 << 62, latency: newHistogram(), failed: map[string]int{}, broken: map[string]int{}}
	run, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var openers sync.WaitGroup
	start := func() {
		for range r.o.Concurrency {
			openers.Go(func() {
				for run.Err() == nil {
					if !h.once(run) {
						cancel(errHopeless)
					}
				}
			})
		}
	}
	if r.o.Warmup > 0 {
		r.enter("warming up", r.clock.now()+int64(r.o.Warmup), h.status)
		start()
		wait(run, r.o.Warmup)
	}
	r.before = r.sample(nil)
	h.mu.Lock()
	h.from = r.before.at
	h.mu.Unlock()
	r.enter("measuring", r.before.at+int64(r.o.Duration), h.status)
	if r.o.Warmup <= 0 {
		start()
	}
	wait(run, r.o.Duration)
	r.after = r.sample(nil)
	err := context.Cause(run)
	cancel(nil) // a connection that is not open by now does not count
	openers.Wait()

	res := r.result
	res.Handshakes = newHandshakes(h.latency, r.after.at-r.before.at)
	if _, ok := r.server.memory(); ok {
		res.Server = &Server{PIDs: r.server.pids}
		res.Server.MemoryEnd, _ = r.server.memory()
	}
	res.Faults.Failed, res.Faults.Broken, res.Faults.First = h.failed, h.broken, h.first
	res.ended(ctx, err)
	r.finish(nil, res.Handshakes.Opened)
}

var errHopeless = errors.New("no connection opens any more")

// wait waits, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// once opens a connection and closes it. It says whether there is hope for others.
func (h *handshaker) once(ctx context.Context) bool {
	began := h.r.clock.now()
	c, err := h.r.d.dial(ctx)
	took := h.r.clock.now() - began
	if err != nil {
		if ctx.Err() != nil {
			return true
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.failed[reason(err)]++
		h.note(err)
		h.row++
		return h.row < max(hopeless, h.r.o.Concurrency)
	}
	h.mu.Lock()
	h.row = 0
	h.opened++
	if began >= h.from && ctx.Err() == nil {
		record(h.latency, took)
	}
	h.mu.Unlock()
	if err := c.goodbye(); err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.broken[endReason(err)]++
		h.note(err)
	}
	return true
}

func (h *handshaker) note(err error) {
	if h.first == "" {
		h.first = err.Error()
	}
}

func (h *handshaker) status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Status{Done: h.opened, P50: time.Duration(h.latency.ValueAtQuantile(50)), P99: time.Duration(h.latency.ValueAtQuantile(99))}
	for _, n := range h.failed {
		s.Errors += int64(n)
	}
	for _, n := range h.broken {
		s.Errors += int64(n)
	}
	return s
}

// goodbye sends a Close and waits for the server's.
func (c dialed) goodbye() error {
	defer abandon(c.tcp)
	c.tcp.SetDeadline(time.Now().Add(closeWait))
	bye := wsclient.AppendClose(nil, [4]byte{}, closeNormal, "")
	if _, err := c.conn.Write(bye); err != nil {
		return err
	}
	// Ahead of its Close comes what the server says to newcomers.
	b := append(make([]byte, 0, 1024), c.rest...)
	total := 0
	for total < maxMessage {
		f, size, err := wsclient.Parse(b, maxMessage)
		switch {
		case err != nil:
			return err
		case size > cap(b):
			b = append(make([]byte, 0, size), b...)
			continue
		case size <= len(b):
			if f.Op == wsclient.Close {
				return nil
			}
			b = append(b[:0], b[size:]...)
			continue
		}
		n, err := c.conn.Read(b[len(b):cap(b)])
		b, total = b[:len(b)+n], total+n
		switch {
		case n == 0 && errors.Is(err, io.EOF):
			return errors.New("ended without a Close")
		case n == 0 && err != nil:
			return err
		}
	}
	return fmt.Errorf("no Close in %d bytes", total)
}
