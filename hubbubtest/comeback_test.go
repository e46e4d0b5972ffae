package hubbubtest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/hubbubtest"
	"example.com/hubbub/internal/rawtest"
)

// Coming back, and being lost on the way.

// backWith connects with a token and says nothing.
func backWith(t *testing.T, srv *hubbubtest.Server, token string) *hubbubtest.Client {
	t.Helper()
	c, err := srv.ConnectWith("back", hubbubtest.Options{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Each loss of the connection begins the window anew, also that of one who came back and had no time to say anything.
func TestTheWindowBeginsAnewWithEachLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{ResumeWindow: 30 * time.Second})
		ann := srv.Connect("ann")
		ann.Join("r")
		token := ann.Welcome.ResumeToken
		ann.Drop()
		for range 4 {
			hubbubtest.Step(20 * time.Second)
			back := backWith(t, srv, token)
			if !back.Welcome.Resumed {
				t.Fatalf("within its window: %s", back.Welcome)
			}
			hubbubtest.Step(2 * time.Second)
			back.Drop() // the end of the window before comes while it is away again
		}
		hubbubtest.Step(31 * time.Second)
		if back := backWith(t, srv, token); back.Welcome.Resumed {
			t.Error("it was resumed behind its window")
		}
	})
}

// While a client is back, and hasn't said yet what it had, its time doesn't end.
func TestNobodyExpiresWhileItIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := hubbubtest.NewServer(t, hubbub.Config{ResumeWindow: 5 * time.Second})
		ann := srv.Connect("ann")
		ann.Join("r")
		since := ann.Position("r")
		ann.Drop()
		hubbubtest.Step(4 * time.Second)
		back := backWith(t, srv, ann.Welcome.ResumeToken)
		hubbubtest.Step(5 * time.Second) // past its window, within its 10 s
		rawtest.Publish(srv, "r", "meanwhile")
		a := back.Request(map[string]any{"msg_type": "resume", "rooms": map[string]any{"r": since}})
		if !back.Welcome.Resumed || !a.Rooms["r"].Recovered {
			t.Errorf("got %s, then %s", back.Welcome, a)
		}
		if m := back.Receive(); string(m.Content) != `"meanwhile"` {
			t.Errorf("got %s", m)
		}
	})
}

// A client that has said resume has its new token: the one before counts no more, though the connection is lost before
// the answer.
func TestTheOldTokenEndsWithTheFirstWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		held := false
		srv := hubbubtest.NewServer(t, hubbub.Config{HookTimeout: time.Hour, Hooks: hubbub.Hooks{Join: func(context.Context, *hubbub.Join) error {
			if held {
				g.pass()
			}
			return nil
		}}})
		ann := srv.Connect("ann")
		ann.Join("r")
		first := ann.Welcome.ResumeToken
		ann.Drop()
		hubbubtest.Step(time.Second)
		held = true
		back := backWith(t, srv, first)
		second := back.Welcome.ResumeToken
		back.Send(map[string]any{"msg_type": "resume", "rooms": map[string]any{"r": nil}, "id": 1})
		hubbubtest.Step(time.Second)
		if g.waiting.Load() != 1 {
			t.Fatal("the hook was not asked")
		}
		back.Drop()
		hubbubtest.Step(time.Second)
		if back := backWith(t, srv, first); back.Welcome.Resumed {
			t.Error("the token from before the last one still counts")
		}
		close(g.open)
		if back := backWith(t, srv, second); !back.Welcome.Resumed || back.ID != ann.ID {
			t.Errorf("the newest token: %s", back.Welcome)
		}
	})
}
