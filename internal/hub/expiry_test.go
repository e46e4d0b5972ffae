package hub

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/wsclient"
)

var began = time.Now()

// bubble runs a story with a clock of its own. It begins in the year 2000, before the loop's, which must not run back.
func bubble(t *testing.T, story func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(began.Add(time.Minute)))
		story(t)
	})
}

// dial is the far end of a session of whom that is known.
func dial(t testing.TB, h *Hub, l *loop.Loop, who auth.Identity) net.Conn {
	t.Helper()
	return connectTo(t, l, h.session(NewID(), who, netip.Addr{}, nil))
}

// closedWith reads until the server closes, and gives the code.
func closedWith(t testing.TB, h *Hub, l *loop.Loop, who auth.Identity, said ...string) (code <-chan int) {
	far := dial(t, h, l, who)
	done := make(chan int, 1)
	go func() {
		defer far.Close()
		for {
			f, err := wsclient.Read(far, 1<<20)
			if err != nil {
				done <- 0
				return
			}
			if f.Op == wsclient.Close {
				done <- int(f.Payload[0])<<8 | int(f.Payload[1])
				return
			}
		}
	}()
	for _, text := range said {
		far.Write(masked("%s", text))
	}
	return done
}

// An identity's end closes the connection: not before it and the leeway, and within 5 s more and the second by which
// any timer may be late. The session can be resumed.
func TestAnIdentityExpires(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, l := newHubOf(t, 2, func(c *Config) { c.ResumeWindow, c.Leeway = time.Minute, 10*time.Second })
		const clients = 200
		at := time.Now().Add(100*time.Second + 500*time.Microsecond)
		var closing []<-chan int
		for range clients {
			closing = append(closing, closedWith(t, h, l, auth.Identity{User: "ann", Expires: at}))
		}
		stays := closedWith(t, h, l, auth.Identity{User: "ann"})
		count := func() (n int) {
			for i, c := range closing {
				select {
				case code := <-c:
					if code != 4401 {
						t.Errorf("client %d is closed with %d", i, code)
					}
					closing[i] = nil
				default:
				}
				if closing[i] == nil {
					n++
				}
			}
			return n
		}
		step := func(d time.Duration) int {
			time.Sleep(d)
			synctest.Wait()
			return count()
		}
		if n := step(time.Until(at.Add(10 * time.Second))); n != 0 {
			t.Errorf("%d of %d are closed early", n, clients)
		}
		if n := step(3 * time.Second); n < clients/10 || n > clients*9/10 {
			t.Errorf("%d of %d are closed after 3 of the 5 seconds", n, clients)
		}
		if n := step(3 * time.Second); n != clients {
			t.Errorf("%d of %d are closed in time", n, clients)
		}
		if n := h.ParkedSessions(); n != clients {
			t.Errorf("%d sessions can be resumed", n)
		}
		select {
		case code := <-stays:
			t.Errorf("who never expires is closed with %d", code)
		default:
		}
		expectExpiring(t, h, l, 0)
	})
}

func expectExpiring(t *testing.T, h *Hub, l *loop.Loop, want int) {
	t.Helper()
	var n atomic.Int64
	l.Inspect(time.Minute, func(w *loop.Worker) { n.Add(int64(len(h.workers[w.Index()].expiring))) })
	if n.Load() != int64(want) {
		t.Errorf("%d are to expire, want %d", n.Load(), want)
	}
}

// A refresh moves the end either way, and who has left is kept no longer.
func TestARefreshMovesTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, l := newHubOf(t, 1, func(c *Config) {
			c.Hooks.Refresh = func(_ context.Context, _ Identity, token string) (auth.Identity, error) {
				after, err := time.ParseDuration(token)
				if after == 0 || err != nil {
					return auth.Identity{User: "ann"}, err
				}
				return auth.Identity{User: "ann", Expires: time.Now().Add(after)}, nil
			}
		})
		ann := auth.Identity{User: "ann", Expires: time.Now().Add(time.Minute)}
		same := closedWith(t, h, l, ann)
		later := closedWith(t, h, l, ann, `{"msg_type":"refresh","token":"50m"}`)
		sooner := closedWith(t, h, l, ann, `{"msg_type":"refresh","token":"50m"}`, `{"msg_type":"refresh","token":"10s"}`)
		never := closedWith(t, h, l, ann, `{"msg_type":"refresh","token":"0s"}`)
		past := closedWith(t, h, l, auth.Identity{User: "ann", Expires: time.Now().Add(-time.Hour)})
		begun := time.Now()
		is := func(after time.Duration, closed, open []<-chan int) {
			t.Helper()
			time.Sleep(time.Until(begun.Add(after)))
			synctest.Wait()
			for i, c := range closed {
				select {
				case code := <-c:
					if code != 4401 {
						t.Errorf("closed with %d", code)
					}
				default:
					t.Errorf("after %s the client %d is there", after, i)
				}
			}
			for i, c := range open {
				select {
				case code := <-c:
					t.Errorf("after %s the client %d is closed with %d", after, i, code)
				default:
				}
			}
		}
		is(7*time.Second, []<-chan int{past}, []<-chan int{same, later, sooner, never})
		is(17*time.Second, []<-chan int{sooner}, []<-chan int{same, later, never})
		is(67*time.Second, []<-chan int{same}, []<-chan int{later, never})
		is(50*time.Minute, nil, []<-chan int{later, never})
		is(50*time.Minute+7*time.Second, []<-chan int{later}, []<-chan int{never})
		expectExpiring(t, h, l, 0)

		gone := dial(t, h, l, auth.Identity{User: "ann", Expires: time.Now().Add(24 * time.Hour)})
		synctest.Wait()
		expectExpiring(t, h, l, 1)
		gone.Close()
		synctest.Wait()
		expectExpiring(t, h, l, 0)
	})
}

// Those whose time has come at one moment all go, however many they are: here the worker had no time to look before.
func TestManyWhoExpireAtOnceAllGo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, l := newHubOf(t, 1, func(*Config) {})
		const clients = 3*expireAtOnce + 1
		at := time.Now().Add(100 * time.Second)
		var closing []<-chan int
		for range clients {
			closing = append(closing, closedWith(t, h, l, auth.Identity{User: "ann", Expires: at}))
		}
		synctest.Wait()
		time.Sleep(99 * time.Second)
		l.Workers()[0].Post(task(func() { time.Sleep(spread + 10*time.Second) }), 0)
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, c := range closing {
			select {
			case code := <-c:
				if code != 4401 {
					t.Errorf("client %d is closed with %d", i, code)
				}
			default:
				t.Fatalf("of %d clients number %d is still there", clients, i)
			}
		}
		expectExpiring(t, h, l, 0)
	})
}
