package front

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// lines answers each line that begins with a q.
func lines(b, dst []byte) (answer []byte, used int) {
	end := bytes.IndexByte(b, '\n')
	if b[0] != 'q' || end < 0 {
		return nil, 0
	}
	return append(append(dst, "to "...), b[:end+1]...), end + 1
}

// quickly is a connection of a gate, and its client's end.
func quickly(t *testing.T, answer Answer) (g *Gate, a *arrival, client net.Conn) {
	g = NewGate(crowd{}, 0, 1, func() string { return "" }, slog.New(slog.DiscardHandler))
	near, client := net.Pipe()
	a = &arrival{Conn: near, gate: g, quick: answers{Quick: &Quick{Answer: answer, Head: 10 * time.Second, Idle: 30 * time.Second}}}
	g.arrived[a] = time.Now()
	t.Cleanup(func() {
		g.reserve.Close()
		near.Close()
		client.Close()
	})
	return g, a, client
}

// reads is what net/http would get.
func (a *arrival) reads() <-chan struct {
	text string
	err  error
} {
	got := make(chan struct {
		text string
		err  error
	}, 1)
	go func() {
		b := make([]byte, 4<<10)
		n, err := a.begin(b)
		got <- struct {
			text string
			err  error
		}{string(b[:n]), err}
	}()
	return got
}

// hears expects these bytes.
func hears(t *testing.T, client net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(client, got); err != nil || string(got) != want {
		t.Errorf("the client got %q, %v, want %q", got, err, want)
	}
}

func TestWhatIsQuickNetHTTPNeverSees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, a, client := quickly(t, lines)
		got := a.reads()
		go io.WriteString(client, "q1\nq2\n")
		hears(t, client, "to q1\nto q2\n")
		synctest.Wait()
		g.mu.Lock()
		if _, beside := g.beside[a]; !beside || len(g.arrived) > 0 {
			t.Error("it still has a place in the gate")
		}
		g.mu.Unlock()
		go io.WriteString(client, "q3\nGET /\nq4\n")
		hears(t, client, "to q3\n")
		if first := <-got; first.text != "GET /\nq4\n" || first.err != nil {
			t.Errorf("net/http got %q, %v", first.text, first.err)
		}
		go io.WriteString(client, "q5\n") // the connection is net/http's now
		b := make([]byte, 10)
		if n, _ := a.Read(b); string(b[:n]) != "q5\n" {
			t.Errorf("net/http got %q behind that", b[:n])
		}
	})
}

func TestAQuickConnectionHasItsTime(t *testing.T) {
	for name, tt := range map[string]struct {
		says, left string
		after      time.Duration
	}{
		"between requests": {"", "", 30 * time.Second},
		"in a request":     {"q", "q", 0}, // which is net/http's then
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, a, client := quickly(t, lines)
				got := a.reads()
				for range 3 {
					io.WriteString(client, "q\n")
					hears(t, client, "to q\n")
					time.Sleep(20 * time.Second)
				}
				io.WriteString(client, "q\n"+tt.says)
				began := time.Now()
				hears(t, client, "to q\n")
				end := <-got
				if took := time.Since(began); end.text != tt.left || took != tt.after || (tt.after > 0) != errors.Is(end.err, os.ErrDeadlineExceeded) {
					t.Errorf("after %v net/http got %q, %v; want %q after %v", took, end.text, end.err, tt.left, tt.after)
				}
				if tt.after > 0 {
					return
				}
				a.SetReadDeadline(time.Now().Add(10 * time.Second)) // as net/http does
				if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 10*time.Second {
					t.Errorf("the rest of net/http's request had %v", time.Since(began))
				}
			})
		})
	}
}

// Whether net/http has it or not, a connection's first request has its time but once.
func TestAFirstRequestHasItsTimeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, client := quickly(t, lines)
		got := a.reads()
		began := time.Now()
		time.Sleep(8 * time.Second)
		io.WriteString(client, "GET /")
		if first := <-got; first.text != "GET /" {
			t.Errorf("net/http got %q, %v", first.text, first.err)
		}
		for _, want := range []time.Duration{10 * time.Second, 20 * time.Second} { // the next is another's, whose time is net/http's
			a.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != want {
				t.Errorf("it ended after %v with %v, want %v", time.Since(began), err, want)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := quickly(t, lines)
		began := time.Now()
		if end := <-a.reads(); !errors.Is(end.err, os.ErrDeadlineExceeded) || time.Since(began) != 10*time.Second {
			t.Errorf("who says nothing: %v after %v", end.err, time.Since(began))
		}
	})
}

func TestAGateThatClosesLetsQuickFinish(t *testing.T) {
	for _, before := range []string{"", "q\n"} { // answered on the connection before
		t.Run("behind "+before, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				going := make(chan bool)
				g, a, client := quickly(t, func(b, dst []byte) ([]byte, int) {
					if b[1] == '!' {
						<-going
					}
					return lines(b, dst)
				})
				_, idle, other := quickly(t, lines)
				idle.gate, g.arrived[idle] = g, time.Now()
				got, rest := a.reads(), idle.reads()
				for _, c := range []net.Conn{client, other} {
					io.WriteString(c, before)
					if before != "" {
						hears(t, c, "to "+before)
					}
				}
				io.WriteString(client, "q!\n")
				synctest.Wait()
				g.Close()
				synctest.Wait()
				if end := <-rest; end.err == nil {
					t.Errorf("an idle connection: %q", end.text)
				}
				close(going)
				hears(t, client, "to q!\n")
				if end := <-got; end.text != "" || end.err == nil {
					t.Errorf("behind the answer net/http got %q, %v", end.text, end.err)
				}
				if _, err := client.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("behind the answer: %v", err)
				}
				other.Close()
			})
		})
	}
}

// A gate that closes while the first answer of a connection is made: it is closed behind that, though the gate has not
// found it, and leaves nothing there.
func TestAGateThatClosesMeetsAFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g *Gate
		g, a, client := quickly(t, func(b, dst []byte) ([]byte, int) {
			g.Close()
			return lines(b, dst)
		})
		got := a.reads()
		began := time.Now()
		io.WriteString(client, "q\n")
		hears(t, client, "to q\n")
		client.SetReadDeadline(began.Add(time.Minute))
		if _, err := client.Read(make([]byte, 1)); err != io.EOF || time.Since(began) != 0 {
			t.Errorf("behind the answer: %v after %v", err, time.Since(began))
		}
		if end := <-got; end.text != "" || end.err == nil {
			t.Errorf("net/http got %q, %v", end.text, end.err)
		}
	})
}

func TestWhoDoesntTakeItsAnswerIsLetGo(t *testing.T) {
	for name, closes := range map[string]time.Duration{"by its time": readWithin, "by a close": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, a, client := quickly(t, lines)
				got := a.reads()
				began := time.Now()
				io.WriteString(client, "q\n") // and it doesn't read
				synctest.Wait()
				if closes != readWithin {
					a.Close()
				}
				if end := <-got; end.err == nil || time.Since(began) != closes {
					t.Errorf("after %v: %v, want %v", time.Since(began), end.err, closes)
				}
			})
		})
	}
}
