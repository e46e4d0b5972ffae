package hub

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/rate"
	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

// perSecond limits everything to n a second.
func perSecond(n int64) (l rate.Limits) {
	for k := range l {
		l[k] = rate.Limit{N: n, Per: 1000, Burst: n}
	}
	return l
}

func addressOf(i int) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(i))
	return netip.AddrFrom16(b)
}

// sessionOf is the server's side of a client.
func sessionOf(t testing.TB, h *Hub, id string) *session {
	t.Helper()
	of, _ := ParseID([]byte(id))
	sh := h.clientShard(of)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.sessions[of] == nil {
		t.Fatalf("no client %s", id)
	}
	return sh.sessions[of]
}

// onItsWorker runs f where the session may be touched.
func onItsWorker(h *Hub, s *session, f func()) {
	h.loop.Inspect(time.Minute, func(w *loop.Worker) {
		if w == s.conn.Worker() {
			f()
		}
	})
}

// Who has all that it may again is forgotten.
func TestUsersAndAddressesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHubOf(t, 1, func(c *Config) { c.Limits = Limits{User: perSecond(10), Address: perSecond(10)} })
		for i := range 1000 {
			h.AddressConnects(addressOf(i))
			h.userConnects(t.Context(), fmt.Sprint("user ", i), nil)
		}
		if n, m := h.limits.addresses.known(), h.limits.users.known(); n != 1000 || m != 1000 {
			t.Fatalf("%d addresses and %d users are known", n, m)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n, m := h.limits.addresses.known(), h.limits.users.known(); n != 0 || m != 0 {
			t.Errorf("%d addresses and %d users are known two minutes later", n, m)
		}
		for _, fault := range h.Audit() {
			t.Error(fault)
		}
	})
}

// Who comes from more addresses than can be known makes none of them unlimited, and takes no more memory.
func TestManyAddressesTakeSoMuchMemory(t *testing.T) {
	h, _ := newHubOf(t, 1, func(c *Config) {
		c.Limits.Address = rate.Limits{rate.Connects: {N: 1, Per: 3_600_000, Burst: 1}}
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 300_000 {
		h.AddressConnects(addressOf(i))
		if i%1000 == 0 && h.AddressConnects(addressOf(i)) == nil {
			t.Fatalf("the address %d connects twice", i)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := h.limits.addresses.known(); n > shards*maxMeters || n < shards*maxMeters/2 {
		t.Errorf("%d addresses are known", n)
	}
	taken := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d bytes", taken)
	if taken > 20<<20 {
		t.Errorf("%d bytes are taken", taken)
	}
	for _, fault := range h.Audit() {
		t.Error(fault)
	}
}

// A client that sends nothing takes no more memory where there are limits, and none does where there are none.
func TestALimitCostsNothingBeforeItIsAsked(t *testing.T) {
	for _, limits := range []Limits{{}, {Client: perSecond(10)}} {
		h, l := newHubOf(t, 1, func(c *Config) { c.Limits = limits })
		c := newClient(t, h, l)
		s := sessionOf(t, h, c.id)
		onItsWorker(h, s, func() {
			if s.more != nil {
				t.Error("a client that has sent nothing has more than others")
			}
		})
		c.sync()
		onItsWorker(h, s, func() {
			if has := s.more != nil && s.more.meter != nil; has != (limits != Limits{}) {
				t.Errorf("with limits %v it has a meter: %v", limits, has)
			}
		})
	}
}

func TestAskingLimitsAllocatesNothing(t *testing.T) {
	all := perSecond(1 << 20)
	h, l := newHubOf(t, 1, func(c *Config) { c.Limits = Limits{Client: all, User: all, Address: all} })
	c := newSession(t, l, h.Session(Identity{ID: NewID(), User: "ann"}, addressOf(1), nil))
	s := sessionOf(t, h, c.id)
	onItsWorker(h, s, func() {
		if n := allocations(100, func() { s.mayDoCommand([]byte("{}")) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// A session that was lost and whose client finds no connection free for its user is lost again, and not ended. Admit
// looks before; here another one comes in between.
func TestASessionThatFindsNoConnectionFreeStays(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) { c.ResumeWindow, c.Limits.UserConnections = time.Hour, 1 })
	c := newSession(t, l, h.Session(Identity{ID: NewID(), User: "ann"}, netip.Addr{}, nil))
	c.say(`{"msg_type":"join_room","room":"r","id":1}`)
	c.next()
	c.nc.Close()
	for deadline := time.Now().Add(time.Minute); h.ParkedSessions() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	resume := func() loop.Handler {
		of, ok := h.Resume(c.welcome["resume_token"].(string))
		if !ok {
			t.Fatal("the token isn't good any more")
		}
		return h.Session(Identity{ID: of.ID, User: "ann"}, netip.Addr{}, &of)
	}
	refused := resume()
	if !h.limits.connections.take("ann") {
		t.Fatal("her connection that was lost is counted still")
	}
	near, far := net.Pipe()
	l.Reserve(1 << 20)
	if err := l.Adopt(near, refused, wire.Deflate{}, nil, nil); err != nil {
		t.Fatal(err)
	}
	f, err := wsclient.Read(bufio.NewReader(far), 1<<20)
	if err != nil || f.Op != wsclient.Close || binary.BigEndian.Uint16(f.Payload) != wire.CloseTryLater {
		t.Errorf("want a Close with 1013, got %v %q, %v", f.Op, f.Payload, err)
	}
	far.Close()
	h.limits.connections.leave("ann")
	again := newSession(t, l, resume())
	if again.welcome["resumed"] != true || again.id != c.id {
		t.Errorf("then: %v", again.welcome)
	}
}

// Whom the application lets in by a name of which too many come is refused, and gone again for the application: each
// Connect that lets somebody in has its Disconnect.
func TestWhoIsLetInByANameBeyondItsLimitIsGoneAgain(t *testing.T) {
	in, out := make(chan Identity, 10), make(chan Identity, 10)
	h, _ := newHubOf(t, 1, func(c *Config) {
		c.Limits.User[rate.Connects] = rate.Limit{N: 1, Per: rate.MaxPer, Burst: 1}
		c.Hooks.Disconnect = func(_ context.Context, who Identity, _ int) { out <- who }
	})
	connect := func(_ context.Context, id ID, who *auth.Identity) error {
		who.User = "ann"
		in <- Identity{id, who.User}
		return nil
	}
	for i, refused := range []bool{false, true, true} {
		h.UpgradeBegins()
		handler, err := h.Admit(t.Context(), netip.Addr{}, "", auth.Identity{}, connect)
		h.UpgradeEnds()
		var no *Limited
		if errors.As(err, &no) != refused || refused && (no.By != "user" || no.Limit != "connects") {
			t.Fatalf("number %d: %v", i, err)
		}
		if !refused {
			handler.Closed(nil, loop.Ending{Code: wire.CloseAbnormal})
		}
		until(t, "it is gone again", func() bool { return len(out) > 0 })
		if came, went := <-in, <-out; came != went {
			t.Errorf("%v was let in, and %v is gone", came, went)
		}
	}
}

// Who sends far more bytes than it may is closed as who sends far more messages is: few of them can be many bytes.
func TestWhoGoesOnInBytesIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, l := newHubOf(t, 1, func(c *Config) { c.Limits.Client[rate.Bytes] = rate.Limit{N: 1000, Per: 1000, Burst: 64 << 10} })
		for _, c := range []struct {
			size, code int
		}{{12_000, wire.ClosePolicy}, {3000, 0}} {
			far := dial(t, h, l, auth.Identity{})
			code := make(chan int, 1)
			go func() {
				for {
					f, err := wsclient.Read(far, 1<<20)
					if err != nil {
						return
					}
					if f.Op == wsclient.Close {
						code <- int(binary.BigEndian.Uint16(f.Payload))
						return
					}
				}
			}()
			message := masked(`{"msg_type":"chat","content":%q}`, strings.Repeat("x", c.size))
			for begun := time.Now(); time.Since(begun) < 40*time.Second && len(code) == 0; time.Sleep(500 * time.Millisecond) {
				far.Write(message)
				if time.Since(begun) < rate.ExcessTime*time.Millisecond && len(code) > 0 {
					t.Error("it is closed at once")
				}
			}
			got := 0
			if len(code) > 0 {
				got = <-code
			}
			if got != c.code {
				t.Errorf("with %d bytes each half second it is closed with %d, want %d", c.size, got, c.code)
			}
			far.Close()
		}
	})
}

// A room of a resume about which nobody needs to be asked counts as one join, whether or not there is a hook.
func TestARoomOfAResumeIsOneJoin(t *testing.T) {
	for _, hook := range []bool{false, true} {
		h, l := newHubOf(t, 1, func(c *Config) {
			if hook {
				c.Hooks.Join = func(context.Context, Identity, string) error { return nil }
			}
			c.Limits.Client[rate.Joins] = rate.Limit{N: 1, Per: rate.MaxPer, Burst: 1}
		})
		c := newKnown(t, h, l, auth.Identity{User: "ann", Rooms: []string{"r"}})
		c.ask(`{"msg_type":"leave_room","room":"r","id":1}`)
		if got := c.resume(`"r":null`); !slices.Equal(got, []string{"resumed r false expired"}) {
			t.Errorf("with a hook %t: %q", hook, got)
		}
	}
}

// What a command costs where limits are asked.
func BenchmarkLimits(b *testing.B) {
	all := perSecond(1 << 30)
	for name, limits := range map[string]Limits{
		"none": {}, "client": {Client: all}, "client+user+address": {Client: all, User: all, Address: all},
	} {
		b.Run(name, func(b *testing.B) {
			h, l := newHubOf(b, 1, func(c *Config) { c.Limits = limits })
			c := newSession(b, l, h.Session(Identity{ID: NewID(), User: "ann"}, addressOf(1), nil))
			s := sessionOf(b, h, c.id)
			raw := make([]byte, 1) // of more, more would be refused
			onItsWorker(h, s, func() {
				for b.Loop() {
					s.mayDoCommand(raw)
				}
			})
		})
	}
}
