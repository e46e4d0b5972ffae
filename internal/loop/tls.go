package loop

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"reflect"
	"time"
	"unsafe"
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
// A write must never fail halfway: crypto/tls gives up for good then. So what the socket doesn't take of a record stays
// here as ciphertext, and frames wait as plaintext, where a policy can still drop them.
type tlsLink struct {
	nc     net.Conn // until goOn
	secure *tls.Conn
	fd     int32
	moved  bool   // the worker owns fd
	empty  bool   // a short read has emptied the socket, since recv was called
	out    []byte // ciphertext that the socket hasn't taken; nil while there is none
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

// goOn makes the link the transport of a worker that owns fd. The handshake is over and nobody else uses the link.
func (l *tlsLink) goOn(secure *tls.Conn, fd int32) {
	l.secure, l.fd, l.moved, l.nc = secure, fd, true, nil
	shrink(secure, 0)
}

// The net.Conn below crypto/tls.

func (l *tlsLink) Read(b []byte) (int, error) {
	if !l.moved {
		return l.nc.Read(b)
	}
	if l.empty {
		return 0, wouldBlock{}
	}
	n, err := rawRecv(l.fd, b)
	if err == errAgain {
		return 0, wouldBlock{}
	}
	l.empty = err == nil && n < len(b)
	return n, err
}

func (l *tlsLink) Write(b []byte) (int, error) {
	if !l.moved {
		return l.nc.Write(b)
	}
	n := 0
	if len(l.out) == 0 {
		var err error
		if n, err = rawSend(l.fd, b); err != nil && err != errAgain {
			return 0, err
		}
	}
	if len(l.out)+len(b)-n > maxCipher {
		return 0, io.ErrShortWrite // the peer asks for answers and doesn't read them
	}
	l.out = append(l.out, b[n:]...)
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
	l.empty = false
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
	shrink(l.secure, keptInput)
	// What crypto/tls has answered by itself, a key update or its last alert, may be what the socket didn't take.
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
	for sent < len(b) {
		if err := l.settle(); err != nil {
			if err == errAgain && sent > 0 {
				err = nil
			}
			return sent, err
		}
		n, err := l.secure.Write(b[sent:min(len(b), sent+maxRecord)])
		sent += n
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// settle writes the ciphertext that waits.
func (l *tlsLink) settle() error {
	for len(l.out) > 0 {
		n, err := rawSend(l.fd, l.out)
		if err != nil {
			return err
		}
		l.out = l.out[n:]
	}
	l.out = nil
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

// keptInput is how large an empty buffer may be, in bytes, that crypto/tls keeps for what comes next: small messages are
// read without an allocation.
const keptInput = 1 << 10

// inputBuffers are where in a tls.Conn the buffers are that it reads records and handshake messages into. They only ever
// grow (golang/go#43563, #81348): a handshake leaves 3.5 KiB behind, and a message of 60 KB 27 KiB, for as long as the
// connection lives. Empty where this version of Go has no such buffers.
var inputBuffers = func() (at []uintptr) {
	for _, name := range []string{"rawInput", "hand"} {
		if f, ok := reflect.TypeFor[tls.Conn]().FieldByName(name); ok && f.Type == reflect.TypeFor[bytes.Buffer]() {
			at = append(at, f.Offset)
		}
	}
	return at
}()

// shrink has secure forget its buffers of more than keep bytes that have nothing in them. Plaintext that isn't read yet may
// still lie in one: the memory itself is left as it is, and lives on while somebody points to it. So it must never be
// used for something else. Nobody else uses secure meanwhile.
func shrink(secure *tls.Conn, keep int) {
	for _, at := range inputBuffers {
		if b := (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(secure), at)); b.Len() == 0 && b.Cap() > keep {
			*b = bytes.Buffer{}
		}
	}
}
