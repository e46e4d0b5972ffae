package front

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// Of whatever is plain net/http says the same: what the request is, and where it ends.
func FuzzPlainUpgrade(f *testing.F) {
	for _, head := range []string{
		"GET /ws HTTP/1.1\r\nHost: a.example:80\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x80",
		"GET /?resume=a&errors=close HTTP/1.1\r\nhost: [::1]\r\nupgrade: websocket\r\nCookie: a=b\r\nCookie: c=d\r\nX-1: , \r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
		"GET /ws HTTP/1.1\r\nHost: a\r\nHost: b\r\nUpgrade: websocket\r\n\r\n",
		"GET //ws?# HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
		"GET /ws HTTP/1.1\nHost: a\nUpgrade: websocket\n\n",
	} {
		f.Add([]byte(head))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, size := plainUpgrade(bytes.Clone(b))
		if got == nil {
			if size != 0 {
				t.Fatalf("%d bytes of nothing", size)
			}
			return
		}
		r := bytes.NewReader(b)
		buffered := bufio.NewReader(r)
		want, err := http.ReadRequest(buffered)
		if err != nil {
			t.Fatalf("net/http doesn't take %q: %v", b, err)
		}
		if behind := r.Len() + buffered.Buffered(); len(b)-size != behind {
			t.Fatalf("%q: %d bytes are behind it, and %d by net/http", b, len(b)-size, behind)
		}
		if want.ContentLength != 0 || want.TransferEncoding != nil || want.Trailer != nil || want.Close && got.Header.Get("Connection") == "" {
			t.Fatalf("%q isn't plain: %+v", b, want)
		}
		if got.Method != want.Method || got.Host != want.Host || got.RequestURI != want.RequestURI || *got.URL != *want.URL ||
			got.ProtoMajor != want.ProtoMajor || got.ProtoMinor != want.ProtoMinor || !reflect.DeepEqual(got.Header, want.Header) {
			t.Fatalf("%q:\n got %+v\nwant %+v", b, got, want)
		}
	})
}

const anUpgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"

// upgrading is quickly with somebody who serves upgrades.
func upgrading(t *testing.T, serve http.HandlerFunc) (g *Gate, a *arrival, client net.Conn) {
	g, a, client = quickly(t, lines)
	a.quick.Upgrade = func(*http.Request) http.HandlerFunc { return serve }
	return g, a, client
}

// A connection that an upgrade has taken is net/http's no more, which closes what it believes to have; nor the gate's.
func TestWhatAnUpgradeTakesStaysOpen(t *testing.T) {
	for name, closes := range map[string]bool{"": false, "while the gate closes": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var a *arrival
				var nc net.Conn
				var first []byte
				g, a, client := upgrading(t, func(w http.ResponseWriter, r *http.Request) {
					if closes {
						a.Close()
					}
					if !TakeTurn(r, false) {
						t.Error("no turn")
					}
					nc, first = w.(*Upgrading).Take()
					EndTurn(r)
				})
				got := a.reads()
				io.WriteString(client, anUpgrade+"behind")
				if end := <-got; end.text != "" || end.err != io.EOF {
					t.Errorf("net/http got %q, %v", end.text, end.err)
				}
				if err := a.Close(); err != nil { // the gate's goroutine's
					t.Error(err)
				}
				if string(first) != "behind" {
					t.Errorf("behind it was %q", first)
				}
				if left := g.Unsettled(); left != nil {
					t.Error(left)
				}
				go io.WriteString(nc, "still here")
				hears(t, client, "still here")
			})
		})
	}
}

// Who is refused is heard until it closes, or for maxLinger.
func TestARefusedUpgradeLingers(t *testing.T) {
	for name, hangsUp := range map[string]bool{"": false, "until it is closed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, a, client := upgrading(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Connection", "close")
					w.WriteHeader(http.StatusForbidden)
					io.WriteString(w, "no\n")
				})
				got, began := a.reads(), time.Now()
				io.WriteString(client, anUpgrade)
				hears(t, client, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nDate: "+began.UTC().Format(http.TimeFormat)+"\r\nContent-Length: 3\r\n\r\nno\n")
				io.WriteString(client, "frames")
				synctest.Wait()
				g.mu.Lock()
				if len(g.arrived) > 0 {
					t.Error("it keeps a place in the gate that others wait for")
				}
				g.mu.Unlock()
				want := maxLinger
				if hangsUp {
					client.Close()
					want = 0
				}
				if end := <-got; end.err != io.EOF || time.Since(began) != want {
					t.Errorf("net/http got %q, %v after %v", end.text, end.err, time.Since(began))
				}
			})
		})
	}
}

// A panic of who serves an upgrade leaves nothing open, nor a place taken.
func TestAPanicInAnUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, a, client := upgrading(t, func(http.ResponseWriter, *http.Request) { panic("!") })
		go io.WriteString(client, anUpgrade)
		g.readHead(a)
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		if left := g.Unsettled(); left != nil {
			t.Error(left)
		}
	})
}
