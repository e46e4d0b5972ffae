package loop

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"time"
)

// ServerTLS is tls.Server for a connection that the loop shall take over after the handshake. Until then it is an
// ordinary, blocking net.Conn.
func ServerTLS(nc net.Conn, cfg *tls.Config) *tls.Conn {
	return tls.Server(&tlsLink{nc: nc}, cfg)
}

// underTLS finds the link of a connection that ServerTLS made.
func underTLS(nc net.Conn) (*tls.Conn, *tlsLink) {
	if secure, ok := nc.(*tls.Conn); ok {
		if link, ok := secure.NetConn().(*tlsLink); ok {
			return secure, link
		}
	}
	return nil, nil
}

// tlsLink stands on both sides of a tls.Conn. Below it, it is the net.Conn that crypto/tls reads and writes: blocking
// during the handshake, then the worker's descriptor, whose Read says errWouldBlock when there is nothing. crypto/tls
// takes that error, because it is Temporary, for no reason to give up, keeps a half-read record and goes on at the next
// call. Above it, it is the worker's transport.
//
// A write must never fail halfway: crypto/tls gives up for good then. So Write only collects, one record at a time, and
// what the socket doesn't take stays as ciphertext; frames wait as plaintext, where a policy can still drop them.
type tlsLink struct {
	nc     net.Conn // until goOn
	secure *tls.Conn
	fd     int32
	moved  bool   // the worker owns fd
	out    []byte // ciphertext that the socket hasn't taken; nil while there is none
	lent   bool   // out is *spare
	cipher *[]byte
}

const (
	maxRecord = 16 << 10 // plaintext, RFC 8446 5.1
	// maxCipher bounds the ciphertext that waits: a record and what the peer makes crypto/tls answer by itself.
	maxCipher = 2*maxRecord + 1024
)

// wouldBlock is the net.Error that crypto/tls survives.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// cipherBuffer is what links of one worker share for ciphertext that the socket takes at once.
func cipherBuffer() *[]byte {
	b := make([]byte, 0, maxCipher)
	return &b
}

// goOn makes the link the transport of a worker that owns fd. The handshake is over and nobody else uses the link.
func (l *tlsLink) goOn(secure *tls.Conn, fd int32) {
	l.secure, l.fd, l.moved, l.nc = secure, fd, true, nil
}

// The net.Conn below crypto/tls.

func (l *tlsLink) Read(b []byte) (int, error) {
	if !l.moved {
		return l.nc.Read(b)
	}
	n, err := rawRecv(l.fd, b)
	if err == errAgain {
		return 0, wouldBlock{}
	}
	return n, err
}

func (l *tlsLink) Write(b []byte) (int, error) {
	if !l.moved {
		return l.nc.Write(b)
	}
	if len(l.out)+len(b) > maxCipher {
		return 0, io.ErrShortWrite // the peer asks for answers and doesn't read them
	}
	if len(l.out) == 0 && l.cipher != nil {
		l.out, l.lent = (*l.cipher)[:0], true
	}
	l.out = append(l.out, b...)
	return len(b), nil
}

func (l *tlsLink) Close() error {
	if !l.moved {
		return l.nc.Close()
	}
	return nil // hangUp does
}

func (l *tlsLink) LocalAddr() net.Addr {
	if !l.moved {
		return l.nc.LocalAddr()
	}
	return nil
}

func (l *tlsLink) RemoteAddr() net.Addr {
	if !l.moved {
		return l.nc.RemoteAddr()
	}
	return nil
}

func (l *tlsLink) SetDeadline(t time.Time) error {
	if !l.moved {
		return l.nc.SetDeadline(t)
	}
	return nil // the worker has timers of its own
}

func (l *tlsLink) SetReadDeadline(t time.Time) error {
	if !l.moved {
		return l.nc.SetReadDeadline(t)
	}
	return nil
}

func (l *tlsLink) SetWriteDeadline(t time.Time) error {
	if !l.moved {
		return l.nc.SetWriteDeadline(t)
	}
	return nil
}

// The worker's transport above crypto/tls.

// recv fills b with plaintext until there is no more: a short read means, as with a socket, that it is empty, though a
// record may be smaller than what it carries.
func (l *tlsLink) recv(b []byte) (int, error) {
	n := 0
	var err error
	for n < len(b) && err == nil {
		var k int
		k, err = l.secure.Read(b[n:])
		n += k
	}
	if _, again := err.(wouldBlock); again {
		err = errAgain
	}
	// What crypto/tls answered by itself, a key update or its last alert, must not stay in the shared buffer.
	if broken := l.settle(); broken != nil && broken != errAgain {
		err = broken
	}
	if n > 0 && err == errAgain {
		err = nil
	}
	return n, err
}

func (l *tlsLink) send(b []byte) (int, error) {
	sent := 0
	for {
		if err := l.settle(); err != nil {
			if err == errAgain && sent > 0 {
				err = nil
			}
			return sent, err
		}
		if sent == len(b) {
			return sent, nil
		}
		n, err := l.secure.Write(b[sent:min(len(b), sent+maxRecord)])
		sent += n
		if err != nil {
			l.settle()
			return sent, err
		}
	}
}

// settle writes the ciphertext that waits; what is left is the link's own from then on.
func (l *tlsLink) settle() error {
	for len(l.out) > 0 {
		n, err := rawSend(l.fd, l.out)
		if err != nil {
			if l.lent {
				l.out, l.lent = bytes.Clone(l.out), false
			}
			return err
		}
		l.out = l.out[n:]
	}
	l.out, l.lent = nil, false
	return nil
}

func (l *tlsLink) shutdownWrite() {
	l.secure.CloseWrite() // close_notify, RFC 8446 6.1
	if l.settle() == nil {
		rawShutdownWrite(l.fd)
	}
}

func (l *tlsLink) hangUp(reset bool) {
	if !reset {
		l.secure.CloseWrite()
		l.settle()
	}
	rawHangUp(l.fd, reset)
}
