package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/webhook"
)

// 100,000 events while the backend is down: whoever tells of them never waits for the disk or the backend, and what is
// kept stays within its bound, which is enough for all of them.
func TestABackendThatIsDownCostsBoundedMemory(t *testing.T) {
	for _, where := range []string{"memory", "disk"} {
		t.Run(where, func(t *testing.T) {
			b := newBackend(t)
			b.answers(status(http.StatusServiceUnavailable))
			o := open(t, b.URL, func(c *Config) {
				if where == "disk" {
					c.Dir = t.TempDir()
				}
				c.limits.lastRetry = time.Second
			})
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			const workers, each = 4, 25_000
			var all sync.WaitGroup
			for w := range workers {
				all.Go(func() {
					for i := range each {
						o.joined(fmt.Sprint(w), i)
						if i%1000 == 0 {
							until(t, func() bool { return o.intake.waiting() <= o.limits.fresh/2 }) // a busy machine; drops have their own test
						}
					}
				})
			}
			all.Wait()
			until(t, o.stored)
			until(t, func() bool { return o.Figures().Events == 1+workers*each })
			runtime.GC()
			runtime.ReadMemStats(&after)
			f := o.Figures()
			t.Logf("%+v, the heap has grown by %d KiB", f, (int64(after.HeapAlloc)-int64(before.HeapAlloc))>>10)
			if f.Memory > o.limits.memory || f.Disk > o.limits.disk || where == "disk" && f.Memory > 0 {
				t.Errorf("the figures are %+v", f)
			}
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > f.Memory+4<<20 {
				t.Errorf("the heap has grown by %d, and %d are counted", grown, f.Memory)
			}
			b.answers(nil)
			b.takes(1 + workers*each)
			withoutHoles(t, b.events, 1)
		})
	}
}

// A full outbox drops the oldest of what a snapshot mends, and keeps messages and node.started; the next request says
// how many, and seq has no hole.
func TestAFullOutboxDropsTheOldestStates(t *testing.T) {
	for _, where := range []string{"memory", "disk", "intake"} {
		t.Run(where, func(t *testing.T) {
			b := newBackend(t)
			b.answers(status(http.StatusServiceUnavailable))
			o := open(t, b.URL, func(c *Config) {
				c.limits.memory, c.limits.disk, c.limits.memorySegment, c.limits.diskSegment = 256<<10, 256<<10, 4<<10, 4<<10
				switch where {
				case "disk":
					c.Dir = t.TempDir()
				case "intake":
					c.limits.fresh = 20_000
				}
			})
			b.sees("a request", func() bool { return len(b.requests) > 0 })
			const n = 5000
			for i := range n {
				o.joined("r", i)
				if i%10 == 0 {
					o.says("r", fmt.Sprint(i))
				}
				if where != "intake" && i%20 == 0 {
					until(t, o.stored)
				}
				if f := o.Figures(); f.Memory+f.Disk > (256+32+32)<<10 {
					t.Fatalf("behind %d events the figures are %+v", i, f)
				}
			}
			b.answers(nil)
			o.Close(context.Background())
			withoutHoles(t, b.events, 1)
			dropped := o.Figures().Dropped
			if dropped["member.joined"] == 0 || dropped["message.published"] > 0 && where != "intake" || dropped["node.started"] > 0 {
				t.Errorf("it has dropped %v", dropped)
			}
			toldOf, joins, last := map[string]int64{}, int64(0), ""
			for _, r := range b.taken {
				for kind, n := range r.Dropped {
					toldOf[kind] += n
				}
			}
			for _, e := range b.events {
				if e.Type == "member.joined" {
					joins++
					last = e.User
				}
			}
			behindTheLoss(t, b.taken)
			if toldOf["member.joined"] != dropped["member.joined"] || joins+dropped["member.joined"] != n {
				t.Errorf("of %d joins %d came, %d were dropped, and the backend was told of %v", n, joins, dropped["member.joined"], toldOf)
			}
			if last != fmt.Sprint("user-", n-1) && where != "intake" { // messages alone may fill that
				t.Errorf("the newest is %s", last)
			}
			if !strings.Contains(o.log.String(), "the oldest go") {
				t.Errorf("the log is %s", o.log)
			}
		})
	}
}

// behindTheLoss holds that no join is told behind the last request that tells of dropped ones but those that followed
// them: a snapshot that is read then isn't changed back.
func behindTheLoss(t *testing.T, taken []request) {
	t.Helper()
	var joins []string
	for _, r := range taken {
		if r.Dropped["member.joined"] > 0 {
			joins = nil
		}
		for _, e := range r.Events {
			if e.Type == "member.joined" {
				joins = append(joins, e.User)
			}
		}
	}
	for i, user := range joins {
		last, _ := strconv.Atoi(strings.TrimPrefix(joins[len(joins)-1], "user-"))
		if want := fmt.Sprint("user-", last-len(joins)+1+i); user != want {
			t.Fatalf("behind what was dropped comes %s where %s should, %d before the last", user, want, len(joins)-i)
		}
	}
}

// Where nothing else is left messages go too, and node.started stays.
func TestMessagesGoLast(t *testing.T) {
	b := newBackend(t)
	b.answers(status(http.StatusServiceUnavailable))
	o := open(t, b.URL, func(c *Config) { c.limits.memory, c.limits.memorySegment = 256<<10, 4<<10 })
	for i := range 400 {
		o.says("r", `"`+strings.Repeat("x", 2000)+fmt.Sprint(i)+`"`)
		until(t, o.stored)
	}
	b.answers(nil)
	o.Close(context.Background())
	withoutHoles(t, b.events, 1)
	if b.events[0].Type != "node.started" || !strings.HasSuffix(string(b.events[len(b.events)-1].Content), `x399"`) {
		t.Errorf("it is told %d events from %+v on", len(b.events), b.events[0])
	}
	if n := o.Figures().Dropped["message.published"]; n == 0 || n+int64(len(b.events)) != 401 {
		t.Errorf("%d were dropped, %d came", n, len(b.events))
	}
}

// What can never be told pushes nothing out that can.
func TestAnEventThatIsTooLargePushesNothingOut(t *testing.T) {
	in := &intake{most: 8 << 20}
	in.add(fresh{kind: memberJoined})
	in.add(fresh{kind: messagePublished, message: &protocol.Message{Content: make([]byte, in.most)}})
	in.add(fresh{kind: memberJoined, data: make([]byte, maxEvent+1)})
	all, dropped, large := in.take()
	if len(all[states]) != 1 || len(all[states][0]) != 1 || len(all[messages]) != 0 || dropped != [kinds]int64{} || large[messagePublished] != 1 || large[memberJoined] != 1 {
		t.Errorf("%d states and %d messages are kept, %v dropped, %v too large", len(all[states]), len(all[messages]), dropped, large)
	}
}

// Of what isn't written yet all states go, the oldest first, before the first message does, whichever came first; and
// node.started never.
func TestWhatIsNotWrittenYetGoesByItsClass(t *testing.T) {
	of := func(k kind) fresh { return fresh{kind: k, room: strings.Repeat("r", 100)} }
	one := of(memberJoined)
	in := &intake{most: 10 * one.cost()}
	for _, k := range []kind{nodeStarted, messagePublished, memberJoined, messagePublished, memberLeft} {
		in.add(of(k))
	}
	left := func(wantStates, wantMessages int, wantDropped int64) {
		t.Helper()
		count := func(c class) (n int) {
			for _, p := range in.queues[c] {
				n += len(p)
			}
			return n
		}
		dropped := int64(0)
		for _, n := range in.dropped {
			dropped += n
		}
		if count(starts) != 1 || count(states) != wantStates || count(messages) != wantMessages || dropped != wantDropped {
			t.Errorf("there are %d starts, %d states and %d messages, %v were dropped; want 1, %d, %d, and %d", count(starts), count(states), count(messages), in.dropped, wantStates, wantMessages, wantDropped)
		}
		if in.queued > in.most {
			t.Errorf("%d bytes wait, at most %d may", in.queued, in.most)
		}
	}
	left(2, 2, 0)
	for range 6 {
		in.add(of(messagePublished))
	}
	left(1, 8, 1)
	if in.dropped[memberJoined] != 1 {
		t.Errorf("it has dropped %v, and the join was the oldest", in.dropped)
	}
	for range 5 {
		in.add(of(messagePublished))
	}
	left(0, 9, 6)
	for range 20 {
		in.add(of(memberJoined))
	}
	left(0, 9, 26)
}

// In memory what was not told is lost with the process, and said so.
func TestWhatIsLostWithTheProcessIsCounted(t *testing.T) {
	o := open(t, "http://127.0.0.1:1", nil)
	for i := range 1234 {
		o.joined("r", i)
	}
	o.leave()
	if text := o.log.String(); !strings.Contains(text, `events=1235 kept="nowhere: they are lost"`) {
		t.Errorf("the log is %s", text)
	}
}

// A backend that is down is complained of at its first failure and then at each twentieth, and said to be back once;
// a disk that takes nothing once, however often it is tried.
func TestWhatFailsForLongIsSaidNowAndThen(t *testing.T) {
	b, disk := newBackend(t), &fullDisk{}
	b.answers(status(http.StatusServiceUnavailable))
	o := open(t, b.URL, func(c *Config) {
		c.Dir, c.limits.create, c.limits.tend = t.TempDir(), disk.create, time.Millisecond
		c.limits.lastRetry = 2 * time.Millisecond
	})
	for i := range 20 {
		o.joined("r", i)
		until(t, o.stored)
	}
	until(t, func() bool { return o.Figures().Failed > 50 })
	b.answers(nil)
	until(t, func() bool { return o.Figures().Events == 0 })
	disk.has(1 << 20)
	until(t, func() bool { return !o.Figures().DiskFails })
	failed, said := o.Figures().Failed, o.log.String()
	if n := int64(strings.Count(said, "the backend takes no webhooks")); n < 1+50/20 || n > 2+failed/20 {
		t.Errorf("of %d failures %d are said:\n%s", failed, n, said)
	}
	for _, once := range []string{"the backend takes webhooks again", "the disk takes no webhooks: they stay", "the disk takes webhooks again"} {
		if n := strings.Count(said, once); n != 1 {
			t.Errorf("%q is said %d times:\n%s", once, n, said)
		}
	}
}

// A request that has failed is sent again when the backend says, and not before; where it says nothing, or less, behind
// the outbox's own time.
func TestTheLongerWaitCounts(t *testing.T) {
	for _, says := range []time.Duration{0, time.Millisecond, time.Minute} {
		o := &Outbox{cfg: Config{Log: slog.New(slog.DiscardHandler)}, limits: limits{}.withDefaults()}
		for c := range o.spools {
			o.spools[c] = &spool{class: class(c), limits: &o.limits}
		}
		now := time.Now()
		o.batch = &batch{attempts: 2, newest: now.UnixMilli()}
		o.failed(answer{err: errors.New("503"), after: says})
		if wait := o.due.Sub(now); wait < max(says, o.limits.firstRetry) || says > 0 && wait > max(says, 2*o.limits.firstRetry)+time.Minute/2 {
			t.Errorf("the backend says %s, and it waits %s", says, wait)
		}
	}
}

// What a worker pays for an event.
func BenchmarkEvent(b *testing.B) {
	secrets, _ := webhook.ParseSecrets([]string{secret})
	all, _ := Select(nil)
	o, err := Open(Config{Target: Target{URL: "http://127.0.0.1:1", Secrets: secrets, Events: all}, Node: "n", Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	e := hub.Event{Kind: hub.Joined, Room: "room", Client: hub.Identity{ID: hub.NewID(), User: "ann"}}
	b.ReportAllocs()
	for b.Loop() {
		o.Event(e)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	o.Close(gone)
}
