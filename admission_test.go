package hubbub_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// ledger holds Connect and Disconnect against each other, by id and user.
type ledger struct {
	diary
	open map[string]int // let in, and not yet told to be gone. Guarded by diary.mu
}

// hooks are a Connect that does as decide says, and the Disconnect.
func (l *ledger) hooks(decide func(ctx context.Context, c *hubbub.Connect) error) hubbub.Hooks {
	l.open = map[string]int{}
	return hubbub.Hooks{
		Connect: func(ctx context.Context, c *hubbub.Connect) error {
			err := errors.New("it did not return")
			defer func() {
				if err != nil {
					l.add("%s %s: refused", c.Client, c.User)
					return
				}
				l.add("%s %s: let in", c.Client, c.User)
				l.count(c.Client+" "+c.User, +1)
			}()
			c.User = c.Request.URL.Query().Get("user")
			err = decide(ctx, c)
			return err
		},
		Disconnect: func(_ context.Context, d *hubbub.Disconnect) {
			l.add("%s %s: gone, %d", d.Client, d.User, d.Code)
			l.count(d.Client+" "+d.User, -1)
		},
	}
}

func (l *ledger) count(who string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[who] += n; l.open[who] < 0 {
		l.lines = append(l.lines, "FAULT: a Disconnect too many for "+who)
	}
}

// lines that end so.
func (l *ledger) ending(with string) (n int) {
	for _, line := range l.read() {
		if strings.HasSuffix(line, with) {
			n++
		}
	}
	return n
}

// settled fails the test unless each who was let in is gone again, once.
func (l *ledger) settled(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.open, func(_ string, n int) bool { return n == 0 })
	fault := slices.ContainsFunc(l.lines, func(line string) bool { return strings.HasPrefix(line, "FAULT") })
	if len(l.open) > 0 || fault {
		t.Errorf("without their pair are %v of\n%s", l.open, strings.Join(l.lines, "\n"))
	}
}

// Ways in which a connection can't be had of a ResponseWriter, or can't be used. Without fault it is left as it is.
type brokenWriter struct {
	http.ResponseWriter
	fault string
}

func (w *brokenWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	switch w.fault {
	case "hijack panics":
		panic("planted")
	case "hijack fails":
		return nil, nil, errors.New("planted")
	}
	nc, rw, err := w.ResponseWriter.(http.Hijacker).Hijack()
	if w.fault == "deaf socket" && err == nil {
		nc.Close() // its deadlines can't be cleared any more
	}
	return nc, rw, err
}

// behind serves s behind a middleware that does what the query's fault says.
func behind(t *testing.T, cfg hubbub.Config) *rawtest.Server {
	t.Helper()
	server, err := hubbub.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch fault := r.URL.Query().Get("fault"); fault {
		case "":
			server.ServeHTTP(w, r)
		case "no descriptors":
			withoutDescriptors(t, w, r, server)
		default:
			server.ServeHTTP(&brokenWriter{w, fault}, r)
		}
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.Start()
	t.Cleanup(func() {
		server.Shutdown(timeout(t))
		srv.Close()
	})
	return &rawtest.Server{Server: server, Addr: srv.Listener.Addr().String(), Log: &rawtest.Log{}}
}

// Whatever keeps a client that Connect has let in from getting its connection: its end is told, and it keeps no place.
func TestWhoIsLetInAndComesToNothingIsGoneAgain(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		faults := []string{"hijack fails", "hijack panics", "deaf socket"}
		if io != "pump" {
			faults = append(faults, "no descriptors")
		}
		var l ledger
		s := behind(t, hubbub.Config{
			IO: io, Logger: quietLogger(), MaxConnectionsPerIP: 1,
			Hooks: l.hooks(func(context.Context, *hubbub.Connect) error { return nil }),
		})
		for i, fault := range faults {
			c := rawtest.Connect(t, s)
			c.SendRaw([]byte(rawtest.Upgrade(s, "/ws?user=ann&fault="+strings.ReplaceAll(fault, " ", "+"))))
			rawtest.Eventually(t, "the end of who met "+fault+" is told", func() bool { return l.ending("ann: gone, 1006") == i+1 })
			c.CloseNow()
			rawtest.Eventually(t, "the place is free after "+fault, func() bool { return s.Connections() == 0 })
		}
		rawtest.Eventually(t, "the address has its place again", func() bool {
			c := rawtest.Connect(t, s)
			defer c.CloseNow()
			c.SendRaw([]byte(rawtest.Upgrade(s, "/ws?user=bob")))
			return c.Response("GET").StatusCode == http.StatusSwitchingProtocols
		})
		s.Shutdown(longTime(t))
		l.settled(t)
	})
}

// Who finds all places taken takes none of its address's.
func TestARefusedClientKeepsNoPlace(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{MaxConnections: 1, MaxConnectionsPerIP: 2})
	a := rawtest.Dial(t, s, "/echo")
	for range 5 {
		c := rawtest.Connect(t, s)
		c.SendRaw([]byte(rawtest.Upgrade(s, "/echo")))
		if r := c.Response("GET"); r.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("got %s", r.Status)
		}
	}
	a.Reset()
	rawtest.Eventually(t, "its place is free", func() bool { return s.Connections() == 0 })
	rawtest.Dial(t, s, "/echo")
}

// A client that hangs up while Connect is asked, or whose time is over: it may be let in all the same, and then it is
// gone.
func TestConnectThatIsLate(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var l ledger
		release := make(chan error)
		s := rawtest.Start(t, hubbub.Config{IO: io, HookTimeout: 100 * time.Millisecond, Hooks: l.hooks(func(ctx context.Context, c *hubbub.Connect) error {
			l.add("asked for %s", c.User)
			<-ctx.Done()
			l.add("the time is over for %s", c.User)
			return <-release
		})})
		slow := rawtest.Connect(t, s)
		slow.SendRaw([]byte(rawtest.Upgrade(s, "/ws?user=slow")))
		slow.ExpectUpgrade()
		slow.AnswerClose(1013)
		gone := rawtest.Connect(t, s)
		gone.SendRaw([]byte(rawtest.Upgrade(s, "/ws?user=gone")))
		rawtest.Eventually(t, "it is asked for", func() bool { return l.ending("asked for gone") == 1 })
		gone.Reset()
		rawtest.Eventually(t, "both times are over", func() bool { return l.ending("over for slow") == 1 && l.ending("over for gone") == 1 })
		if l.ending(": gone, 1006") > 0 {
			t.Errorf("an end is told before it is known who was let in: %q", l.read())
		}
		release <- nil
		release <- nil
		rawtest.Eventually(t, "both are gone again", func() bool { return l.ending("slow: gone, 1006") == 1 && l.ending("gone: gone, 1006") == 1 })
		refused := rawtest.Connect(t, s)
		refused.SendRaw([]byte(rawtest.Upgrade(s, "/ws?user=refused")))
		refused.ExpectUpgrade()
		refused.AnswerClose(1013)
		release <- errors.New("no")
		rawtest.Eventually(t, "one is refused", func() bool { return l.ending("refused: refused") == 1 })
		s.Shutdown(longTime(t))
		l.settled(t)
		if log := s.Log.String(); strings.Count(log, "level=ERROR") > 2 {
			t.Errorf("a client that hung up is no error:\n%s", log)
		}
	})
}

// Connect that is asked while the server stops: who is let in gets no connection, and Shutdown returns behind its end.
func TestShutdownWhileConnectIsAsked(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var l ledger
		asked, release := make(chan bool), make(chan bool)
		s := rawtest.Start(t, hubbub.Config{IO: io, Hooks: l.hooks(func(context.Context, *hubbub.Connect) error {
			asked <- true
			<-release
			return nil
		})})
		c := rawtest.Connect(t, s)
		c.SendRaw([]byte(rawtest.Upgrade(s, "/ws?user=ann")))
		<-asked
		done := make(chan error)
		go func() {
			done <- s.Shutdown(longTime(t))
		}()
		rawtest.Eventually(t, "the server stops", func() bool { return errors.Is(rawtest.Publish(s, "r", 1), hubbub.ErrStopped) })
		select {
		case err := <-done:
			t.Errorf("Shutdown returns (%v) while Connect is asked", err)
		default:
		}
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if l.ending("ann: gone, 1006") != 1 {
			t.Errorf("got %q", l.read())
		}
		l.settled(t)
	})
}

// The id of a session belongs to its user: for another one Connect is told the id that its client really gets.
func TestConnectIsToldTheIDThatTheClientGets(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		var l ledger
		s := rawtest.Start(t, hubbub.Config{IO: io, Hooks: l.hooks(func(context.Context, *hubbub.Connect) error { return nil })})
		come := func(user, token string) (*member, string) {
			m, welcome := comeBack(t, s, token+"&user="+user)
			return m, welcome["resume_token"].(string)
		}
		ann, token := come("ann", "")
		ann.Reset()
		parked(t, s, 1)
		bob, _ := come("bob", token)
		again, _ := come("ann", token)
		if bob.id == ann.id || again.id != ann.id {
			t.Fatalf("bob is %s, ann %s and then %s", bob.id, ann.id, again.id)
		}
		want := []string{
			ann.id + " ann: let in", ann.id + " ann: gone, 1006",
			ann.id + " bob: let in", ann.id + " bob: gone, 1006", bob.id + " bob: let in",
			ann.id + " ann: let in",
		}
		if got := l.read(); !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		bob.Reset()
		again.Reset()
		s.Shutdown(longTime(t))
		l.settled(t)
	})
}

// A token that was used, or whose session is over, is seen before Connect is asked: it is told the new id at once.
func TestAUsedTokenIsSeenBeforeConnect(t *testing.T) {
	var l ledger
	s := rawtest.Start(t, hubbub.Config{Hooks: l.hooks(func(context.Context, *hubbub.Connect) error { return nil })})
	come := func(token string) (*member, string) {
		m, welcome := comeBack(t, s, token+"&user=ann")
		return m, welcome["resume_token"].(string)
	}
	ann, used := come("")
	ann.Reset()
	parked(t, s, 1)
	ann, over := come(used)
	ann.ask(`{"msg_type":"ping"}`)
	other, _ := come(used)
	ann.SendClose(1000, "")
	ann.ExpectClose(1000)
	third, _ := come(over)
	want := []string{
		ann.id + " ann: let in", ann.id + " ann: gone, 1006", ann.id + " ann: let in",
		other.id + " ann: let in", ann.id + " ann: gone, 1000", third.id + " ann: let in",
	}
	if got := l.read(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A session that ends while Connect is asked with its id: the client gets another, and Connect is asked with that.
func TestASessionThatEndsWhileConnectIsAsked(t *testing.T) {
	for _, then := range []string{"let in", "refused", "hung up", "hung up and let in", "the server stops"} {
		t.Run(then, func(t *testing.T) {
			rawtest.EachIO(t, func(t *testing.T, io string) {
				var l ledger
				asked, answer := make(chan bool), make(chan error)
				s := rawtest.Start(t, hubbub.Config{IO: io, Hooks: l.hooks(func(ctx context.Context, c *hubbub.Connect) error {
					if c.Request.URL.Query().Get("resume") == "" {
						return nil
					}
					if c.Request.Context() != ctx {
						t.Error("the request's context isn't the hook's")
					}
					asked <- true
					if then == "hung up" && l.ending("ann: gone, 1006") == 1 {
						<-ctx.Done()
						return ctx.Err()
					}
					return <-answer
				})})
				ann, welcome := comeBack(t, s, "&user=ann")
				back := rawtest.Connect(t, s)
				back.SendRaw([]byte(rawtest.Upgrade(s, "/ws?user=ann&resume="+welcome["resume_token"].(string))))
				<-asked
				ann.SendClose(1000, "") // the session is over
				ann.ExpectClose(1000)
				rawtest.Eventually(t, "it is over", func() bool { return l.ending("gone, 1000") == 1 })
				answer <- nil
				back.ExpectUpgrade()
				<-asked
				want := []string{"ann: let in", "ann: gone, 1000", "ann: let in", "ann: gone, 1006"}
				if got := l.read(); len(got) != 4 {
					t.Errorf("got %q", got)
				} else {
					for i, line := range got {
						if line != ann.id+" "+want[i] {
							t.Errorf("%d: got %q", i, line)
						}
					}
				}
				switch then {
				case "let in":
					back.Text(`{"msg_type":"ping","id":1}`) // it waits for the welcome
					answer <- nil
					got := back.NextJSON()
					if got["msg_type"] != "welcome" || got["resumed"] != false || got["client_id"] == ann.id {
						t.Errorf("got %v", got)
					}
					if pong := back.NextJSON(); pong["msg_type"] != "pong" {
						t.Errorf("got %v", pong)
					}
					if last := l.read()[4]; last != fmt.Sprint(got["client_id"], " ann: let in") {
						t.Errorf("Connect was asked for %s, the client is %v", last, got["client_id"])
					}
				case "refused":
					answer <- &hubbub.Error{Code: hubbub.Forbidden, Message: "not again"}
					if op, p := back.Next(); op != wsclient.Close || string(p) != string(wsclient.ClosePayload(4501, "not again")) {
						t.Errorf("got %v %s", op, rawtest.Brief(p))
					}
				case "hung up":
					back.Reset()
				case "hung up and let in":
					back.Reset()
					rawtest.Eventually(t, "it has gone", func() bool { return s.Connections() == 0 })
					answer <- nil
					rawtest.Eventually(t, "its end is told", func() bool { return l.ending("ann: gone, 1006") == 2 })
				case "the server stops":
					go s.Shutdown(longTime(t))
					back.ExpectCloseFrame(1001) // nothing before it: there was no welcome
					answer <- nil
					rawtest.Eventually(t, "its end is told", func() bool { return l.ending("ann: gone, 1006") == 2 })
				}
				back.Reset()
				s.Shutdown(longTime(t))
				l.settled(t)
			})
		})
	}
}

// Whatever happens to clients, each Connect that let one in has its Disconnect, and each place is given back.
func TestNoConnectMissesItsPair(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		seed := rand.Uint64()
		t.Log("seed", seed)
		for round := range uint64(3) {
			misfits(t, io, rand.New(rand.NewPCG(seed, round)))
		}
	})
}

// misfits has clients of all kinds come, and stops the server while they do.
func misfits(t *testing.T, io string, random *rand.Rand) {
	var l ledger
	ways := []string{"in", "in", "in", "refuse", "fail", "panic", "exit", "slow", "late", "late and no"}
	s := behind(t, hubbub.Config{
		IO: io, Workers: 2, Logger: quietLogger(), HookTimeout: 5 * time.Millisecond, MaxHookCalls: 4, ResumeWindow: time.Second, MaxConnectionsPerIP: 60,
		Hooks: l.hooks(func(ctx context.Context, c *hubbub.Connect) error {
			switch c.Request.URL.Query().Get("way") {
			case "refuse":
				return &hubbub.Error{Code: hubbub.Forbidden, Message: "no"}
			case "fail":
				return errors.New("planted")
			case "panic":
				panic("planted")
			case "exit":
				runtime.Goexit()
			case "slow":
				time.Sleep(time.Millisecond)
			case "late":
				<-ctx.Done()
				time.Sleep(time.Millisecond)
			case "late and no":
				<-ctx.Done()
				return errors.New("planted")
			}
			return nil
		}),
	})
	faults := []string{"", "", "", "", "no hijack", "hijack fails", "hijack panics", "deaf socket"}
	var tokens struct {
		sync.Mutex
		of []string
	}
	var all sync.WaitGroup
	for range 8 {
		mine := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		pick := func(of []string) string { return of[mine.IntN(len(of))] }
		all.Go(func() {
			for range 40 {
				query := fmt.Sprintf("/ws?user=%s&way=%s&fault=%s", pick([]string{"", "ann", "bob"}), pick(ways), pick(faults))
				tokens.Lock()
				if len(tokens.of) > 0 && mine.IntN(2) == 0 {
					query += "&resume=" + pick(tokens.of)
				}
				tokens.Unlock()
				nc, err := net.Dial("tcp", s.Addr)
				if err != nil {
					return // the server is gone
				}
				c := &rawtest.Client{T: t, NC: nc.(*net.TCPConn), R: bufio.NewReader(nc), Timeout: rawtest.Patience}
				c.TrySend([]byte(rawtest.Upgrade(s, strings.ReplaceAll(query, " ", "+"))))
				if mine.IntN(3) > 0 {
					c.NC.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
					if r, err := http.ReadResponse(c.R, nil); err == nil && r.StatusCode == http.StatusSwitchingProtocols {
						if op, p, err := rawtest.ReadFrame(c.R); err == nil && op == wsclient.Text {
							_, rest, _ := strings.Cut(string(p), `"resume_token":"`)
							token, _, _ := strings.Cut(rest, `"`)
							tokens.Lock()
							tokens.of = append(tokens.of, token)
							tokens.Unlock()
						}
					}
				}
				if mine.IntN(3) == 0 {
					c.TrySend(rawtest.Frame(wsclient.Close, true, wsclient.ClosePayload(1000, "")))
				}
				if mine.IntN(2) == 0 {
					c.Reset()
				}
				c.CloseNow()
			}
		})
	}
	rawtest.Eventually(t, "there is something to hold against each other", func() bool { return len(l.read()) >= 20 })
	time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond) // from then on Shutdown may come at any moment
	if err := s.Shutdown(longTime(t)); err != nil {
		t.Error(err)
	}
	l.settled(t) // none comes behind Shutdown
	all.Wait()
	if n := s.Connections(); n != 0 {
		t.Errorf("%d places are taken at the end", n)
	}
	l.settled(t)
}
