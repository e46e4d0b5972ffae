package api

import (
	"bytes"

	"example.com/hubbub/internal/front"
)

// plainHead is the head of a publish about whose meaning there is no doubt: a line for each header, of visible ASCII
// after one space; what is read here once, and beside that only plainHeaders. Two readers of such a head can't see
// different things in it. Any other head is net/http's, which alone says then what it means.
type plainHead struct {
	authorization  string
	idempotencyKey []string // nil: it isn't there
	length         int      // of the body: one to four digits, and not 0
}

// plainHeaders change nothing of a publish, or of the connection.
var plainHeaders = map[string]bool{
	"user-agent": true, "accept": true, "accept-encoding": true, "accept-language": true, "sec-fetch-mode": true,
	"traceparent": true, "tracestate": true, "x-request-id": true,
}

// The headers that it must have, by bit; what else may be there once begins behind them.
const (
	hasHost = 1 << iota
	hasAuthorization
	hasContentType
	hasContentLength
	hasIdempotencyKey
	hasConnection
	hasAll = hasHost | hasAuthorization | hasContentType | hasContentLength
)

// parsePlain reads the head at the front of b, behind the request's line. size is where the body begins; 0: it isn't
// plain, or not whole. It keeps nothing of b.
func parsePlain(b []byte) (h plainHead, size int) {
	var given int
	for {
		end := bytes.IndexByte(b[size:], '\n')
		if end < 0 {
			return h, 0
		}
		line := b[size : size+end]
		size += end + 1
		if string(line) == "\r" {
			if given&hasAll != hasAll {
				return h, 0
			}
			return h, size
		}
		is, ok := h.take(line)
		if !ok || given&is != 0 {
			return h, 0
		}
		given |= is
	}
}

// take reads a line, and says which header it is; 0 for one of plainHeaders.
func (h *plainHead) take(line []byte) (is int, ok bool) {
	name, value, found := bytes.Cut(line, []byte(": "))
	value, whole := bytes.CutSuffix(value, []byte("\r"))
	if !found || !whole || !front.Visible(value) {
		return 0, false
	}
	var space [32]byte
	switch lower := lowered(space[:0], name); string(lower) {
	case "host":
		return hasHost, front.PlainHost(value)
	case "authorization":
		h.authorization = string(value)
		return hasAuthorization, true
	case "content-type":
		return hasContentType, string(value) == "application/json"
	case "content-length":
		h.length, ok = plainNumber(value)
		return hasContentLength, ok
	case "idempotency-key":
		h.idempotencyKey = []string{string(value)}
		return hasIdempotencyKey, true
	case "connection":
		return hasConnection, string(value) == "keep-alive"
	default:
		return 0, plainHeaders[string(lower)]
	}
}

// lowered appends a header's name in small letters; nothing where it is longer than any that is known.
func lowered(dst, name []byte) []byte {
	if len(name) > cap(dst) {
		return dst
	}
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// plainNumber is one from 1 to 9999, without a sign or a zero in front.
func plainNumber(digits []byte) (n int, ok bool) {
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, len(digits) <= 4 && digits[0] != '0'
}
