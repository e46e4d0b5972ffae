package loop

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.com/hubbub/internal/wire"
)

// connectTLS gives the client's end of a TLS connection that the loop has adopted.
func connectTLS(t *testing.T, l *Loop, h Handler) *tls.Conn {
	t.Helper()
	key, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err2 := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	near, far := sockets(t)
	client := tls.Client(far, &tls.Config{InsecureSkipVerify: true})
	server := ServerTLS(near, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	shaken := make(chan error, 1)
	go func() { shaken <- client.HandshakeContext(context.Background()) }()
	if err := errors.Join(server.HandshakeContext(context.Background()), <-shaken); err != nil {
		t.Fatal(err)
	}
	l.Reserve(1 << 20)
	if err := l.Adopt(server, h, wire.Deflate{}, nil, nil); err != nil {
		t.Fatal(err)
	}
	return client
}

// What crypto/tls read its handshake into, or a large message, isn't kept: 5,000 clients that have each sent one of 60 KB
// would hold 136 MB for as long as they stay.
func TestTLSKeepsNoLargeBuffers(t *testing.T) {
	if len(inputBuffers) != 2 {
		t.Fatalf("crypto/tls reads into other buffers than this knows of (%d of 2 are there): see whether it gives them back by itself now", len(inputBuffers))
	}
	eachIO(t, func(t *testing.T, cfg Config) {
		if cfg.IO != Epoll {
			return
		}
		l := start(t, cfg)
		client := connectTLS(t, l, echo())
		kept := func() (sizes []int) {
			l.Inspect(hang, func(w *Worker) {
				link := w.slots[0].c.via.(*tlsLink)
				for _, at := range inputBuffers {
					sizes = append(sizes, (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(link.secure), at)).Cap())
				}
			})
			return sizes
		}
		for _, n := range []int{0, 100, 16 << 10, 60_000, 100} {
			if _, err := client.Write(frameTo(string(make([]byte, n)))); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(client, make([]byte, len(frameTo(string(make([]byte, n))))-4)); err != nil { // an answer has no mask
				t.Fatal(err)
			}
			if got := kept(); got[0] > keptInput || got[1] > 0 {
				t.Errorf("after a message of %d bytes and its answer the buffers have %d", n, got)
			}
		}
	})
}

// The peer's end may be told together with a part of a record, of which nothing can be heard: no event tells of it again.
func TestTLSEndsBehindHalfARecord(t *testing.T) {
	eachIO(t, func(t *testing.T, cfg Config) {
		for _, reset := range []bool{false, true} {
			l := start(t, cfg)
			raw := connectTLS(t, l, echo()).NetConn().(*net.TCPConn)
			do(l.workers[0], func() { // it looks when both are there
				raw.Write([]byte{23, 3, 3, 1, 0, 1, 2, 3})
				if reset {
					raw.SetLinger(0)
				}
				raw.Close()
			})
			until(t, "it has ended", func() bool { return l.Connections() == 0 })
		}
	})
}

// A read that doesn't fill the buffer has emptied the socket, so crypto/tls, which always asks once more, is told so
// without a system call. The next recv asks anew, or no test over TLS would get far.
func TestTLSReadsAnEmptySocketOnce(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	link, b := &tlsLink{moved: true, fd: int32(pair[0])}, make([]byte, 8)
	for _, tt := range []struct {
		sent string
		want int // bytes, 0 where the socket isn't asked
	}{
		{"8 bytes.", 8}, // there may be more
		{"less", 4},
		{"more", 0},
		{"and more", 0},
	} {
		unix.Write(pair[1], []byte(tt.sent))
		n, err := link.Read(b)
		if n != tt.want || (err == error(wouldBlock{})) != (tt.want == 0) {
			t.Errorf("after %q came %d bytes, %v; want %d", tt.sent, n, err, tt.want)
		}
	}
}
