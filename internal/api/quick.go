package api

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"time"

	"example.com/hubbub/internal/front"
)

// Quick answers publishes without net/http, in half of its processor time: those that are plain (see plainHead), have
// arrived whole and are done. All others, also those that can't be done, it leaves to net/http untouched, so that every
// refusal is told by one place. base is as Handler has it. nil where a publish may have to wait, or has spans.
func (a *API) Quick(base string) front.Answer {
	if a.Hub.Remote() || a.Tracer != nil {
		return nil
	}
	line := []byte("POST " + base + Path + "/publish HTTP/1.1\r\n")
	to, _ := find(http.MethodPost, nil, []string{"publish"})
	return func(b, dst []byte) (answer []byte, used int) {
		if !bytes.HasPrefix(b, line) {
			return nil, 0
		}
		h, size := parsePlain(b[len(line):])
		head := len(line) + size
		if size == 0 || len(b) < head+h.length {
			return nil, 0
		}
		if answer = a.quickly(to, &h, b[head:head+h.length], dst); answer == nil {
			return nil, 0
		}
		return answer, head + h.length
	}
}

// quickly does a publish and appends the answer, the one that net/http would write; nil where it isn't done.
func (a *API) quickly(to *route, h *plainHead, body, dst []byte) []byte {
	key := a.keyOf(h.authorization)
	if key == nil || key.Rights&to.right != to.right {
		return nil
	}
	p, wrong := readPublish(body, a.now().MaxMessageBytes)
	if wrong == nil && h.idempotencyKey != nil {
		wrong = p.takeIdempotencyKey(h.idempotencyKey)
	}
	if wrong != nil || !a.calls.Enter() {
		return nil
	}
	defer a.calls.Leave()
	var space [96]byte
	out, wrong := a.publishOne(context.Background(), key, &p, space[:0])
	if wrong != nil {
		return nil // nothing was done
	}
	a.counts.add(to, http.StatusOK)
	dst = append(dst, "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Type: application/json\r\nDate: "...)
	dst = append(time.Now().UTC().AppendFormat(dst, http.TimeFormat), "\r\nContent-Length: "...)
	dst = append(strconv.AppendInt(dst, int64(len(out)), 10), "\r\n\r\n"...)
	return append(dst, out...)
}
