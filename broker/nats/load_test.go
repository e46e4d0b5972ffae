package nats

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"

	"example.com/hubbub/broker"
)

// A log of which there is so much, or whose servers are so busy, that it takes longer to read than one answer may is read to its
// end. One that isn't got on with is given up.
func TestALongLogIsReadToItsEnd(t *testing.T) {
	for most, ok := range map[uint64]bool{5: true, 2: false} { // up to there groups come
		synctest.Test(t, func(t *testing.T) {
			ctx := newProgress(t.Context())
			defer ctx.end()
			l := &loading{st: &stream{key: streamKey{messages: 10}}, ctx: ctx}
			l.last = func() (uint64, error) { return 5, nil }
			l.more = func(behind uint64) error {
				select {
				case <-time.After(logPatience * 3 / 4):
				case <-ctx.Done():
					return ctx.Err()
				}
				if behind < most {
					l.groups = append(l.groups, group{seq: behind + 1})
					ctx.renew() // as batch does
				}
				return nil
			}
			if err := l.readGroups(5); (err == nil) != ok || len(l.groups) != int(most) {
				t.Errorf("of 5 groups it has read %d, %v", len(l.groups), err)
			}
		})
	}
}

// What always comes, but too slowly, is given up too.
func TestALogIsNotReadForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := newProgress(t.Context())
		defer ctx.end()
		began := time.Now()
		for ctx.Err() == nil {
			time.Sleep(time.Second)
			ctx.renew()
		}
		if took := time.Since(began); took < logMost || took > logMost+time.Second {
			t.Errorf("given up after %s, want %s", took, logMost)
		}
	})
}

// slowLog is a stream whose server has many groups of every room, and gives so many of them each half second.
func slowLog(t *testing.T, many, each int) *stream {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("no server")
	}
	conn, err := client.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	b := &Broker{send: conn, receive: conn, log: slog.New(slog.DiscardHandler), served: make(chan struct{}), maxArrived: 64}
	close(b.served)
	var stop context.CancelFunc
	b.ctx, stop = context.WithCancel(context.Background())
	st := newStream(b, streamKey{messages: 1000, age: time.Hour})
	st.nonce, st.making = "nonce", make(chan struct{}) // it is known, and not looked for
	t.Cleanup(func() {
		st.jobs.end()
		st.mu.Lock()
		st.over = true
		st.mu.Unlock()
		stop()
		b.work.Wait()
	})
	answers := map[string]client.MsgHandler{
		"$JS.API.STREAM.MSG.GET.": func(m *client.Msg) { _ = m.Respond(fmt.Appendf(nil, `{"message":{"seq":%d}}`, many)) },
		"$JS.API.DIRECT.GET.": func(m *client.Msg) {
			var from struct{ Seq int }
			if err := json.Unmarshal(m.Data, &from); err != nil {
				t.Error(err)
			}
			go func() {
				before := 0
				for seq := from.Seq; seq <= many; seq++ {
					if seq%each == 0 && b.ctx.Err() == nil {
						time.Sleep(500 * time.Millisecond)
					}
					a := client.NewMsg(m.Reply)
					a.Header.Set("Nats-Sequence", fmt.Sprint(seq))
					a.Header.Set("Nats-Last-Sequence", fmt.Sprint(before))
					a.Header.Set("Nats-Time-Stamp", time.Now().UTC().Format(time.RFC3339Nano))
					_ = conn.PublishMsg(a)
					before = seq
				}
				end := client.NewMsg(m.Reply)
				end.Header.Set("Status", "204")
				_ = conn.PublishMsg(end)
			}()
		},
	}
	for subject, answer := range answers {
		if _, err := conn.Subscribe(subject+st.name, answer); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return st
}

// Each group counts, not only each batch of them.
func TestALogThatComesSlowlyIsRead(t *testing.T) {
	t.Parallel()
	const many = 2 * int(logPatience/time.Second) * 5 / 4
	st := slowLog(t, many, 1)
	ctx := newProgress(t.Context())
	defer ctx.end()
	l := &loading{st: st, ctx: ctx, subject: "x"}
	l.more, l.last = l.batch, func() (uint64, error) { return uint64(many), nil }
	if err := l.readGroups(uint64(many)); err != nil || len(l.groups) != many {
		t.Errorf("%d of %d groups have come, %v", len(l.groups), many, err)
	}
}

// Who joins rooms with large logs and leaves them at once keeps nobody from reading another.
func TestLogsOfClosedRoomsHoldUpNoOthers(t *testing.T) {
	t.Parallel()
	st := slowLog(t, 1000, 10)
	began, ended := make(chan struct{}, maxJobs), make(chan error, maxJobs)
	for i := range maxJobs {
		name := fmt.Sprint("large-", i)
		ro := &room{st: st, name: name, token: token(name)}
		st.jobs.add(func() {
			began <- struct{}{}
			ro.open(func(_ broker.Log, err error) { ended <- err })
		})
		time.AfterFunc(500*time.Millisecond, ro.close)
	}
	for range maxJobs {
		<-began
	}
	next := make(chan struct{})
	st.jobs.add(func() { close(next) })
	for range maxJobs {
		if err := <-ended; err == nil {
			t.Error("a room that was closed has been read to its end")
		}
	}
	<-next
}

// A replica that was cut off catches up while a room of ten groups is read from it. What the room had dropped by then it
// doesn't get, and it has fewer than ten when it has come to where the end was. That something is missing is known all the same.
func TestReadFromAReplicaThatCatchesUp(t *testing.T) {
	const behind = 100
	to := func(from, to uint64) (all []uint64) {
		for ; from <= to; from++ {
			all = append(all, from)
		}
		return all
	}
	for _, c := range []struct {
		name    string
		ends    []uint64   // that the leader says, one after the other
		batches [][]uint64 // that the replica has
		kept    []uint64
		trimmed uint64
	}{
		{"all is there", []uint64{107, 107}, [][]uint64{to(101, 107)}, to(101, 107), 0},
		{"some came meanwhile", []uint64{104, 106, 106}, [][]uint64{to(101, 104), to(105, 106)}, to(101, 106), 0},
		{"the room is full", []uint64{113, 113}, [][]uint64{to(104, 113)}, to(104, 113), 104},
		{"some was dropped", []uint64{110, 113, 113}, [][]uint64{to(104, 107), to(108, 110), to(111, 113)}, to(104, 113), 104},
		{"in its middle, too", []uint64{110, 115, 115}, [][]uint64{to(101, 102), to(106, 109), to(110, 115)}, to(106, 115), 106},
		{"it goes on and on", []uint64{105, 106, 107, 109, 110}, [][]uint64{to(102, 105), to(106, 106), to(107, 107), to(108, 109)}, to(102, 109), 102},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := newProgress(t.Context())
			defer ctx.end()
			l := &loading{st: &stream{key: streamKey{messages: 10}}, ctx: ctx, behind: behind<<groupBits | (maxGroup - 1)}
			l.more = func(uint64) error {
				for _, seq := range c.batches[0] {
					l.groups = append(l.groups, group{seq: seq})
				}
				c.batches = c.batches[1:]
				return nil
			}
			l.last = func() (last uint64, _ error) {
				last, c.ends = c.ends[0], c.ends[1:]
				return last, nil
			}
			last, _ := l.last()
			if err := l.readGroups(last); err != nil {
				t.Fatal(err)
			}
			var kept []uint64
			for _, g := range l.groups {
				kept = append(kept, g.seq)
			}
			if !slices.Equal(kept, c.kept) || l.trimmed != c.trimmed {
				t.Errorf("it has %v, trimmed before %d; want %v, %d", kept, l.trimmed, c.kept, c.trimmed)
			}
		})
	}
}
