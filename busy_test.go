package hubbub_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// What happens to others while one of two workers is busy for long.

// stallingLog holds up a worker, where it writes that a connection failed, while it is armed.
type stallingLog struct {
	slog.Handler
	armed   atomic.Bool
	reached chan struct{}
	goOn    chan struct{}
}

func (l *stallingLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "connection failed" && l.armed.CompareAndSwap(true, false) {
		l.reached <- struct{}{}
		<-l.goOn
	}
	return l.Handler.Handle(ctx, r)
}

// busyServer is a server of two workers, the first of which does nothing until release is called. Clients come to the
// workers in turns: the next one to the second, then one to the first, and so on. Before it is stalled, first is
// called.
func busyServer(t *testing.T, cfg hubbub.Config, first func(s *rawtest.Server)) (s *rawtest.Server, release func()) {
	t.Helper()
	text := &rawtest.Log{}
	l := &stallingLog{
		Handler: slog.NewTextHandler(text, &slog.HandlerOptions{Level: slog.LevelDebug}),
		reached: make(chan struct{}), goOn: make(chan struct{}),
	}
	cfg.Workers, cfg.Logger = 2, slog.New(l)
	s = rawtest.Start(t, cfg)
	s.Log = text
	faulty := enter(t, s)
	first(s)
	l.armed.Store(true)
	faulty.SendRaw([]byte{0x81, 0x00}) // not masked
	<-l.reached
	var released atomic.Bool
	release = func() {
		if released.CompareAndSwap(false, true) {
			close(l.goOn)
		}
	}
	t.Cleanup(release) // or Shutdown would wait for it
	return s, release
}

// hear expects the room's messages with these contents and nothing else of it.
func (m *member) hear(room string, from, to int) {
	m.T.Helper()
	for i := from; i <= to; i++ {
		if got := m.NextJSON(); got["room"] != room || fmt.Sprint(got["content"].([]any)[0]) != fmt.Sprint(i) {
			m.T.Fatalf("got %v, want message %d of %s", rawtest.Brief(fmt.Append(nil, got)), i, room)
		}
	}
}

// counts reads messages of a kind whose contents begin with the numbers from, from+step and so on, below to. Any
// goroutine.
func (m *member) counts(kind string, from, to, step int) error {
	for i := from; i < to; i += step {
		_, p, err := m.TryNext()
		if err != nil {
			return err
		}
		if !strings.Contains(string(p), fmt.Sprintf(`"content":[%d,`, i)) || !strings.HasPrefix(string(p), `{"msg_type":"`+kind) {
			return fmt.Errorf("got %s, want the %s number %d", rawtest.Brief(p), kind, i)
		}
	}
	return nil
}

// has says whether something has come that wasn't read yet.
func (m *member) has() bool {
	m.NC.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := m.R.Peek(1)
	return err == nil
}

const highWater = 1 << 20 // of a mailbox

func TestTheApplicationIsToldOfABusyWorker(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		t.Run("in memory", func(t *testing.T) { busyWorkerIsTold(t, hubbub.Config{IO: io}) })
		t.Run("on disk", func(t *testing.T) { busyWorkerIsTold(t, hubbub.Config{IO: io, DataDir: t.TempDir()}) })
	})
}

func busyWorkerIsTold(t *testing.T, cfg hubbub.Config) {
	var on [2]*member // a member on each worker
	s, release := busyServer(t, cfg, func(s *rawtest.Server) {
		on[1] = enter(t, s).join("both").join("idle")
		on[0] = enter(t, s).join("both").join("idle")
		on[0].ask(`{"msg_type":"leave_room","room":"idle"}`)
	})
	filler := strings.Repeat("x", 10_000)
	sent := 0
	for ; sent < 1000; sent++ {
		if err := rawtest.Publish(s, "both", []any{sent, filler}); errors.Is(err, hubbub.ErrOverloaded) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if bytes := sent * len(filler); bytes < highWater-2*len(filler) || bytes > highWater+2*len(filler) {
		t.Errorf("%d bytes were taken for a worker that does nothing, want about %d", bytes, highWater)
	}
	if err := rawtest.Broadcast(s, "to all"); !errors.Is(err, hubbub.ErrOverloaded) {
		t.Errorf("Broadcast: %v", err)
	}
	if err := rawtest.SendTo(s, on[0].id, "to one there"); !errors.Is(err, hubbub.ErrOverloaded) {
		t.Errorf("Send: %v", err)
	}
	on[1].hear("both", 0, sent-1) // the other worker goes on
	if err := errors.Join(rawtest.SendTo(s, on[1].id, "to one here"), rawtest.Publish(s, "idle", []any{7}), rawtest.Publish(s, "nobody's", 1)); err != nil {
		t.Errorf("where nobody of the busy worker is: %v", err)
	}
	on[1].gets(map[string]any{"msg_type": "direct_message", "from": "server", "content": "to one here"})
	on[1].hear("idle", 7, 7)
	on[1].hearsNothing()
	release()
	on[0].hear("both", 0, sent-1) // all that was taken, and nothing of what was refused
	rawtest.Eventually(t, "the worker takes more", func() bool { return rawtest.Publish(s, "both", []any{sent}) == nil })
	for _, m := range on {
		m.hear("both", sent, sent)
	}
	if err := errors.Join(rawtest.Broadcast(s, "again"), rawtest.SendTo(s, on[0].id, "again")); err != nil {
		t.Error(err)
	}
	for _, m := range on {
		m.gets(map[string]any{"msg_type": "chat", "from": "server", "content": "again"})
	}
	on[0].gets(map[string]any{"msg_type": "direct_message", "from": "server", "content": "again"})
}

// A client that publishes to a worker that does nothing isn't read any more when enough waits there; the others on its
// own worker are. In the end all that it sent is done, in order, by whichever way it was sent.
func TestAPublisherIsPausedWhileAWorkerIsBusy(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		for way, readers := range map[string]int{"room_message": 1, "chat": 1, "direct_message": 40} { // one alone may have 64 KiB of them waiting
			t.Run(way, func(t *testing.T) {
				var from, beside *member
				var to []*member
				_, release := busyServer(t, hubbub.Config{IO: io, SendQueueBytes: 32 << 20}, func(s *rawtest.Server) {
					from = enter(t, s)
					for range readers {
						to = append(to, enter(t, s).join("r"))
						beside = &member{Client: rawtest.Dial(t, s, "/echo")}
					}
				})
				const all, size = 4000, 1000
				sent := make(chan error, 1)
				go func() {
					for i := range all {
						msg := fmt.Sprintf(`{"msg_type":%q,"room":"r","to":%q,"content":[%d,%q],"id":%d}`, way, to[i%readers].id, i, strings.Repeat("x", size), i)
						if err := from.TrySend(rawtest.Frame(wsclient.Text, true, []byte(msg))); err != nil {
							sent <- err
							return
						}
					}
					sent <- nil
				}()
				acked := 0
				ack := func() {
					if got := from.NextJSON(); got["msg_type"] != "ack" || got["id"] != float64(acked) {
						t.Fatalf("got %v, want the ack of %d", got, acked)
					}
					acked++
				}
				for acked < highWater/(2*size) {
					ack()
				}
				for range 300 { // as many turns of their worker: what was sent is there, and would have been obeyed
					beside.Quiet()
				}
				for from.has() {
					ack()
				}
				if most := highWater/size + 2*(64<<10)/size; acked > most {
					t.Errorf("%d messages were acknowledged, want at most %d while nobody takes them", acked, most)
				}
				release()
				heard := make(chan error, readers)
				for i, m := range to {
					go func() { heard <- m.counts(way, i, all, readers) }()
				}
				for acked < all {
					ack()
				}
				err := <-sent
				for range readers {
					err = errors.Join(err, <-heard)
				}
				if err != nil {
					t.Error(err)
				}
				from.hearsNothing()
				to[0].hearsNothing()
			})
		}
	})
}

// Who joins or leaves while messages lie in its worker's mailbox gets exactly those that came behind the offset of its
// joined, and none behind its left.
func TestJoinsAndLeavesBesideMessagesOnTheirWay(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var joins, leaves, returns *member // on the busy worker
		s, release := busyServer(t, hubbub.Config{IO: io}, func(s *rawtest.Server) {
			enter(t, s)
			leaves = enter(t, s).join("r")
			enter(t, s)
			returns = enter(t, s).join("r")
			enter(t, s)
			joins = enter(t, s)
		})
		const before, after = 20, 20
		publish := func(from, to int) {
			for i := from; i <= to; i++ {
				if err := rawtest.Publish(s, "r", i); err != nil {
					t.Fatal(err)
				}
			}
		}
		publish(1, before)
		joins.Text(`{"msg_type":"join_room","room":"r","id":1}`)
		leaves.Text(`{"msg_type":"leave_room","room":"r","id":1}`)
		returns.Text(`{"msg_type":"leave_room","room":"r","id":1}`)
		returns.Text(`{"msg_type":"join_room","room":"r","id":2}`)
		release()
		got := joins.NextJSON()
		offset := int(got["offset"].(float64))
		rawtest.Eventually(t, "all have joined", func() bool { return scrape(t, s)["hubbub_messages_received_total"] == 6 })
		publish(before+1, before+after)
		joins.hears("r", offset+1, before+after)
		joins.hearsNothing()

		next := 1
		for {
			if got = leaves.NextJSON(); got["msg_type"] == "left" {
				break
			}
			if got["offset"] != float64(next) {
				t.Fatalf("got %v, want message %d", got, next)
			}
			next++
		}
		leaves.hearsNothing()

		next = 1
		for {
			if got = returns.NextJSON(); got["msg_type"] == "joined" {
				break
			}
			if got["msg_type"] == "room_message" && got["offset"] != float64(next) {
				t.Fatalf("got %v, want message %d", got, next)
			}
			next++
		}
		offset = int(got["offset"].(float64))
		returns.hears("r", offset+1, before+after)
		returns.hearsNothing()
	})
}

// One packet joins, leaves and joins again, and publishes meanwhile: behind the last joined comes what was published
// behind it, and no more.
func TestJoiningAgainInOnePacket(t *testing.T) {
	eachServerWith(t, hubbub.Config{Rooms: []hubbub.RoomPolicy{{Match: "*", IncludeSender: true}}}, func(t *testing.T, s *rawtest.Server) {
		m, other := enter(t, s), enter(t, s).join("r")
		var packet []byte
		say := func(msg string) { packet = append(packet, rawtest.Frame(wsclient.Text, true, []byte(msg))...) }
		for i := range 6 {
			say(`{"msg_type":"join_room","room":"r","id":"in"}`)
			say(fmt.Sprintf(`{"msg_type":"room_message","room":"r","content":%d}`, 2*i+1))
			if i < 5 {
				say(`{"msg_type":"leave_room","room":"r","id":"out"}`)
				say(fmt.Sprintf(`{"msg_type":"room_message","room":"r","content":%d}`, 2*i+2))
			}
		}
		m.SendRaw(packet)
		in, had := false, 0.0 // what it knows
		for had < 11 {
			switch got := m.NextJSON(); {
			case got["id"] == "in":
				in, had = true, got["offset"].(float64)
			case got["id"] == "out":
				in = false
			case !in || got["offset"] != had+1:
				t.Fatalf("got %v behind offset %v, in the room: %t", got, had, in)
			default:
				had++
			}
		}
		m.hearsNothing()
		other.hears("r", 1, 11)
	})
}
