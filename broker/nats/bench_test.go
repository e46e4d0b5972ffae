package nats

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/hubbub/broker"
)

// cpu is what this process, with the servers in it, has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Three nodes publish 40,000 messages a second to 20 rooms of three replicas. Each message that was taken must be
// acknowledged, though all streams get other leaders halfway; a queue may be full (ErrBusy), which is said at once.
// HUBBUB_LANES is for how long, 1s by default.
func TestLanes(t *testing.T) {
	const rate, rooms, publishers = 40_000, 20, 3
	long := time.Second
	if s := os.Getenv("HUBBUB_LANES"); s != "" {
		var err error
		if long, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	c := startCluster(t, 3)
	var nodes []*testNode
	for range publishers {
		nodes = append(nodes, run(t, c.node()))
	}
	var all []broker.Room
	for _, name := range names("room ", rooms) {
		r := broker.Room{Name: name, Messages: 1000, Age: time.Hour}
		all = append(all, r)
		nodes[0].publish(r, "first", "")
	}
	var mu sync.Mutex
	var taken, busy int
	var acked, failed []time.Duration
	why := map[string]int{}
	var done sync.WaitGroup
	body := make([]byte, 100)
	done.Add(1)
	time.AfterFunc(long/2, func() {
		c.stepDown()
		done.Done()
	})
	begin, used := time.Now(), cpu()
	for sent := 0; time.Since(begin) < long; time.Sleep(time.Millisecond) {
		for ; sent < int(rate*min(time.Since(begin), long)/time.Second); sent++ { // a machine that is behind sends no more than these
			at := time.Now()
			done.Add(1)
			err := nodes[sent%publishers].Publish(all[sent/publishers%rooms], broker.Message{Body: body}, func(_ broker.Position, _ bool, err error) {
				defer done.Done()
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed = append(failed, time.Since(at))
					why[err.Error()]++
					return
				}
				acked = append(acked, time.Since(at))
			})
			if err != nil {
				busy++
				done.Done()
				continue
			}
			taken++
		}
	}
	done.Wait()
	took := time.Since(begin)
	slices.Sort(acked)
	t.Logf("%d taken, %d refused as busy in %v: %.0f acknowledged a second, p50 %v, p99 %v, the slowest %v; %v of CPU a message with the servers",
		taken, busy, took, float64(len(acked))/took.Seconds(), acked[len(acked)/2], acked[len(acked)*99/100], acked[len(acked)-1],
		(cpu()-used)/time.Duration(len(acked)))
	if len(failed) > 0 {
		t.Errorf("%d failed, after %v: %v", len(failed), failed, why)
	}
}

// So many rooms with a message are opened at once on one node, as after its restart.
func BenchmarkOpening(b *testing.B) {
	for _, of := range []struct {
		name    string
		servers int
	}{{"embedded", 1}, {"three servers", 3}} {
		for _, many := range []int{10_000, 100_000} {
			b.Run(fmt.Sprint(of.name, "/", many), func(b *testing.B) {
				node := opener(b, of.servers)
				a := run(b, node())
				fill(b, a, many, 100)
				for b.Loop() {
					n := run(b, node())
					openMany(b, n, many)
					n.stop()
				}
			})
		}
	}
}

func opener(b *testing.B, servers int) func() *Broker {
	if servers > 1 {
		return startCluster(b, servers).node
	}
	e := startEmbedded(b)
	return func() *Broker { return e.node(b) }
}

func fill(b *testing.B, n *testNode, many, size int) {
	var all sync.WaitGroup
	for _, name := range names("room ", many) {
		all.Add(1)
		for n.Publish(testRoom(name), broker.Message{Body: make([]byte, size)}, func(_ broker.Position, _ bool, err error) {
			if err != nil {
				b.Error(err)
			}
			all.Done()
		}) != nil {
			time.Sleep(time.Millisecond)
		}
	}
	all.Wait()
}

func openMany(b *testing.B, n *testNode, many int) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	threads := runtime.NumGoroutine()
	var most atomic.Int64
	var all sync.WaitGroup
	begin, used := time.Now(), cpu()
	for _, name := range names("room ", many) {
		all.Add(1)
		n.Open(testRoom(name), func(log broker.Log, err error) {
			if err != nil || len(log.Entries) != 1 {
				b.Errorf("%q: %d entries, %v", name, len(log.Entries), err)
			}
			most.Store(max(most.Load(), int64(runtime.NumGoroutine()-threads)))
			all.Done()
		})
	}
	all.Wait()
	b.ReportMetric(time.Since(begin).Seconds(), "s")
	b.ReportMetric((cpu() - used).Seconds(), "CPU-s")
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/float64(many), "B/room")
	b.ReportMetric(float64(most.Load()), "goroutines")
}

// The tails of an eighth of 100,000 open rooms are looked at, which are those of one stream: where nothing was published,
// where another room of the stream got something, and where each got a message of 1 KB, which is here.
func BenchmarkTails(b *testing.B) {
	const many = 12_500
	for _, of := range []struct {
		name    string
		servers int
	}{{"embedded", 1}, {"three servers", 3}} {
		node := opener(b, of.servers)
		n := run(b, node())
		st := n.stream(testRoom("other"))
		var all sync.WaitGroup
		n.publish(testRoom("other"), "m", "")
		st.mu.Lock()
		nonce := st.nonce
		st.mu.Unlock()
		for i := range many {
			name := fmt.Sprint("room ", i)
			all.Add(1)
			for st.publish(name, broker.Message{Body: make([]byte, 1000)}, func(broker.Position, bool, error) { all.Done() }) != nil {
				time.Sleep(time.Millisecond)
			}
			// As if it were open, and had got all.
			st.mu.Lock()
			st.rooms[token(name)] = &room{st: st, name: name, token: token(name), nonce: nonce, live: true}
			st.mu.Unlock()
		}
		all.Wait()
		st.mu.Lock()
		last := st.acked
		for _, ro := range st.rooms {
			ro.last = last
		}
		st.mu.Unlock()
		for _, state := range []string{"nothing new", "new elsewhere", "new everywhere"} {
			b.Run(of.name+"/"+state, func(b *testing.B) {
				used := cpu()
				for b.Loop() {
					switch state {
					case "new elsewhere":
						n.publish(testRoom("other"), "m", "")
					case "new everywhere":
						st.sweptTo(nonce, 0, time.Now())
					}
					if !st.sweep(nil) {
						b.Fatal("nothing can be seen")
					}
				}
				b.ReportMetric(float64((cpu()-used).Milliseconds())/float64(b.N), "CPU-ms/op")
			})
		}
	}
}

// A node tells a topic to which nobody listens, to which one other node does, and asks another node.
func BenchmarkTelling(b *testing.B) {
	for _, of := range []struct {
		name    string
		servers int
	}{{"embedded", 1}, {"three servers", 3}} {
		node := opener(b, of.servers)
		teller, listener := run(b, node()), run(b, node())
		teller.meets(1)
		heard := make(chan struct{}, 1)
		listener.others.mu.Lock()
		listener.others.hearing = func() { heard <- struct{}{} }
		listener.others.mu.Unlock()
		listener.listen("heard")
		body := make([]byte, 100)
		tell := func(b *testing.B, topic string) {
			for teller.Tell(topic, body) != nil {
				time.Sleep(100 * time.Microsecond) // too much waits
			}
		}
		b.Run(of.name+"/nobody listens", func(b *testing.B) {
			b.ReportAllocs()
			used := cpu()
			for b.Loop() {
				tell(b, "not heard")
			}
			for teller.nodes.out.waits() > 0 {
				time.Sleep(time.Millisecond)
			}
			b.ReportMetric(float64((cpu()-used).Nanoseconds())/float64(b.N), "CPU-ns/op")
		})
		b.Run(of.name+"/one after the other", func(b *testing.B) {
			for b.Loop() {
				tell(b, "heard")
				<-heard
			}
		})
		b.Run(of.name+"/at once", func(b *testing.B) {
			used := cpu()
			const most = 1000 // on their way; what is too much is dropped
			for i := range b.N + most {
				if i < b.N {
					tell(b, "heard")
				}
				if i >= most {
					<-heard
				}
			}
			b.ReportMetric(float64((cpu()-used).Nanoseconds())/float64(b.N), "CPU-ns/op")
		})
		b.Run(of.name+"/asking", func(b *testing.B) {
			for b.Loop() {
				if _, err := teller.ask(listener.ID(), "question"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Ten thousand topics are listened to at once.
func BenchmarkListening(b *testing.B) {
	const many = 10_000
	for _, of := range []struct {
		name    string
		servers int
	}{{"embedded", 1}, {"three servers", 3}} {
		b.Run(of.name, func(b *testing.B) {
			node := opener(b, of.servers)
			run(b, node()).meets(0)
			for b.Loop() {
				b.StopTimer()
				n := run(b, node())
				n.meets(1)
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				threads := runtime.NumGoroutine()
				b.StartTimer()
				begin, used := time.Now(), cpu()
				var all sync.WaitGroup
				for _, name := range names("topic ", many) {
					all.Add(1)
					n.Listen(name, func(err error) {
						if err != nil {
							b.Error(err)
						}
						all.Done()
					})
				}
				most := runtime.NumGoroutine() - threads
				all.Wait()
				b.ReportMetric(time.Since(begin).Seconds(), "s")
				b.ReportMetric((cpu() - used).Seconds(), "CPU-s")
				b.StopTimer()
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/float64(many), "B/topic")
				b.ReportMetric(float64(most), "goroutines")
				n.stop()
				b.StartTimer()
			}
		})
	}
}
