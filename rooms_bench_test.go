package hubbub_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// BenchmarkRooms says what a room costs; an operation is a room. The clients are few, a thousand rooms each, and in
// this process, but what they keep doesn't grow with the rooms:
//
//	heap-B/room  live heap, after a collection
//	rss-B/room   resident memory of the process, after the same; only the first kind of a process tells, as what one gave
//	             back the next has at once
//
// Kinds:
//
//	idle     one member, and nothing was ever said
//	said     one member, and one message of 128 bytes in the history
//	nobody   no member, and the same
//	forgets  one member and one message of 128 bytes, but no history
//
// A million of each:
//
//	go test -run '^$' -bench Rooms -benchtime 1000000x .
func BenchmarkRooms(b *testing.B) {
	content := strings.Repeat("x", 128)
	for _, kind := range []struct {
		name           string
		members, saids bool
		policies       []hubbub.RoomPolicy
	}{
		{name: "idle", members: true},
		{name: "said", members: true, saids: true},
		{name: "nobody", saids: true},
		{name: "forgets", members: true, saids: true, policies: []hubbub.RoomPolicy{{Match: "*", History: &hubbub.History{}}}},
	} {
		b.Run("kind="+kind.name, func(b *testing.B) {
			s := rawtest.Start(b, hubbub.Config{Rooms: kind.policies})
			const each = 1000 // what a client may join by default
			var clients []*member
			for range (b.N + each - 1) / each {
				clients = append(clients, enter(b, s))
			}
			heap, rss := memoryInUse()
			b.ResetTimer()
			for i, c := range clients {
				rooms := min(each, b.N-i*each)
				if kind.members {
					joinRooms(c, i*each, rooms)
				}
				for n := range rooms {
					if !kind.saids {
						break
					}
					if err := rawtest.Publish(s, roomNumber(i*each+n), content); err != nil {
						b.Fatal(err)
					}
				}
				for range rooms {
					if kind.members && kind.saids {
						c.Next()
					}
				}
			}
			b.StopTimer()
			if got := scrape(b, s)["hubbub_rooms"]; got != float64(b.N) {
				b.Errorf("there are %v rooms, want %d", got, b.N)
			}
			heapNow, rssNow := memoryInUse()
			b.ReportMetric((heapNow-heap)/float64(b.N), "heap-B/room")
			b.ReportMetric((rssNow-rss)/float64(b.N), "rss-B/room")
		})
	}
}

// BenchmarkReturn says what it takes a server with DataDir, once it was started again, until all its rooms are open, when their
// members come at once, and what they keep of it then. Each room has one member and one message of 128 bytes. An operation is
// a room:
//
//	go test -run '^$' -bench Return -benchtime 100000x .
func BenchmarkReturn(b *testing.B) {
	cfg := hubbub.Config{DataDir: b.TempDir(), Rooms: []hubbub.RoomPolicy{{Match: "*", History: &hubbub.History{Age: time.Hour}}}}
	s := rawtest.Start(b, cfg)
	var next atomic.Int64
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for n := int(next.Add(1)); n <= b.N; n = int(next.Add(1)) {
				if _, err := s.Publish(b.Context(), hubbub.Publication{Room: roomNumber(n - 1), Content: strings.Repeat("x", 128)}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
	if err := s.Shutdown(b.Context()); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	s = rawtest.Start(b, cfg)
	start := time.Since(began)
	const each = 1000 // what a client may join by default
	var clients []*member
	for range (b.N + each - 1) / each {
		clients = append(clients, enter(b, s))
	}
	heap, rss := memoryInUse()
	b.ResetTimer()
	for i, c := range clients {
		sendJoins(c, i*each, min(each, b.N-i*each))
	}
	for i, c := range clients {
		for range min(each, b.N-i*each) {
			if m := c.NextJSON(); m["msg_type"] != "joined" {
				b.Fatal(m)
			}
		}
	}
	b.StopTimer()
	heapNow, rssNow := memoryInUse()
	b.ReportMetric((heapNow-heap)/float64(b.N), "heap-B/room")
	b.ReportMetric((rssNow-rss)/float64(b.N), "rss-B/room")
	b.ReportMetric(start.Seconds(), "s-to-start")
	b.ReportMetric(b.Elapsed().Seconds(), "s-to-open")
}

func roomNumber(n int) string { return fmt.Sprintf("room-%07d", n) }

// joinRooms makes c a member of so many rooms, all asked for at once.
func joinRooms(c *member, first, rooms int) {
	sendJoins(c, first, rooms)
	for range rooms {
		c.Next()
	}
}

func sendJoins(c *member, first, rooms int) {
	var b []byte
	for n := range rooms {
		b = append(b, rawtest.Frame(wsclient.Text, true, fmt.Appendf(nil, `{"msg_type":"join_room","room":"%s","id":1}`, roomNumber(first+n)))...)
	}
	c.SendRaw(b)
}

// memoryInUse is the live heap, and what of the process lies in memory.
func memoryInUse() (heap, rss float64) {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var size, resident float64
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		fmt.Sscan(string(statm), &size, &resident)
	}
	return float64(m.HeapAlloc), resident * float64(os.Getpagesize())
}
