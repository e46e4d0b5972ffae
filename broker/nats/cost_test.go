package nats

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub/broker"
)

// costly says for how long each of BenchmarkCost's measurements goes on, 1s by default, or is apart in the servers' process.
const (
	costly = "HUBBUB_COST"
	apart  = "servers"
)

// serveApart is what a process of BenchmarkCost does: it is three servers and nothing else, so that their CPU can be told from
// the nodes'.
func serveApart() {
	testing.Benchmark(func(b *testing.B) {
		for _, s := range startCluster(b, 3).servers {
			fmt.Println("server", s.ClientURL())
		}
		_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark ends
	})
}

// serversApart starts such a process, and gives the servers' addresses and what they have used of CPU.
func serversApart(t testing.TB) (urls []string, used func() time.Duration) {
	cmd := exec.CommandContext(context.Background(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), costly+"="+apart)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for len(urls) < 3 && lines.Scan() {
		if url, ok := strings.CutPrefix(lines.Text(), "server "); ok {
			urls = append(urls, url)
		}
	}
	if len(urls) < 3 {
		t.Fatal("the servers don't start")
	}
	return urls, func() time.Duration {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')'):]))
		var ticks int
		for _, f := range fields[12:14] { // user and system, in hundredths of a second
			n, _ := strconv.Atoi(f)
			ticks += n
		}
		return time.Duration(ticks) * 10 * time.Millisecond
	}
}

// What a message costs the servers, and how long it takes to another node, with three servers and three replicas.
func BenchmarkCost(t *testing.B) {
	long, err := time.ParseDuration(cmp.Or(os.Getenv(costly), "1s"))
	if err != nil {
		t.Fatal(err)
	}
	urls, used := serversApart(t)
	var nodes []*testNode
	for _, url := range urls {
		b, err := Dial(url, Config{Replicas: 3})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, run(t, b))
	}
	begin := used()
	time.Sleep(long)
	t.Logf("idle: %.1f %% of a core", 100*(used()-begin).Seconds()/long.Seconds())
	for _, of := range []struct{ rate, rooms int }{{100, 100}, {1000, 100}, {2000, 100}, {10_000, 100}, {40_000, 100}, {40_000, 500}} {
		measure(t, nodes, used, of.rate, of.rooms, long)
	}
}

// measure has three nodes publish to rooms that are open on the next node.
func measure(t testing.TB, nodes []*testNode, used func() time.Duration, rate, many int, long time.Duration) {
	var rooms []broker.Room
	for _, name := range names(fmt.Sprint(rate, " "), many) {
		r := broker.Room{Name: name, Messages: 1000, Age: time.Hour}
		rooms = append(rooms, r)
		nodes[0].publish(r, "first", "")
		for _, n := range nodes {
			n.open(r)
		}
	}
	var mu sync.Mutex
	var acked, delivered []time.Duration
	sent := map[string]time.Time{}
	for _, n := range nodes {
		n.mu.Lock()
		n.delivering = func(entries []broker.Entry) {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range entries {
				if at, ok := sent[string(e.Body[:min(12, len(e.Body))])]; ok {
					delivered = append(delivered, time.Since(at))
				}
			}
		}
		n.mu.Unlock()
	}
	var failed, busy atomic.Int64
	var all sync.WaitGroup
	body := strings.Repeat("x", 100)
	begin, before, own := time.Now(), used(), cpu()
	for i := 0; time.Since(begin) < long; time.Sleep(time.Millisecond) {
		for ; i < int(time.Duration(rate)*min(time.Since(begin), long)/time.Second); i++ {
			key := fmt.Sprintf("%012d", i)
			at := time.Now()
			if i%(rate/100) == 0 {
				mu.Lock()
				sent[key] = at
				mu.Unlock()
			}
			all.Add(1)
			err := nodes[i%len(nodes)].Publish(rooms[i/len(nodes)%many], broker.Message{Body: []byte(key + body)}, func(_ broker.Position, _ bool, err error) {
				defer all.Done()
				if err != nil {
					failed.Add(1)
				}
				mu.Lock()
				defer mu.Unlock()
				acked = append(acked, time.Since(at))
			})
			if err != nil {
				busy.Add(1)
				all.Done()
			}
		}
	}
	all.Wait()
	servers, own := used()-before, cpu()-own
	for _, n := range nodes {
		n.mu.Lock()
		n.delivering = nil
		n.mu.Unlock()
	}
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(acked)
	slices.Sort(delivered)
	p := func(d []time.Duration, q int) time.Duration { return d[len(d)*q/100].Round(10 * time.Microsecond) }
	t.Logf("%d/s, %d rooms: %d acknowledged, %d failed, %d busy; servers %v of CPU a message, nodes %v; acknowledged p50 %v p99 %v; delivered on three nodes p50 %v p99 %v",
		rate, many, len(acked), failed.Load(), busy.Load(), (servers / time.Duration(len(acked))).Round(time.Microsecond),
		(own / time.Duration(len(acked))).Round(time.Microsecond), p(acked, 50), p(acked, 99), p(delivered, 50), p(delivered, 99))
}
