package bench

import (
	"fmt"
	"strconv"
	"strings"

	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

// template is a text with placeholders.
type template struct {
	parts []part
}

// part is a literal, and what stands behind it: one of the letters, or 0.
type part struct {
	literal string
	holder  byte
}

// parseTemplate reads a text with %r (the room's name), %n (its number), %i (the connection's number), %p (the payload)
// and %%.
func parseTemplate(text string) (template, error) {
	var t template
	literal := ""
	for {
		before, after, found := strings.Cut(text, "%")
		literal += before
		if !found {
			break
		}
		if after == "" {
			return t, fmt.Errorf("template: a %% at the end of %q; write %%%%", text)
		}
		switch c := after[0]; c {
		case '%':
			literal += "%"
		case 'r', 'n', 'i', 'p':
			t.parts = append(t.parts, part{literal, c})
			literal = ""
		default:
			return t, fmt.Errorf("template: %%%c is no placeholder; there are %%r, %%n, %%i, %%p and %%%%", c)
		}
		text = after[1:]
	}
	t.parts = append(t.parts, part{literal: literal})
	return t, nil
}

// has says whether a placeholder stands in it.
func (t template) has(holder byte) bool {
	for _, p := range t.parts {
		if p.holder == holder {
			return true
		}
	}
	return false
}

// append appends what it comes to for one connection and payload.
func (t template) append(dst []byte, run string, c *conn, payload []byte) []byte {
	for _, p := range t.parts {
		dst = append(dst, p.literal...)
		switch p.holder {
		case 'r':
			dst = append(append(append(dst, "bench-"...), run...), '-')
			dst = strconv.AppendInt(dst, int64(c.room), 10)
		case 'n':
			dst = strconv.AppendInt(dst, int64(c.room), 10)
		case 'i':
			dst = strconv.AppendInt(dst, int64(c.num), 10)
		case 'p':
			dst = append(dst, payload...)
		}
	}
	return dst
}

// composer makes frames of templates. It belongs to one goroutine, or to a lock.
type composer struct {
	run      string
	compress bool
	deflater wire.Deflater
	payload  []byte
	text     []byte
}

// send queues what a template comes to on a connection.
func (k *composer) send(c *conn, t template, payload []byte) {
	k.text = t.append(k.text[:0], k.run, c, payload)
	if k.compress && c.deflate {
		// RFC 7692 7.1.2.2: without client_max_window_bits the window may have all 15.
		if p, ok := k.deflater.Deflate(k.text, 15, nil); ok {
			c.queue(wsclient.Text|wsclient.Deflated, p)
			return
		}
	}
	c.queue(wsclient.Text, k.text)
}

// sendMarked queues a message whose payload has a marker.
func (k *composer) sendMarked(c *conn, m marker) {
	k.payload = c.f.payloads.append(k.payload[:0], m)
	k.send(c, c.f.publish, k.payload)
}
