package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// publisherOf reads who published out of a payload.
func publisherOf(text string) string { return text[1+runSize+8:][:6] }

// A server that does all right is found without fault, by templates alone.
func TestAnotherServersRooms(t *testing.T) {
	for name, o := range map[string]func(*Options){
		"one room":         func(*Options) {},
		"rooms, all speak": func(o *Options) { o.Rooms, o.Members, o.Publishers, o.Window = 3, 4, 12, 16 },
		"at a rate":        func(o *Options) { o.Rate = 200 },
		"large":            func(o *Options) { o.Size = 100_000 },
		"after a warm-up":  func(o *Options) { o.Warmup = 50 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			s := newChatServer(t, nil)
			opts := s.options()
			o(&opts)
			opts.Header = []string{"X-Who: bench"}
			r := run(t, opts)
			if err := r.Err(); err != nil {
				t.Error(err)
			}
			opts = opts.withDefaults()
			if r.Published == 0 || r.Latency.Count < r.Published*int64(opts.Members-1) {
				t.Errorf("published %d, latencies %d", r.Published, r.Latency.Count)
			}
			if opts.Rate > 0 && r.Published != int64(opts.Rate*opts.Duration.Seconds()) {
				t.Errorf("published %d at %g a second", r.Published, opts.Rate)
			}
			for _, h := range s.headers {
				if h.Get("X-Who") != "bench" {
					t.Fatalf("the header did not come: %v", h)
				}
			}
			for name, members := range s.members {
				if len(members) != opts.Members {
					t.Errorf("%d members are in %s", len(members), name)
				}
			}
		})
	}
}

// Each fault is found, counted, and taken for no other.
func TestFaultsOfTheServerAreFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		mangle func(member, n int, text string) []string
		change func(*Options)
		want   Faults
		says   string
	}{
		{
			name: "lost",
			mangle: func(member, n int, text string) []string {
				if member == 1 && (n == 10 || n == 20 || n == 21) {
					return nil
				}
				return []string{text}
			},
			change: func(o *Options) { o.Drain = lossDrain },
			want:   Faults{Lost: 3}, says: "3 messages lost",
		}, {
			name: "doubled",
			mangle: func(member, n int, text string) []string {
				if member == 2 && (n == 5 || n == 15) {
					return []string{text, text}
				}
				return []string{text}
			},
			want: Faults{Doubled: 2}, says: "2 messages doubled",
		}, {
			name: "swapped, of one publisher",
			mangle: func() func(member, n int, text string) []string {
				held := ""
				return func(member, n int, text string) []string {
					switch {
					case member == 3 && n == 10:
						held = text
						return nil
					case member == 3 && n == 11:
						return []string{text, held}
					}
					return []string{text}
				}
			}(),
			change: func(o *Options) { o.Publishers = 1 },
			want:   Faults{OutOfOrder: 1}, says: "1 message out of order",
		}, {
			name:   "swapped, of two publishers",
			mangle: crossOnce(3),
			want:   Faults{Crossed: 1}, says: "1 message in another order",
		}, {
			name:   "swapped, where only each publisher's order is promised",
			mangle: crossOnce(3),
			change: func(o *Options) { o.Order = ByPublisher },
		}, {
			name: "damaged",
			mangle: func(member, n int, text string) []string {
				if member == 3 && n == 7 {
					return []string{text[:len(text)-1] + "!"}
				}
				return []string{text}
			},
			want: Faults{Damaged: 1}, says: "1 message damaged",
		}, {
			name: "two in one frame, which is no fault",
			mangle: func() func(member, n int, text string) []string {
				held := ""
				return func(member, n int, text string) []string {
					switch {
					case member == 3 && n == 10:
						held = text
						return nil
					case member == 3 && n == 11:
						return []string{held + "\nM " + text}
					}
					return []string{text}
				}
			}(),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newChatServer(t, nil)
			s.mangle = c.mangle
			o := s.options()
			o.Rate = 200 // so that each story is played
			if c.change != nil {
				c.change(&o)
			}
			r := run(t, o)
			got := r.Faults
			if got.Lost != c.want.Lost || got.Doubled != c.want.Doubled || got.OutOfOrder != c.want.OutOfOrder || got.Crossed != c.want.Crossed || got.Damaged != c.want.Damaged ||
				got.Stray+got.Errors != 0 || len(got.Broken)+len(got.Failed) > 0 {
				t.Errorf("found %+v, want %+v", got, c.want)
			}
			switch err := r.Err(); {
			case c.says == "" && err != nil, c.says != "" && (err == nil || !strings.HasPrefix(err.Error(), c.says)):
				t.Errorf("says %v, want %q", err, c.says)
			}
		})
	}
}

// crossOnce swaps two messages of different publishers on their way to a member that publishes nothing.
func crossOnce(who int) func(member, n int, text string) []string {
	held, done := "", false
	return func(member, n int, text string) []string {
		switch {
		case member != who || done || n < 10:
			return []string{text}
		case held == "":
			held = text
			return nil
		case publisherOf(held) == publisherOf(text):
			out := held
			held = text
			return []string{out}
		}
		done = true
		return []string{text, held}
	}
}

func TestWhoGetsItsOwnMessages(t *testing.T) {
	s := newChatServer(t, nil)
	s.toSelf = true
	o := s.options()
	o.IncludeSender = true
	if r := run(t, o); r.Err() != nil || r.Latency.Count < 4*r.Published {
		t.Errorf("%v; %d latencies of %d publishes", r.Err(), r.Latency.Count, r.Published)
	}
	o.IncludeSender = false
	if r := run(t, o); r.Faults.Stray == 0 || r.Err() == nil {
		t.Errorf("nobody should have got its own: %+v, %v", r.Faults, r.Err())
	}
}

// The frames of Init wait for each other, and a frame of the server's is answered.
func TestConversationBeforeTheLoad(t *testing.T) {
	s := newChatServer(t, nil)
	o := s.options()
	o.Init, o.InitWait = []string{"J other%n", "J %r"}, true
	o.Reply = []string{"hello=J hall"}
	o.Ready = "joined bench-"
	o.Rate = 100
	if err := run(t, o).Err(); err != nil {
		t.Error(err)
	}
	for room, want := range map[string]int{"other0": 4, "hall": 4} {
		if n := len(s.members[room]); n != want {
			t.Errorf("%s has %d members, want %d", room, n, want)
		}
	}
}

// Latency counts from when a message was due: a server that stands still shows it in all messages that were due
// meanwhile.
func TestAStalledServerIsSeenInEveryMessageDue(t *testing.T) {
	s := newChatServer(t, nil)
	s.publish = func(n int) {
		if n == 20 {
			time.Sleep(time.Second)
		}
	}
	o := s.options()
	o.Rate, o.Duration = 100, 2*time.Second
	r := run(t, o)
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if r.Published != 200 || r.Latency.Count != 600 {
		t.Errorf("%d publishes, %d latencies", r.Published, r.Latency.Count)
	}
	// 100 of 200 were due while it stood, and half of these waited for half of a second at least. By the time at which
	// they were sent after an answer it would be one.
	if r.Latency.P90 < 400 {
		t.Errorf("the 90th percentile is %.1f ms", r.Latency.P90)
	}
}

// A server may be so slow that all comes after the measured time, or nothing at all, and only the second is said.
func TestNothingCameInTime(t *testing.T) {
	for name, came := range map[string]bool{"all came later": true, "nothing came": false} {
		t.Run(name, func(t *testing.T) {
			s := newChatServer(t, nil)
			o := s.options()
			o.Rate = 100
			s.publish = func(n int) {
				if n == 1 {
					time.Sleep(2 * o.Duration)
				}
			}
			if !came {
				o.Drain = lossDrain
				s.mangle = func(int, int, string) []string { return nil }
			}
			r := run(t, o)
			if err := r.Err(); came && err != nil || !came && (err == nil || !strings.Contains(err.Error(), "not one message came")) {
				t.Errorf("of %d deliveries %d were in time, and it says: %v", r.Latency.Count, r.Delivered, err)
			}
		})
	}
}

func TestConnectionsThatBreak(t *testing.T) {
	t.Run("one", func(t *testing.T) {
		s := newChatServer(t, nil)
		s.publish = func(n int) {
			if n == 20 {
				for _, room := range s.members {
					go room[3].ws.Close(4000, "too slow")
				}
			}
		}
		o := s.options()
		o.Rate, o.Drain = 200, lossDrain // what the one that breaks never got is waited for
		r := run(t, o)
		if r.Faults.Broken["closed by the server with 4000 too slow"] != 1 || len(r.Faults.Broken) != 1 || r.Faults.Lost != 0 {
			t.Errorf("found %+v", r.Faults)
		}
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), "1 connection broke (closed by the server with 4000 too slow: 1)") {
			t.Errorf("says %v", err)
		}
		if r.Ended != "finished" {
			t.Errorf("ended: %s", r.Ended)
		}
	})
	t.Run("all: the server goes away", func(t *testing.T) {
		s := newChatServer(t, nil)
		s.publish = func(n int) {
			if n == 20 {
				for _, room := range s.members {
					for _, m := range room {
						go m.ws.CloseNow()
					}
				}
			}
		}
		o := s.options()
		o.Duration = time.Hour
		r := run(t, o)
		if r.Ended != errGone.Error() || len(r.Faults.Broken) == 0 {
			t.Errorf("ended: %s, %+v", r.Ended, r.Faults)
		}
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), "4 connections broke") || !strings.Contains(err.Error(), errGone.Error()) {
			t.Errorf("says %v", err)
		}
	})
}

// echoServer sends back what comes.
func echoServer(t *testing.T, mangle func(n int, b []byte) [][]byte) string {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionNoContextTakeover, CompressionThreshold: 1})
		if err != nil {
			return
		}
		defer ws.CloseNow()
		ws.SetReadLimit(1 << 20)
		for n := 1; ; n++ {
			kind, b, err := ws.Read(r.Context())
			if err != nil {
				return
			}
			for _, b := range mangle(n, b) {
				if ws.Write(r.Context(), kind, b) != nil {
					return
				}
			}
		}
	})
	return serve(t, mux)
}

func once(_ int, b []byte) [][]byte { return [][]byte{b} }

func TestEcho(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"one at a time": func(*Options) {},
		"sixteen":       func(o *Options) { o.Window = 16 },
		"at a rate":     func(o *Options) { o.Rate = 300 },
		"compressed":    func(o *Options) { o.Compression, o.Size = true, 5000 },
		"a template":    func(o *Options) { o.Publish = `{"from":%i,"text":"%p","share":"100 %%"}` },
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Mode: Echo, URL: echoServer(t, once), Conns: 5, Duration: 300 * time.Millisecond, Settle: time.Millisecond}
			change(&o)
			r := run(t, o)
			if r.Err() != nil || r.Published == 0 || r.Latency.Count < r.Published {
				t.Errorf("%v: %+v", r.Err(), r)
			}
			if o.Rate > 0 && r.Published != 90 {
				t.Errorf("%d messages in 0.3 s of 300 a second", r.Published)
			}
			if o.Compression && r.ReceivedBytes > (r.Delivered+int64(o.Conns))*int64(o.Size)*3/4 { // of which each connection may have a part
				t.Errorf("%d bytes for %d messages of %d: nothing was compressed", r.ReceivedBytes, r.Delivered, o.Size)
			}
		})
	}
	t.Run("of a server that loses and doubles", func(t *testing.T) {
		o := Options{Mode: Echo, Conns: 3, Window: 8, Duration: 300 * time.Millisecond, Settle: time.Millisecond, Drain: lossDrain}
		o.URL = echoServer(t, func(n int, b []byte) [][]byte {
			switch n {
			case 5:
				return nil
			case 7:
				return [][]byte{b, b}
			}
			return [][]byte{b}
		})
		if r := run(t, o); r.Faults.Lost != 3 || r.Faults.Doubled != 3 || r.Faults.OutOfOrder != 0 {
			t.Errorf("found %+v", r.Faults)
		}
	})
}

func TestIdleAndConnect(t *testing.T) {
	s := newChatServer(t, nil)
	r := run(t, Options{Mode: Idle, URL: s.URL, Conns: 20, Rooms: 5, Init: []string{"J %r"}, Ready: "joined", Duration: 20 * time.Millisecond, Settle: time.Millisecond})
	if r.Err() != nil || r.Handshakes.Opened != 20 || len(s.members) != 5 {
		t.Errorf("%v: %+v, %d rooms", r.Err(), r.Handshakes, len(s.members))
	}
	if !strings.Contains(r.ServerUnknown, "this very process") {
		t.Errorf("the server is in this process, but: %q", r.ServerUnknown)
	}
	r = run(t, Options{Mode: Connect, URL: s.URL, Concurrency: 4, Duration: 100 * time.Millisecond})
	if r.Err() != nil || r.Handshakes.Opened == 0 || r.Handshakes.Latency.Count != r.Handshakes.Opened {
		t.Errorf("%v: %+v", r.Err(), r.Handshakes)
	}
}

// ctx ends a run at any time, and there is a result.
func TestAnInterruptedRunHasAResult(t *testing.T) {
	s := newChatServer(t, nil)
	for _, mode := range []Mode{Idle, Connect, Fanout} {
		t.Run(string(mode), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			o := s.options()
			o.Mode, o.Duration, o.Conns = mode, time.Hour, 20
			o.ProgressEvery = time.Millisecond
			o.Progress = func(s Status) {
				if s.Done > 3 && (s.Phase == "measuring" || s.Phase == "holding") {
					cancel()
				}
			}
			r, err := Run(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			if r.Ended != "interrupted" || r.Err() != nil || r.Duration <= 0 || r.Duration > patience.Seconds() {
				t.Errorf("ended: %s after %g s, %v", r.Ended, r.Duration, r.Err())
			}
			if mode == Fanout && (r.Delivered == 0 || r.Latency.Count == 0) || mode == Connect && r.Handshakes.Opened == 0 {
				t.Errorf("an empty result: %+v", r)
			}
		})
	}
}

func TestJSONHasWhatTheTableHas(t *testing.T) {
	s := newChatServer(t, nil)
	r := run(t, s.options())
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"mode", "url", "ended", "published", "delivered", "deliveries_per_s", "latency_ms", "faults", "generator", "handshakes", "server_unknown"} {
		if _, ok := m[key]; !ok {
			t.Errorf("no %s in %s", key, b)
		}
	}
	var table strings.Builder
	if err := r.Print(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{s.URL, "1 room of 4 members, 2 publishers", group(r.Delivered), "p99", "0 lost, 0 doubled, 0 out of order", "server", "generator"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
}

func TestNumbersForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", -999: "-999", 1234567: "1,234,567"} {
		if got := group(n); got != want {
			t.Errorf("%d is written %s", n, got)
		}
	}
	s := Status{Phase: "measuring", Done: 12345, Rate: 100, P50: 1234567, P99: 98765432, Errors: 2, Left: 7 * time.Second}
	if got, want := fmt.Sprint(s), "measuring: 12,345, 100/s, p50 1.23ms p99 98.77ms, errors 2, 7s left"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
