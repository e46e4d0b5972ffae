package loop

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"

	"example.com/hubbub/internal/wire"
)

// discard is a socket that takes everything and has nothing to read.
type discard struct{}

func (discard) recv([]byte) (int, error)   { return 0, errAgain }
func (discard) send(b []byte) (int, error) { return len(b), nil }
func (discard) settle() error              { return nil }
func (discard) shutdownWrite()             {}
func (discard) hangUp(bool)                {}

// byHand is a worker without a goroutine, whose steps a benchmark takes itself, and n connections whose sockets
// discard.
func byHand(n int, h Handler) (*Worker, []*Conn) {
	l := &Loop{}
	l.settings.Store(&Config{Workers: 1, MaxMessageBytes: 64 << 10, SendQueueBytes: 1 << 20, MaxBufferedBytes: 1 << 30, Log: slog.New(slog.DiscardHandler)})
	w := &Worker{loop: l, log: l.cfg().Log, poll: newChanPoller(), arena: newArena(), in: make([]byte, readSize)}
	conns := make([]*Conn, n)
	for i := range conns {
		conns[i] = &Conn{w: w, h: h, via: discard{}, fd: -1}
	}
	return w, conns
}

// writeTogether gives a worker that was made by hand a sender that throws away what it gets.
func writeTogether(w *Worker, conns []*Conn) {
	w.together.sender = &discardAll{}
	for _, c := range conns {
		c.via = nil
	}
}

type discardAll struct{ all []sent }

func (d *discardAll) put(_ int32, b []byte) (more bool) {
	d.all = append(d.all, sent{n: len(b)})
	return len(d.all) < 64
}

func (d *discardAll) send() []sent {
	all := d.all
	d.all = d.all[:0]
	return all
}

func (d *discardAll) close() {}

// hear is what a read of these bytes does, up to the write at the end of the turn.
func hear(w *Worker, c *Conn, b []byte) {
	w.feed(c, w.in[:copy(w.in, b)])
	w.flushAll()
}

// An echo without its two system calls.
func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{60, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			w, conns := byHand(1, echo())
			frame := frameTo(string(make([]byte, size)))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				hear(w, conns[0], frame)
			}
		})
	}
}

// One publish without its system calls, from the encoded payload to the end of the turn: queued for each member, joined
// where there are several, and written.
func BenchmarkFanout(b *testing.B) {
	payload := make([]byte, 200)
	for _, members := range []int{1, 100, 1000, 10_000} {
		run := func(name string, messages int, send func(conns []*Conn, frames []*Frame)) {
			b.Run(fmt.Sprintf("%s/members=%d", name, members), func(b *testing.B) {
				w, conns := byHand(members, nil)
				frames := make([]*Frame, messages)
				b.ReportAllocs()
				for b.Loop() {
					for i := range frames {
						frames[i] = NewFrame(wire.Text, payload)
					}
					send(conns, frames)
					w.flushAll()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*members*messages), "ns/delivery")
			})
		}
		joined := func(conns []*Conn, frames []*Frame) {
			all := Join(frames)
			for _, c := range conns {
				c.Send(all)
			}
		}
		run("one message", 1, joined)
		run("16 joined by the room", 16, joined)
		run("16 joined by the write", 16, func(conns []*Conn, frames []*Frame) {
			for _, f := range frames {
				for _, c := range conns {
					c.Send(f)
				}
			}
		})
	}
}

func BenchmarkMailbox(b *testing.B) {
	nothing := taskFunc(func(*Worker) {})
	for _, tasks := range []int{1, 64} {
		b.Run(fmt.Sprintf("post and run %d", tasks), func(b *testing.B) {
			w, _ := byHand(0, nil)
			b.ReportAllocs()
			for b.Loop() {
				for range tasks {
					w.Post(nothing, 0)
				}
				w.runMail()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*tasks), "ns/task")
		})
	}
	b.Run("4 goroutines post to a running worker", benchContended)
}

// benchContended needs more than one processor; each post is an operation. Who finds the mailbox above high water
// waits, as publishers do.
func benchContended(b *testing.B) {
	l, err := New(Config{Workers: 1, IO: Auto, MaxBufferedBytes: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { l.Stop(0); l.Wait() }()
	w := l.workers[0]
	nothing := taskFunc(func(*Worker) {})
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range (b.N + i) / 4 {
				for full := w.Post(nothing, 0); full; full = w.Full() {
					runtime.Gosched()
				}
			}
		})
	}
	all.Wait()
	do(w, func() {})
}

// What a post costs that has to wake the worker, and is waited for.
func BenchmarkPostToASleepingWorker(b *testing.B) {
	l, err := New(Config{Workers: 1, IO: Auto})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { l.Stop(0); l.Wait() }()
	done := make(chan struct{})
	t := taskFunc(func(*Worker) { done <- struct{}{} })
	b.ReportAllocs()
	for b.Loop() {
		l.workers[0].Post(t, 0)
		<-done
	}
}
