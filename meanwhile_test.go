package hubbub_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// One thing while another is under way.

// All clients see the chats of all in one order, on whichever worker they are.
func TestChatsHaveOneOrder(t *testing.T) {
	const talkers, each, rounds = 8, 400, 4
	eachServer(t, func(t *testing.T, s *rawtest.Server) {
		var listeners []*member
		var from []*rawtest.Client
		for range talkers { // so that each worker has some of both
			listeners = append(listeners, enter(t, s))
			from = append(from, enter(t, s).Client)
		}
		for range rounds {
			var all sync.WaitGroup
			for p, c := range from {
				var packet []byte // all at once, so that the workers are at it at the same time
				for i := range each {
					packet = append(packet, rawtest.Frame(wsclient.Text, true, fmt.Appendf(nil, `{"msg_type":"chat","content":[%d,%d]}`, p, i))...)
				}
				all.Go(func() {
					err := c.TrySend(packet)
					for range (talkers - 1) * each { // the others'
						if _, _, e := c.TryNext(); e != nil {
							err = e
							break
						}
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			var first [][]byte
			next := [talkers]int{}
			for range talkers * each {
				_, p := listeners[0].Next()
				var from, n int
				_, numbers, _ := strings.Cut(string(p), `"content":`)
				if fmt.Sscanf(numbers, "[%d,%d]", &from, &n); n != next[from] {
					t.Fatalf("of client %d came number %d, want %d", from, n, next[from])
				}
				next[from]++
				first = append(first, p)
			}
			for _, l := range listeners[1:] {
				for _, want := range first {
					if _, got := l.Next(); !bytes.Equal(got, want) {
						t.Fatalf("one client got %s where another got %s", got, want)
					}
				}
			}
			all.Wait()
		}
	})
}

// A client that has said all that it will say, and then reads: all that was sent to it arrives, though it didn't fit
// its socket when it ended its half.
func TestAClientThatOnlyListensAnyMoreGetsAll(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, SendQueueBytes: 64 << 20, Rooms: []hubbub.RoomPolicy{{Match: "*", History: &hubbub.History{}}}})
		m := enter(t, s).join("r")
		filler := strings.Repeat("x", 60_000)
		sent := 0
		for steady := 0; steady < 3; { // until some of it doesn't leave
			for range 20 {
				for rawtest.Publish(s, "r", []any{sent, filler}) != nil { // the worker is behind
					enter(t, s).Quiet()
				}
				sent++
			}
			enter(t, s).Quiet() // a turn
			if steady++; scrape(t, s)["hubbub_buffered_bytes"] < 1<<20 {
				steady = 0
			}
		}
		m.EndSending()
		scraped(t, s, map[string]float64{`closed_total{code="1006"}`: 1})
		m.hear("r", 0, sent-1)
		m.ExpectEOF()
	})
}

// Clients come and go all the time, in each other's places, while messages are sent to each by its id: nobody gets one
// that is for another.
func TestADirectMessageReachesNobodyElse(t *testing.T) {
	t.Parallel()
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 1, ResumeWindow: -1})
		for range 150 { // so that a turn has more to write than it does at once, and tasks are put off
			listener := enter(t, s).join("busy")
			go func() {
				for {
					if _, _, err := listener.TryNext(); err != nil {
						return
					}
				}
			}()
		}
		var mu sync.Mutex
		ids := []string{}
		stop := make(chan struct{})
		var senders, visitors sync.WaitGroup
		for i := range 2 {
			random := rand.New(rand.NewPCG(uint64(i), 7))
			senders.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					mu.Lock()
					id := ""
					if len(ids) > 0 {
						id = ids[max(0, len(ids)-1-random.IntN(6))]
					}
					mu.Unlock()
					err := rawtest.SendTo(s, id, id)
					if i%20 == 0 {
						err = errors.Join(err, rawtest.Publish(s, "busy", 1))
					}
					if errors.Is(err, hubbub.ErrOverloaded) {
						time.Sleep(time.Millisecond) // the worker has enough to do
					}
				}
			})
		}
		for range 4 {
			visitors.Go(func() {
				for range 8 {
					c := rawtest.Connect(t, s)
					if c.TrySend([]byte(rawtest.Upgrade(s, "/ws"))) != nil || c.Response("GET").StatusCode != 101 {
						t.Error("refused")
						return
					}
					_, p, err := c.TryNext()
					if err != nil {
						t.Error(err)
						return
					}
					_, id, _ := strings.Cut(string(p), `"client_id":"`)
					id = id[:36]
					mu.Lock()
					ids = append(ids, id)
					mu.Unlock()
					for range 3 {
						if _, p, err = c.TryNext(); err != nil {
							t.Error(err)
							return
						}
						if !strings.Contains(string(p), `"content":"`+id+`"`) {
							t.Errorf("client %s got %s", id, rawtest.Brief(p))
						}
					}
					c.Reset()
				}
			})
		}
		visitors.Wait()
		close(stop)
		senders.Wait()
	})
}
