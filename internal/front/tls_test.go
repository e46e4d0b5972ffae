package front

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// serverTLS is a TLS configuration with a certificate of its own.
func serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

var anyServer = &tls.Config{InsecureSkipVerify: true}

// The handshake and the head behind it have one time together.
func TestTLSAndTheFirstHeadHaveOneTime(t *testing.T) {
	cfg := serverTLS(t)
	for name, wait := range map[string]time.Duration{"at once": 0, "late": 6 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, a, client := quickly(t, lines)
				a.secure = tls.Server(a.Conn, cfg)
				a.Conn = a.secure
				began := time.Now()
				got := a.reads()
				time.Sleep(wait)
				if err := tls.Client(client, anyServer).Handshake(); err != nil {
					t.Fatal(err)
				}
				if first := <-got; first.err == nil {
					t.Errorf("net/http gets %q", first.text)
				}
				if took := time.Since(began); took != 10*time.Second {
					t.Errorf("it had %v, not 10s", took)
				}
			})
		})
	}
}

// Whose handshake fails is net/http's, in the place that it had, and is none of the gate's when net/http has closed it.
func TestAFailedHandshakeIsNetHTTPs(t *testing.T) {
	g, a, client := quickly(t, lines)
	secure := tls.Server(a.Conn, serverTLS(t))
	a.Conn, a.secure = secure, secure
	go g.readHead(a)
	if _, err := io.WriteString(client, "GET / HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	got := <-g.handed
	if got.nc != secure || got.err != nil {
		t.Fatalf("net/http gets %v, %v", got.nc, got.err)
	}
	if _, plain := secure.Handshake().(tls.RecordHeaderError); !plain {
		t.Errorf("the handshake says %v", secure.Handshake())
	}
	g.mu.Lock()
	if since, has := g.arrived[secure]; !has || since.IsZero() || len(g.arrived) != 1 {
		t.Errorf("it has no place: %v", g.arrived)
	}
	g.mu.Unlock()
	g.Changed(secure, http.StateClosed)
	if left := g.Unsettled(); left != nil {
		t.Error(left)
	}
}

// A request says which TLS it came by, also where net/http hasn't seen the handshake.
func TestRequestsSayTheirTLS(t *testing.T) {
	g, a, client := quickly(t, lines)
	a.secure = tls.Server(a.Conn, serverTLS(t))
	a.Conn = a.secure
	var of *tls.ConnectionState
	a.quick.Upgrade = func(r *http.Request) http.HandlerFunc { of = r.TLS; return nil }
	got := a.reads()
	ours := tls.Client(client, anyServer)
	if _, err := io.WriteString(ours, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if first := <-got; first.err != nil {
		t.Fatal(first.err)
	}
	if of == nil || of.CipherSuite != ours.ConnectionState().CipherSuite {
		t.Errorf("an upgrade says %v", of)
	}
	of = nil
	h := g.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { of = r.TLS }))
	r := httptest.NewRequest("GET", "/", nil)
	h.ServeHTTP(nil, r.WithContext(g.Context(r.Context(), a)))
	if of == nil || !of.HandshakeComplete {
		t.Errorf("a request of net/http's says %v", of)
	}
}

// full is a connection whose socket takes nothing any more, from when it is said.
type full struct {
	net.Conn
	said  atomic.Bool
	tries atomic.Int32
}

func (f *full) Write(b []byte) (int, error) {
	if f.said.Load() {
		f.tries.Add(1)
		return 0, os.ErrDeadlineExceeded
	}
	return f.Conn.Write(b)
}

// Who goes for others, or because the gate closes, is told nothing by TLS: the gate would wait, with its lock, for a client
// that doesn't read.
func TestTheGateWaitsForNoGoodbyeOfTLS(t *testing.T) {
	for name, ends := range map[string]func(g *Gate, nc net.Conn){
		"another stays": func(g *Gate, nc net.Conn) {
			next, _ := crowd{}.Accept()
			defer next.Close()
			g.maxBeside = 1
			g.pass(nc)
			g.pass(next)
		},
		"the gate closes": func(g *Gate, nc net.Conn) { g.Close() },
	} {
		for _, handed := range []bool{false, true} {
			if handed && name == "the gate closes" {
				continue // net/http closes it
			}
			t.Run(name, func(t *testing.T) {
				g, a, client := quickly(t, lines)
				near := &full{Conn: a.Conn}
				a.secure = tls.Server(near, serverTLS(t))
				a.Conn = a.secure
				go tls.Client(client, anyServer).Handshake()
				if err := a.secure.Handshake(); err != nil {
					t.Fatal(err)
				}
				near.said.Store(true)
				if handed {
					ends(g, g.bare(a))
				} else {
					ends(g, a)
				}
				if n := near.tries.Load(); n > 0 {
					t.Errorf("it wrote %d times", n)
				}
				if _, err := near.Read(make([]byte, 1)); err != io.ErrClosedPipe {
					t.Errorf("the connection isn't closed: %v", err)
				}
			})
		}
	}
}
