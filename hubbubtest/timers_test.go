package hubbubtest_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
	"example.com/hubbub/internal/rawtest"
)

// Each timer of the server, at its smallest setting: it is never early, and at most late after its time.
const late = time.Second

// liveness are settings of ping-interval and pong-timeout. One of the time-outs is no multiple of the wheel's slots:
// there alone a time-out that begins before its ping is seen to be too short.
var liveness = []struct{ interval, timeout time.Duration }{
	{time.Second, time.Second}, {2 * time.Second, time.Second}, {5 * time.Second, time.Second}, {1500 * time.Millisecond, 1200 * time.Millisecond},
	{time.Second, 3 * time.Second}, {25 * time.Second, 10 * time.Second}, {time.Minute, time.Second},
}

// eachLiveness runs a story with every one of them.
func eachLiveness(t *testing.T, story func(t *testing.T, srv *hubbubtest.Server, interval, timeout time.Duration)) {
	for _, l := range liveness {
		t.Run(fmt.Sprintf("%s and %s", l.interval, l.timeout), func(t *testing.T) {
			if testing.Short() && l.interval > 10*time.Second {
				t.Skip("goes through minutes by milliseconds")
			}
			synctest.Test(t, func(t *testing.T) {
				story(t, hubbubtest.NewServer(t, hubbub.Config{PingInterval: l.interval, PongTimeout: l.timeout}), l.interval, l.timeout)
			})
		})
	}
}

func TestNobodyIsClosedWhoAnswersEachPingAtOnce(t *testing.T) {
	eachLiveness(t, func(t *testing.T, srv *hubbubtest.Server, _, _ time.Duration) {
		clients := make([]*hubbubtest.Client, 40)
		for i := range clients {
			clients[i] = srv.Connect(fmt.Sprint(i))
			hubbubtest.Step(37 * time.Millisecond)
		}
		hubbubtest.Step(20 * time.Minute)
		closed := 0
		for _, c := range clients {
			if c.Closed() {
				closed++
			}
		}
		if closed > 0 {
			t.Errorf("%d of %d clients were closed", closed, len(clients))
		}
	})
}

// pinged steps until the server has sent the client a ping, or has closed it, within d; by milliseconds.
func pinged(c *hubbubtest.Client, d time.Duration) bool {
	before := c.Link.Carried(hubbubtest.ToClient)
	for end := time.Now().Add(d); time.Now().Before(end); hubbubtest.Step(time.Millisecond) {
		if c.Link.Carried(hubbubtest.ToClient) > before {
			return true
		}
	}
	return false
}

func TestNobodyIsClosedWhoAnswersEachPingInTime(t *testing.T) {
	eachLiveness(t, func(t *testing.T, srv *hubbubtest.Server, interval, timeout time.Duration) {
		c := srv.Connect("slow to answer")
		for i := range 20 {
			// This one is answered at once: a late answer leaves the next more than its time.
			if !pinged(c, interval+late+1) {
				t.Fatalf("no ping before ping %d", i+1)
			}
			c.Link.Stall(hubbubtest.ToServer)
			began := time.Now()
			if !pinged(c, interval+late+1) {
				t.Fatalf("no ping within %s", time.Since(began))
			}
			hubbubtest.Step(timeout - time.Millisecond)
			if c.Link.Resume(hubbubtest.ToServer); c.Closed() {
				t.Fatalf("closed %s after ping %d", timeout-time.Millisecond, i+1)
			}
			hubbubtest.Step(time.Duration(i) * 13 * time.Millisecond)
		}
	})
}

func TestTheDeadAreClosedInTime(t *testing.T) {
	eachLiveness(t, func(t *testing.T, srv *hubbubtest.Server, interval, timeout time.Duration) {
		for i := range 40 {
			c := srv.Connect(fmt.Sprint("dead ", i))
			hubbubtest.Step(time.Duration(i) * 71 * time.Millisecond)
			c.Ping()
			c.Link.Stall(hubbubtest.ToServer)
			last := time.Now()
			if !pinged(c, interval+late+1) {
				t.Fatalf("no ping within %s of the last byte", time.Since(last))
			}
			ping := time.Now()
			for !c.Closed() && time.Since(last) <= interval+timeout+late {
				hubbubtest.Step(time.Millisecond)
			}
			silent, unanswered := time.Since(last), time.Since(ping)
			if silent < interval+timeout || silent > interval+timeout+late || unanswered < timeout {
				t.Errorf("closed %s after its last byte and %s after the ping", silent, unanswered)
			}
			c.Drop()
		}
	})
}

// A client whose line is slow gets no ping before what waits there, so that it takes some of it is its sign of life.
func TestASlowLineIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{PingInterval: time.Second, PongTimeout: time.Second, MaxMessageBytes: 1 << 20, SendQueueBytes: 1 << 20})
		c := srv.Connect("slow")
		c.Link.Slow(hubbubtest.ToClient, 60<<10)
		if err := rawtest.SendTo(srv, c.ID, strings.Repeat("x", 900<<10)); err != nil {
			t.Fatal(err)
		}
		hubbubtest.Step(12 * time.Second)
		if c.Closed() {
			t.Fatal("closed while it read")
		}
		c.Receive()
		c.Link.Slow(hubbubtest.ToClient, 0)
		hubbubtest.Step(time.Minute)
		c.ExpectNothing(1)
	})
}

// gone is when the hook Disconnect was called, and the code, of one client after another.
type gone chan struct {
	at   time.Time
	code int
}

func (g gone) hook(_ context.Context, d *hubbub.Disconnect) {
	g <- struct {
		at   time.Time
		code int
	}{time.Now(), d.Code}
}

// within fails the test unless it is now at least d and at most late more since began.
func within(t *testing.T, what string, began, now time.Time, d time.Duration) {
	t.Helper()
	if took := now.Sub(began); took < d || took > d+late {
		t.Errorf("%s after %s, want %s, and a second more at most", what, took, d)
	}
}

// emptied steps until the server has no connection, for two minutes at most.
func emptied(srv *hubbubtest.Server) time.Time {
	for end := time.Now().Add(2 * time.Minute); srv.Connections() > 0 && time.Now().Before(end); {
		hubbubtest.Step(time.Millisecond)
	}
	return time.Now()
}

func TestAMessageThatWaitsTooLongEndsItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := make(gone, 1)
		srv := hubbubtest.NewServer(t, hubbub.Config{SendQueueAge: time.Second, Hooks: hubbub.Hooks{Disconnect: left.hook}})
		for i := range 40 {
			c, err := srv.ConnectWith("stuck", hubbubtest.Options{Buffer: 4 << 10})
			if err != nil {
				t.Fatal(err)
			}
			hubbubtest.Step(time.Duration(i) * 37 * time.Millisecond)
			c.Link.Stall(hubbubtest.ToClient)
			began := time.Now()
			if err := rawtest.SendTo(srv, c.ID, strings.Repeat("x", 300<<10)); err != nil { // more than line and pump hold
				t.Fatal(err)
			}
			end := <-left
			if end.code != 4000 {
				t.Errorf("closed with %d", end.code)
			}
			within(t, "closed", began, end.at, time.Second)
			within(t, "reset", end.at, emptied(srv), time.Second) // it doesn't take its Close
			c.Drop()
		}
	})
}

func TestHowLongAClosingTakes(t *testing.T) {
	for _, c := range []struct {
		name  string
		begin func(c *hubbubtest.Client, srv *hubbubtest.Server)
		want  time.Duration
	}{
		{"ours, which isn't answered", func(_ *hubbubtest.Client, srv *hubbubtest.Server) { go srv.Shutdown(context.Background()) }, 5 * time.Second},
		{"after a fault, and the peer stays", func(c *hubbubtest.Client, _ *hubbubtest.Server) { c.SendFrame(3, true, nil) }, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range 20 {
				synctest.Test(t, func(t *testing.T) {
					srv := hubbubtest.NewServer(t, hubbub.Config{})
					client := srv.Connect("ann")
					hubbubtest.Step(time.Duration(i) * 57 * time.Millisecond)
					client.Link.Stall(hubbubtest.ToClient) // the line takes the Close, the client never sees it
					began := time.Now()
					c.begin(client, srv)
					within(t, "ended", began, emptied(srv), c.want)
				})
			}
		})
	}
}

// What the hub keeps goes in time too, looked at from outside, so that no request of a client tidies first.
func TestWhatIsKeptGoesInTime(t *testing.T) {
	age := time.Second
	cfg := hubbub.Config{ResumeWindow: time.Second, DedupWindow: time.Second, Rooms: []hubbub.RoomPolicy{
		{Match: "short", History: &hubbub.History{Age: age}, IdleTTL: new(time.Duration(time.Hour))},
		{Match: "idle", IdleTTL: &age},
	}}
	for _, c := range []struct {
		name string
		keep func(t *testing.T, srv *hubbubtest.Server)
		kept func(t *testing.T, srv *hubbubtest.Server) int // 0 when it has gone
	}{
		{"history of a room that is occupied and quiet", func(t *testing.T, srv *hubbubtest.Server) {
			srv.Connect("bob").Join("short")
			rawtest.Publish(srv, "short", 1)
		}, func(t *testing.T, srv *hubbubtest.Server) int { return int(figure(t, srv, "hubbub_history_bytes")) }},
		{"history of a room that nobody is in", func(t *testing.T, srv *hubbubtest.Server) {
			rawtest.Publish(srv, "short", 1)
		}, func(t *testing.T, srv *hubbubtest.Server) int {
			const record = 512 // of the empty room
			return int(figure(t, srv, "hubbub_history_bytes")) - record
		}},
		{"a room that was left", func(t *testing.T, srv *hubbubtest.Server) {
			c := srv.Connect("ann")
			c.Join("idle")
			rawtest.Publish(srv, "idle", 1)
			c.Leave("idle")
		}, func(t *testing.T, srv *hubbubtest.Server) int { return srv.RoomCount() }},
		{"a parked session", func(t *testing.T, srv *hubbubtest.Server) {
			srv.Connect("ann").Drop()
			hubbubtest.Step(0)
		}, func(t *testing.T, srv *hubbubtest.Server) int { return int(figure(t, srv, "hubbub_parked_sessions")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for i := range 20 {
					hubbubtest.NewServer(t, cfg) // the last one's clock is behind
					srv := hubbubtest.NewServer(t, cfg)
					hubbubtest.Step(time.Duration(i) * 57 * time.Millisecond)
					c.keep(t, srv)
					hubbubtest.Step(age - time.Millisecond)
					if c.kept(t, srv) == 0 {
						t.Errorf("it has gone after %s, begun at %d", age-time.Millisecond, i)
					}
					hubbubtest.Step(late + time.Millisecond)
					if c.kept(t, srv) != 0 {
						t.Errorf("it is still there after %s, begun at %d", age+late, i)
					}
				}
			})
		})
	}
}

func TestAPublishIDCountsForTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{DedupWindow: time.Second})
		ann := srv.Connect("ann")
		publish := func(id string) hubbubtest.Message {
			return ann.Request(map[string]any{"msg_type": "room_message", "room": "r", "content": id, "publish_id": id})
		}
		for i := range 20 {
			id := strconv.Itoa(i)
			publish(id)
			hubbubtest.Step(time.Second - time.Millisecond)
			if !publish(id).Duplicate {
				t.Error("it was taken a second time within the window")
			}
			hubbubtest.Step(late + time.Millisecond)
			if publish(id).Duplicate {
				t.Error("it was taken for a duplicate after the window")
			}
			hubbubtest.Step(time.Duration(i) * 57 * time.Millisecond)
		}
	})
}

func TestAParkedSessionEndsWithItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{ResumeWindow: time.Second})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		for _, c := range []*hubbubtest.Client{ann, bob} {
			c.Join("r")
			c.Drop()
		}
		hubbubtest.Step(time.Second - time.Millisecond)
		if again := ann.Reconnect(); !again.Welcome.Resumed {
			t.Error("the session was gone within its window")
		} else {
			again.Close()
		}
		hubbubtest.Step(late + time.Millisecond)
		if n := srv.RoomCount(); n != 0 {
			t.Errorf("%d rooms are left, want none", n)
		}
		if again := bob.Reconnect(); again.Welcome.Resumed {
			t.Error("the session was there after its window")
		}
	})
}

// A client that is back has 10 s to say what it had, and as much again after each part of it.
func TestAHomecomingEndsInTime(t *testing.T) {
	const limit = 10 * time.Second
	for i := range 20 {
		synctest.Test(t, func(t *testing.T) {
			cfg := hubbub.Config{PingInterval: 24 * time.Hour}
			if i%2 == 0 { // the application is asked about each part
				cfg.Hooks.Join = func(context.Context, *hubbub.Join) error { return nil }
			}
			srv := hubbubtest.NewServer(t, cfg)
			ann, bob := srv.Connect("ann"), srv.Connect("bob")
			ann.Join("r")
			ann.Drop()
			hubbubtest.Step(time.Duration(i) * 57 * time.Millisecond)
			bob.Direct(ann, "waits until it has said all, or its time is up")
			back := backWith(t, srv, ann.Welcome.ResumeToken)
			began := time.Now()
			for range i % 3 { // it says some, each time at the last moment
				hubbubtest.Step(limit - time.Millisecond)
				back.Request(map[string]any{"msg_type": "resume", "rooms": map[string]any{"r": nil}, "last": false})
				began = time.Now()
			}
			back.ExpectDirect("waits until it has said all, or its time is up")
			within(t, "its time is up", began, time.Now(), limit)
		})
	}
}

func TestARoomThatNobodyIsInGoesWhenItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := time.Second
		srv := hubbubtest.NewServer(t, hubbub.Config{Rooms: []hubbub.RoomPolicy{
			{Match: "brief", History: &hubbub.History{Age: time.Second}}, {Match: "idle", IdleTTL: &second},
		}})
		ann, bob := srv.Connect("ann"), srv.Connect("bob")
		for _, room := range []string{"brief", "idle", "stays"} {
			ann.Publish(room, 1)
		}
		epoch := bob.Join("brief").Epoch
		hubbubtest.Step(second - time.Millisecond)
		if n := srv.RoomCount(); n != 3 {
			t.Errorf("%d rooms, want 3", n)
		}
		hubbubtest.Step(late + time.Millisecond)
		if n := srv.RoomCount(); n != 2 {
			t.Errorf("%d rooms, want the one with a member and the one whose time isn't up", n)
		}
		// The one with a member has lost its message, not its epoch.
		page := bob.Request(map[string]any{"msg_type": "history", "room": "brief"})
		if len(page.Messages) != 0 || page.Epoch != epoch || page.Offset != 1 {
			t.Errorf("got %s", page)
		}
		bob.Leave("brief")
		hubbubtest.Step(second + late)
		if n := srv.RoomCount(); n != 1 {
			t.Errorf("%d rooms, want 1", n)
		}
		if again := ann.Publish("brief", 2); again.Epoch == epoch || again.Offset != 1 {
			t.Errorf("the new room has the position %s", again)
		}
	})
}

// Who is told that it is closed has five seconds to answer from when it could read that, however late that was.
func TestTheWaitForTheAnswerToACloseBeginsWhenItIsTaken(t *testing.T) {
	const wait = 5 * time.Second
	for _, stalled := range []time.Duration{0, 2 * time.Second, 4900 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			srv := hubbubtest.NewServer(t, hubbub.Config{})
			c, err := srv.ConnectWith("ann", hubbubtest.Options{Buffer: 1 << 10})
			if err != nil {
				t.Fatal(err)
			}
			c.Link.Stall(hubbubtest.Both) // no answer comes
			for range 120 {               // of 1 KB, more than the line and the pump take
				if err := rawtest.SendTo(srv, c.Welcome.ClientID, strings.Repeat("x", 1000)); err != nil {
					t.Fatal(err)
				}
			}
			hubbubtest.Step(0)
			if err := srv.Disconnect(t.Context(), c.Welcome.ClientID, 0, ""); err != nil {
				t.Fatal(err)
			}
			hubbubtest.Step(stalled)
			c.Link.Resume(hubbubtest.ToClient)
			began := time.Now()
			within(t, fmt.Sprint("stalled for ", stalled, " it is cut off"), began, emptied(srv), wait)
		})
	}
}

// Who takes nothing of what was sent to it holds up no Shutdown: five seconds for its answer to the Close, and five
// more for what the connection has accepted.
func TestWhoReadsNothingHoldsUpNoShutdown(t *testing.T) {
	for _, messages := range []int{0, 30, 120} { // of 1 KB: less and more than a pump takes
		synctest.Test(t, func(t *testing.T) {
			srv := hubbubtest.NewServer(t, hubbub.Config{})
			c, err := srv.ConnectWith("ann", hubbubtest.Options{Buffer: 1 << 10})
			if err != nil {
				t.Fatal(err)
			}
			c.Link.Stall(hubbubtest.Both)
			for range messages {
				if err := rawtest.SendTo(srv, c.Welcome.ClientID, strings.Repeat("x", 1000)); err != nil {
					t.Fatal(err)
				}
			}
			hubbubtest.Step(0)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			began := time.Now()
			if err := srv.Shutdown(ctx); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 12*time.Second {
				t.Errorf("with %d messages it took %s", messages, took)
			}
		})
	}
}

// Who isn't read because its messages wait for a hook is read again when it is closed: its answer to the Close lies
// behind them.
func TestWhoIsPausedIsClosedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{Handlers: map[string]hubbub.Handler{
			"slow": func(ctx context.Context, _ *hubbub.Message) (any, error) { <-ctx.Done(); return nil, nil },
		}})
		c := srv.Connect("ann")
		for range 50 { // more than may wait, and more than one read takes
			c.Send(map[string]any{"msg_type": "slow", "content": strings.Repeat("x", 1000)})
			hubbubtest.Step(0)
		}
		began := time.Now()
		if err := srv.Disconnect(t.Context(), c.Welcome.ClientID, 0, ""); err != nil {
			t.Fatal(err)
		}
		c.ExpectClosed(4500)
		if took := emptied(srv).Sub(began); took > 100*time.Millisecond {
			t.Errorf("it took %s", took)
		}
	})
}

// Behind the Close that follows a client's fault the stream ends at once, though its rest is read for a second more,
// also where other messages had to go out before.
func TestTheStreamEndsRightBehindTheCloseOfAFault(t *testing.T) {
	for _, before := range []int{0, 1, 20} {
		synctest.Test(t, func(t *testing.T) {
			srv := hubbubtest.NewServer(t, hubbub.Config{})
			c, err := srv.ConnectWith("ann", hubbubtest.Options{Buffer: 1 << 10})
			if err != nil {
				t.Fatal(err)
			}
			c.Link.Stall(hubbubtest.ToClient)
			for range before {
				if err := rawtest.SendTo(srv, c.Welcome.ClientID, strings.Repeat("x", 1000)); err != nil {
					t.Fatal(err)
				}
			}
			hubbubtest.Step(0)
			c.SendFrame(3, true, nil) // an opcode that is none
			hubbubtest.Step(0)
			c.Link.Resume(hubbubtest.ToClient)
			began := time.Now()
			for range before {
				c.Receive()
			}
			c.ExpectClosed(1002)
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("behind %d messages it ended after %s", before, took)
			}
		})
	}
}

// With a deadline the pace of a drain is faster: the last Close leaves by three quarters of the time.
func TestTheDrainFitsItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 2})
		var clients []*hubbubtest.Client
		for i := range 1000 { // 2 s at the usual pace
			clients = append(clients, srv.Connect(fmt.Sprint(i)))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		began := time.Now()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("all answered, but Shutdown: %v", err)
		}
		if took := time.Since(began); took < time.Second/2 || took > time.Second*3/4+50*time.Millisecond {
			t.Errorf("it took %s", took)
		}
		for _, c := range clients {
			c.ExpectReconnect()
			c.ExpectClosed(1001)
		}
	})
}
