package hubbubtest

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"
)

// The client's half of RFC 6455, written apart from the server's so that a fault in one doesn't hide in the other. It
// offers no extension.

// The opcodes of RFC 6455 5.2.
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// appendFrame appends a masked frame. The mask is always the same: nothing between the two ends could be fooled.
func appendFrame(dst []byte, op byte, fin bool, payload []byte) []byte {
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	head := op
	if fin {
		head |= 0x80
	}
	dst = append(dst, head)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), uint64(n))
	}
	dst = append(dst, mask[:]...)
	for i, b := range payload {
		dst = append(dst, b^mask[i%4])
	}
	return dst
}

// reader puts the server's frames together.
type reader struct {
	r       *bufio.Reader
	op      byte   // of the message that is half received, or 0
	message []byte // what there is of it
}

// next is the next whole message or control frame. io.EOF is an end between two of them.
func (r *reader) next() (op byte, payload []byte, err error) {
	for {
		head, payload, err := r.frame()
		if err != nil {
			return 0, nil, err
		}
		op, fin := head&0x0f, head&0x80 != 0
		switch {
		case op >= opClose:
			if !fin || len(payload) > 125 {
				return 0, nil, fmt.Errorf("a control frame in pieces or of %d bytes", len(payload))
			}
			return op, payload, nil
		case (op == opContinuation) != (r.op != 0):
			return 0, nil, fmt.Errorf("opcode %d within a message of opcode %d", op, r.op)
		case op != opContinuation:
			r.op = op
		}
		r.message = append(r.message, payload...)
		if fin {
			op, payload = r.op, r.message
			r.op, r.message = 0, nil
			if op == opText && !utf8.Valid(payload) {
				return 0, nil, errors.New("a text that is not UTF-8")
			}
			return op, payload, nil
		}
	}
}

// frame reads one, and refuses what a server may not send.
func (r *reader) frame() (head byte, payload []byte, err error) {
	var b [8]byte
	if _, err := io.ReadFull(r.r, b[:2]); err != nil {
		return 0, nil, err
	}
	head = b[0]
	size := uint64(b[1] & 0x7f)
	if op := head & 0x0f; head&0x70 != 0 || b[1]&0x80 != 0 || op > opPong || op > opBinary && op < opClose {
		return 0, nil, fmt.Errorf("a frame that begins with %x: masked, or with a reserved bit or opcode", b[:2])
	}
	if size > 125 {
		n, least := 2, uint64(126)
		if size == 127 {
			n, least = 8, 1<<16
		}
		if _, err := io.ReadFull(r.r, b[8-n:]); err != nil {
			return 0, nil, inside(err)
		}
		clear(b[:8-n])
		size = binary.BigEndian.Uint64(b[:])
		if size < least || size > 1<<30 {
			return 0, nil, fmt.Errorf("the length %d in %d bytes", size, n)
		}
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(r.r, payload)
	return head, payload, inside(err)
}

// inside is the error of a stream that ends within a frame.
func inside(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// closing reads the payload of a Close frame; RFC 6455 7.1.5: without a code it is 1005.
func closing(payload []byte) (code int, reason string) {
	if len(payload) < 2 {
		return 1005, ""
	}
	return int(binary.BigEndian.Uint16(payload)), string(payload[2:])
}

// RefusedError says that the server did not upgrade.
type RefusedError struct {
	Status int    // of HTTP
	Body   string // what came with it
	Header http.Header
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the server answered the handshake with %d: %s", e.Status, strings.TrimSpace(e.Body))
}

const handshakeKey = "dGhlIHNhbXBsZSBub25jZQ==" // of RFC 6455 1.3

// handshake upgrades a connection, and returns the reader that has what came behind the answer.
func handshake(nc io.ReadWriter, path string, header http.Header) (*reader, error) {
	var b strings.Builder
	b.WriteString("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + handshakeKey + "\r\n")
	header.Write(&b)
	b.WriteString("\r\n")
	if _, err := io.WriteString(nc, b.String()); err != nil {
		return nil, err
	}
	r := bufio.NewReader(nc)
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(answer.Body, 4096))
		return nil, &RefusedError{answer.StatusCode, string(body), answer.Header}
	}
	sum := sha1.Sum([]byte(handshakeKey + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if got, want := answer.Header.Get("Sec-WebSocket-Accept"), base64.StdEncoding.EncodeToString(sum[:]); got != want {
		return nil, fmt.Errorf("Sec-WebSocket-Accept is %q, want %q", got, want)
	}
	return &reader{r: r}, nil
}
