package hubbubtest_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
)

// Who is sent away because the server stops may come back to its session as long as the server lives: it counts in its
// rooms, and no hook is told that it has left. Then each is told, once, and Shutdown waits for that.
func TestADrainedSessionIsThereUntilTheServerHasStopped(t *testing.T) {
	const clients = 300 // 0.6 s at the usual pace
	synctest.Test(t, func(t *testing.T) {
		var gone, left, vacated, odd atomic.Int32
		srv := hubbubtest.NewServer(t, hubbub.Config{Workers: 2, Rooms: []hubbub.RoomPolicy{{Match: "*", Presence: "full"}}, Hooks: hubbub.Hooks{
			Disconnect: func(_ context.Context, d *hubbub.Disconnect) {
				gone.Add(1)
				if d.Code != 1001 {
					odd.Add(1)
				}
			},
			Left:    func(context.Context, *hubbub.Left) { time.Sleep(10 * time.Millisecond); left.Add(1) },
			Vacated: func(context.Context, string) { time.Sleep(10 * time.Millisecond); vacated.Add(1) },
		}})
		all := make([]*hubbubtest.Client, clients)
		for i := range all {
			all[i] = srv.Connect(fmt.Sprint(i))
			all[i].Join("r")
			all[i].Join(fmt.Sprint("of ", i%10))
		}
		hubbubtest.Step(2 * time.Second) // the last news of who is here
		stopped := make(chan error, 1)
		go func() { stopped <- srv.Shutdown(context.Background()) }()
		hubbubtest.Step(300 * time.Millisecond)
		drained := int(gone.Load())
		if drained < clients/4 || drained > clients*3/4 {
			t.Errorf("half way %d of %d clients are gone", drained, clients)
		}
		if n := int(figure(t, srv, "hubbub_parked_sessions")); n != drained {
			t.Errorf("%d sessions are parked, of %d that were sent away", n, drained)
		}
		here := 0
		for _, c := range all {
			if !c.Closed() {
				here = c.Request(map[string]any{"msg_type": "presence", "room": "r"}).Count
				break
			}
		}
		if here != clients || left.Load() != 0 {
			t.Errorf("in the room are %d, and of %d it was told that they have left", here, left.Load())
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if gone.Load() != clients || left.Load() != 2*clients || vacated.Load() != 11 || odd.Load() != 0 {
			t.Errorf("told: %d disconnects, %d with another code than 1001, %d have left, %d rooms are vacated", gone.Load(), odd.Load(), left.Load(), vacated.Load())
		}
	})
}
