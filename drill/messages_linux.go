package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"example.com/hubbub/internal/wsclient"
)

// The client's side of the room protocol, as much as a drill needs.

// maxFrame bounds what a drill takes of a server at once, in bytes.
const maxFrame = 1 << 30

// appendUpgrade appends the handshake of a client that has this token, or "".
func appendUpgrade(b []byte, token string) []byte {
	path := "/ws"
	if token != "" {
		path += "?resume=" + token
	}
	return append(b, wsclient.Upgrade("drill", path)...)
}

// appendPublish appends a room message whose content tells its publisher and its counter. One that is made to be sent
// again has a publish_id.
func appendPublish(b []byte, room, from, seq uint32, size int, again bool) []byte {
	b = fmt.Appendf(b, `{"msg_type":"room_message","room":"r%d","content":"%08x:%08x:`, room, from, seq)
	for range size - 18 {
		b = append(b, 'x')
	}
	if again {
		b = fmt.Appendf(b, `","publish_id":"%d`, seq)
	}
	return fmt.Appendf(b, `","id":%d}`, seq)
}

// A serverMessage is what a server's message holds that matters here.
type serverMessage struct {
	Kind     string          `json:"msg_type"`
	From     string          `json:"from"`
	Content  string          `json:"content"`
	Room     string          `json:"room"`
	ClientID string          `json:"client_id"`
	Code     string          `json:"code"`
	ID       json.RawMessage `json:"id"`
	Reason   string          `json:"reason"`
	To       uint64          `json:"to_offset"`
	place

	Token     string                  `json:"resume_token"`
	Resumed   bool                    `json:"resumed"`
	Rooms     map[string]resumedPlace `json:"rooms"`
	Duplicate bool                    `json:"duplicate"`
}

// A place is how far a client has got in a room.
type place struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

type resumedPlace struct {
	place
	Recovered bool   `json:"recovered"`
	Retry     bool   `json:"retry"`
	Reason    string `json:"reason"`
}

const deliveryHead = `{"msg_type":"room_message","from":"`

// A delivery is a room message as it arrives.
type delivery struct {
	from        []byte
	sender, seq uint32 // by the content
	room        uint32
	offset      uint64
}

// parseDelivery is the short cut for nearly all that comes. What isn't written as the server does write today goes the
// long way.
func parseDelivery(p []byte) (d delivery, ok bool) {
	rest, ok := bytes.CutPrefix(p, []byte(deliveryHead))
	if !ok {
		return d, false
	}
	from, rest, ok1 := bytes.Cut(rest, []byte(`","content":"`))
	at := bytes.LastIndex(rest, []byte(`","room":"r`))
	if !ok1 || at < 18 {
		return d, false
	}
	room, tail, ok2 := bytes.Cut(rest[at+len(`","room":"r`):], []byte(`"`))
	_, offset, ok3 := bytes.Cut(tail, []byte(`,"offset":`))
	n, err := strconv.ParseUint(string(bytes.TrimSuffix(offset, []byte("}"))), 10, 53)
	if d, ok = newDelivery(from, rest[:at], room, n); !ok2 || !ok3 || err != nil {
		return d, false
	}
	return d, ok
}

func newDelivery(from, content, room []byte, offset uint64) (delivery, bool) {
	if len(content) < 18 || content[8] != ':' || content[17] != ':' {
		return delivery{}, false
	}
	sender, err1 := strconv.ParseUint(string(content[:8]), 16, 32)
	seq, err2 := strconv.ParseUint(string(content[9:17]), 16, 32)
	number, err3 := strconv.ParseUint(string(room), 10, 32)
	return delivery{from, uint32(sender), uint32(seq), uint32(number), offset}, err1 == nil && err2 == nil && err3 == nil
}

// publish sends a room message that was due at a time, from which its latency counts.
func (f *fleet) publish(c *client, room uint32, size int, due int64) {
	if c.state != opened {
		return
	}
	seq := uint32(len(c.log.sent))
	c.log.sent = append(c.log.sent, sent{room: room, at: due})
	f.text = appendPublish(f.text[:0], room, c.num, seq, size, c.session != nil)
	f.send(c, wsclient.Text, f.text)
}

// pace calls publish at a rate, and returns after so long.
func (f *fleet) pace(rate float64, d time.Duration, publish func(due int64)) {
	start := f.clock()
	end := start + int64(d)
	for n, next := 0, start; ; {
		wait := min(next, end) - f.clock()
		switch {
		case wait > 0:
			f.step(time.Duration(wait))
		case next >= end:
			return
		default:
			publish(next)
			n++
			next = start + int64(float64(n)/rate*1e9)
			if n%16 == 0 {
				f.step(0)
			}
		}
	}
}

// settle waits until all that is due has come, and returns what the checker says.
func (f *fleet) settle(limit time.Duration) *verdict {
	end := f.clock() + int64(limit)
	for {
		quiet := f.clock()
		f.until(limit, func() bool { return f.clock()-max(quiet, f.lastCame) > int64(500*time.Millisecond) })
		if v := check(f.logs); v.lost+v.unanswered == 0 || f.clock() > end {
			return v
		}
	}
}
