package hubbub_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// writeCertificate makes a self-signed pair of PEM files for 127.0.0.1 with that name.
func writeCertificate(t testing.TB, dir, name string) (cert, key string) {
	t.Helper()
	return writeCertificateFor(t, dir, name, time.Now().Add(-time.Hour), time.Now().Add(90*24*time.Hour))
}

// writeCertificateFor makes one that is valid from and until these times.
func writeCertificateFor(t testing.TB, dir, name string, from, until time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: from, NotAfter: until, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// startTLS is rawtest.Start with TLS, on the loop or on pumps.
func startTLS(t testing.TB, cfg hubbub.Config) (s *rawtest.Server, cert, key string) {
	t.Helper()
	cert, key = writeCertificate(t, t.TempDir(), "first")
	s = rawtest.StartOn(t, cfg, func(log *slog.Logger) (net.Listener, error) {
		secure, err := hubbub.CertificateFiles(cert, key, log)
		if err != nil {
			return nil, err
		}
		return hubbub.Listen("127.0.0.1:0", secure)
	})
	return s, cert, key
}

// tlsClient is a WebSocket over TLS; below lets a test meddle with the ciphertext.
type tlsClient struct {
	*tls.Conn
	t testing.TB
	r *bufio.Reader
}

func dialTLS(t testing.TB, s *rawtest.Server, path string, below func(net.Conn) net.Conn, cfg *tls.Config) *tlsClient {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(4 * rawtest.Patience))
	if below != nil {
		nc = below(nc)
	}
	if cfg == nil {
		cfg = &tls.Config{InsecureSkipVerify: true}
	}
	c := &tlsClient{Conn: tls.Client(nc, cfg), t: t}
	c.r = bufio.NewReader(c.Conn)
	c.write([]byte(rawtest.Upgrade(s, path)))
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %s", r.Status)
	}
	return c
}

func (c *tlsClient) write(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *tlsClient) expect(op wsclient.Opcode, payload string) {
	c.t.Helper()
	got, p, err := rawtest.ReadFrame(c.r)
	if err != nil || got != op || string(p) != payload {
		c.t.Fatalf("got %v %s, %v; want %v %s", got, rawtest.Brief(p), err, op, rawtest.Brief([]byte(payload)))
	}
}

// chopped sends every byte in a write of its own.
type chopped struct{ net.Conn }

func (c chopped) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func TestTLSRecordsSplitAtEveryByte(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, kind string) {
		s, _, _ := startTLS(t, hubbub.Config{IO: kind})
		c := dialTLS(t, s, "/echo", func(nc net.Conn) net.Conn { return chopped{nc} }, nil)
		for _, text := range []string{"", "a", strings.Repeat("b", 300), strings.Repeat("c", 3000)} {
			c.write(rawtest.Frame(wsclient.Text, true, []byte(text)))
			c.expect(wsclient.Text, text)
		}
	})
}

func TestTLSEchoesEverySize(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, kind string) {
		for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
			t.Run(name, func(t *testing.T) {
				s, _, _ := startTLS(t, hubbub.Config{IO: kind})
				c := dialTLS(t, s, "/echo", nil, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
				for _, n := range []int{0, 1, 125, 126, 16383, 16384, 16385, 40000, 65536} {
					text := strings.Repeat("x", n)
					c.write(rawtest.Frame(wsclient.Text, true, []byte(text)))
					c.expect(wsclient.Text, text)
				}
				c.write(rawtest.Frame(wsclient.Close, true, wsclient.ClosePayload(1000, "")))
				c.expect(wsclient.Close, string(wsclient.ClosePayload(1000, "")))
				if _, err := c.Read(make([]byte, 1)); err != io.EOF { // not io.ErrUnexpectedEOF: close_notify came
					t.Errorf("behind the Close: %v, want close_notify", err)
				}
			})
		}
	})
}

// The client reads nothing for a while, so the server's writes must stop in the middle of records and go on, whatever
// the same worker sends to another one meanwhile.
func TestTLSWritesThatWouldBlock(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, kind string) {
		s, _, _ := startTLS(t, hubbub.Config{IO: kind, Workers: 1})
		c, other := dialTLS(t, s, "/echo", nil, nil), dialTLS(t, s, "/echo", nil, nil)
		text := strings.Repeat("0123456789abcdef", 4000)
		const n = 300 // 19 MB
		sent := make(chan error, 1)
		var count atomic.Int64
		go func() {
			var err error
			for i := 0; i < n && err == nil; i++ {
				_, err = c.Write(rawtest.Frame(wsclient.Text, true, []byte(text)))
				count.Add(1)
			}
			sent <- err
		}()
		for last := int64(-1); last != count.Load(); time.Sleep(200 * time.Millisecond) { // until the sockets are full
			last = count.Load()
		}
		for _, size := range []int{1, 100, 10_000, 60_000} {
			said := strings.Repeat("x", size)
			other.write(rawtest.Frame(wsclient.Text, true, []byte(said)))
			other.expect(wsclient.Text, said)
		}
		for range n {
			c.expect(wsclient.Text, text)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}

// heard keeps all that was read.
type heard struct {
	net.Conn
	all []byte
}

func (h *heard) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	h.all = append(h.all, b[:n]...)
	return n, err
}

// lastRecord is the type of the last TLS record.
func (h *heard) lastRecord() (kind byte) {
	for rest := h.all; len(rest) >= 5; {
		kind = rest[0]
		rest = rest[min(len(rest), 5+int(rest[3])<<8+int(rest[4])):]
	}
	return kind
}

func TestTLSEndsByCloseNotifyAndByAHardEnd(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, kind string) {
		s, _, _ := startTLS(t, hubbub.Config{IO: kind})
		var wire *heard
		polite := dialTLS(t, s, "/ws", func(nc net.Conn) net.Conn {
			wire = &heard{Conn: nc}
			return wire
		}, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}) // which hides no alert
		rude := dialTLS(t, s, "/ws", nil, nil)
		polite.write(rawtest.Frame(wsclient.Text, true, []byte(`{"msg_type":"ping"}`)))
		polite.CloseWrite() // close_notify alone: TCP stays open
		rude.NetConn().Close()
		rawtest.Eventually(t, "both are gone", func() bool { return s.Connections() == 0 })
		rawtest.ReadFrame(polite.r) // welcome
		if _, p, err := rawtest.ReadFrame(polite.r); err != nil || !strings.Contains(string(p), "pong") {
			t.Errorf("what came before close_notify is answered by %s, %v", p, err)
		}
		if rest, err := io.ReadAll(polite.r); len(rest) > 0 || err != nil {
			t.Errorf("then come %q, %v", rest, err)
		}
		const alert = 21 // RFC 5246 A.1
		if last := wire.lastRecord(); last != alert {
			t.Errorf("the server's last record is of the type %d: no close_notify", last)
		}
	})
}

// corked holds back what is written until it is opened: then all of it goes in one packet.
type corked struct {
	net.Conn
	held   []byte
	closed bool
}

func (c *corked) Write(b []byte) (int, error) {
	if !c.closed {
		return c.Conn.Write(b)
	}
	c.held = append(c.held, b...)
	return len(b), nil
}

// The end of TLS may come in the packet of the last message, and nothing behind it.
func TestTLSEndsBesideTheLastMessage(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, kind string) {
		s, _, _ := startTLS(t, hubbub.Config{IO: kind})
		var cork *corked
		c := dialTLS(t, s, "/echo", func(nc net.Conn) net.Conn {
			cork = &corked{Conn: nc}
			return cork
		}, nil)
		cork.closed = true
		c.write(rawtest.Frame(wsclient.Text, true, []byte("last")))
		c.CloseWrite()
		cork.SetDeadline(time.Now().Add(rawtest.Patience)) // CloseWrite has ended the time for writes
		if _, err := cork.Conn.Write(cork.held); err != nil {
			t.Fatal(err)
		}
		c.expect(wsclient.Text, "last")
		rawtest.Eventually(t, "it is gone", func() bool { return s.Connections() == 0 })
	})
}

// A client that comes back is spared the certificate and its signature, on any connection of the listener, also when the
// certificate has changed meanwhile.
func TestTLSSessionsAreResumed(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, kind string) {
		s, cert, _ := startTLS(t, hubbub.Config{IO: kind})
		for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
			cfg := &tls.Config{InsecureSkipVerify: true, ServerName: "x", ClientSessionCache: tls.NewLRUClientSessionCache(1), MaxVersion: version}
			for i := range 4 {
				if i == 3 {
					writeCertificate(t, filepath.Dir(cert), "second")
					rawtest.Eventually(t, "the new certificate is in use", func() bool {
						c := dialTLS(t, s, "/echo", nil, nil)
						defer c.Close()
						return c.ConnectionState().PeerCertificates[0].Subject.CommonName == "second"
					})
					writeCertificate(t, filepath.Dir(cert), "first")
				}
				c := dialTLS(t, s, "/echo", nil, cfg)
				c.write(rawtest.Frame(wsclient.Text, true, []byte("hello")))
				c.expect(wsclient.Text, "hello")
				if got := c.ConnectionState().DidResume; got != (i > 0) {
					t.Errorf("TLS %s: connection %d of the client is resumed: %v", name, i+1, got)
				}
				c.Close()
			}
		}
	})
}

func TestTLSRefusesWhatIsOldOrPlain(t *testing.T) {
	s, _, _ := startTLS(t, hubbub.Config{})
	if c, err := tls.Dial("tcp", s.Addr, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		c.Close()
		t.Error("TLS 1.1 was accepted")
	}
	c := rawtest.Connect(t, s)
	c.SendRaw([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	if r := c.Response("GET"); r.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP gets %s", r.Status)
	}
	silent := rawtest.Connect(t, s)
	silent.SendRaw([]byte{0x16, 0x03, 0x01})
	dialTLS(t, s, "/ws", nil, nil) // one that stalls in its handshake delays nobody
}

// Whose TLS chose HTTP/2, as that of a listener of somebody else's may, is served by net/http, which speaks it.
func TestHTTP2OfAnotherListener(t *testing.T) {
	t.Parallel()
	cert, key := writeCertificate(t, t.TempDir(), "second")
	s := rawtest.StartOn(t, hubbub.Config{}, func(*slog.Logger) (net.Listener, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		return tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}})
	})
	client := http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	r, err := client.Get("https://" + s.Addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.ProtoMajor != 2 || r.StatusCode != http.StatusOK {
		t.Errorf("got %s %s", r.Proto, r.Status)
	}
	c := dialTLS(t, s, "/echo", nil, nil)
	c.write(rawtest.Frame(wsclient.Text, true, []byte("by HTTP/1.1")))
	c.expect(wsclient.Text, "by HTTP/1.1")
}

func TestTheCertificateIsReadAgainWhenItChanges(t *testing.T) {
	t.Parallel()
	s, cert, key := startTLS(t, hubbub.Config{})
	old := dialTLS(t, s, "/echo", nil, nil)
	name := func() string {
		c := dialTLS(t, s, "/echo", nil, nil)
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := name(); got != "first" {
		t.Fatalf("the certificate is of %q", got)
	}
	if err := os.WriteFile(cert, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	rawtest.Eventually(t, "a bad file is complained of", func() bool { name(); return strings.Contains(s.Log.String(), "the one before stays") })
	if got := name(); got != "first" {
		t.Errorf("after a bad file the certificate is of %q", got)
	}
	writeCertificate(t, filepath.Dir(key), "second")
	rawtest.Eventually(t, "the new certificate is in use", func() bool { return name() == "second" })
	if log := s.Log.String(); strings.Count(log, "the one before stays") != 1 || strings.Count(log, "certificate read again") != 1 {
		t.Errorf("of one bad file and a good one the log says:\n%s", log)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	rawtest.Eventually(t, "a file that is gone is complained of", func() bool { name(); return strings.Contains(s.Log.String(), "no such file") })
	if got := name(); got != "second" {
		t.Errorf("without a key the certificate is of %q", got)
	}
	writeCertificate(t, filepath.Dir(key), "third")
	rawtest.Eventually(t, "the third certificate is in use", func() bool { return name() == "third" })
	old.write(rawtest.Frame(wsclient.Text, true, []byte("still here")))
	old.expect(wsclient.Text, "still here")
}

// A certificate that clients refuse, or will soon, is told when it is read: at the start and when it has changed.
func TestTheTimeOfACertificateIsLookedAt(t *testing.T) {
	t.Parallel()
	const hour, day = time.Hour, 24 * time.Hour
	for _, tt := range []struct {
		from, until time.Duration
		says        string
	}{
		{-day, 90 * day, ""},
		{-day, 15 * day, ""},
		{-day, 13 * day, "expires soon"},
		{-day, hour, "expires soon"},
		{-9 * day, -hour, "is expired"},
		{hour, 90 * day, "not valid yet"},
	} {
		at := func(d time.Duration) time.Time { return time.Now().Add(d) }
		dir, log := t.TempDir(), &rawtest.Log{}
		cert, key := writeCertificateFor(t, dir, "first", at(tt.from), at(tt.until))
		if _, err := hubbub.CertificateFiles(cert, key, slog.New(slog.NewTextHandler(log, nil))); err != nil {
			t.Fatal(err)
		}
		if got := log.String(); strings.Contains(got, "level=WARN") != (tt.says != "") || !strings.Contains(got, tt.says) {
			t.Errorf("from %s to %s: %q, want %q", tt.from, tt.until, got, tt.says)
		}
		if tt.says == "" {
			continue
		}
		s, cert, _ := startTLS(t, hubbub.Config{})
		writeCertificateFor(t, filepath.Dir(cert), "second", at(tt.from), at(tt.until))
		rawtest.Eventually(t, "the new one is complained of: "+tt.says, func() bool {
			dialTLS(t, s, "/echo", nil, nil).Close()
			return strings.Contains(s.Log.String(), tt.says)
		})
		for range 3 {
			dialTLS(t, s, "/echo", nil, nil).Close()
		}
		if n := strings.Count(s.Log.String(), tt.says); n != 1 {
			t.Errorf("%s: said %d times", tt.says, n)
		}
	}
}

func TestFiveThousandIdleTLSConnections(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("only the event loop promises this")
		return
	}
	s, _, _ := startTLS(t, hubbub.Config{IO: "epoll", MaxConnections: 6000})
	n := 5000
	if testing.Short() {
		n = 500
	}
	before := runtime.NumGoroutine()
	cfg := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(8), ServerName: "x"} // resumed: the handshake isn't under test
	for range n {
		c := dialTLS(t, s, "/echo", nil, cfg)
		c.write(rawtest.Frame(wsclient.Text, true, []byte("small traffic")))
		c.expect(wsclient.Text, "small traffic")
	}
	const readers = 64 // of the gate's, which wait for the next handshake
	rawtest.Eventually(t, "the handshakes' goroutines end", func() bool { return runtime.NumGoroutine() <= before+readers+2 })
	if got := s.Connections(); got != n {
		t.Errorf("%d connections, want %d", got, n)
	}
}
