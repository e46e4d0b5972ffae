package client

import (
	"bytes"
	"context"
	"testing"
)

// FuzzReceive has a server say what it likes, a message a line, to a client that is in a room and waits for answers.
func FuzzReceive(f *testing.F) {
	const welcome = `{"msg_type":"welcome","client_id":"c","max_message_bytes":65536,"ping_interval_ms":1,"pong_timeout_ms":1,"resume_token":"t","resumed":true,"expires_at":1}` + "\n"
	for _, seed := range []string{
		welcome + `{"msg_type":"resumed","id":3,"rooms":{"r":{"epoch":"e","offset":7,"recovered":true}}}`,
		welcome + `{"msg_type":"resumed","id":3,"rooms":{"r":{"reason":"timeout","retry":true}}}`,
		welcome + `{"msg_type":"resumed","id":3,"rooms":null}` + "\n" + `{"msg_type":"room_message","room":"r","content":1,"offset":6}`,
		welcome + `{"msg_type":"gap","room":"r","count":-1,"to_offset":18446744073709551615}` + "\n" + `{"msg_type":"gap","count":1}`,
		welcome + `{"msg_type":"deleted","room":"r","to_offset":9}` + "\n" + `{"msg_type":"left","room":"r","reason":"kicked"}`,
		welcome + `{"msg_type":"joined","room":"r"}` + "\n" + `{"msg_type":"joined","room":"s","epoch":"e","offset":1}`,
		welcome + `{"msg_type":"presence","id":4,"count":1,"members":[{"client_id":"x"}]}` + "\n" + `{"msg_type":"member_left","room":"r","members":[{}]}`,
		welcome + `{"msg_type":"ack","id":1}` + "\n" + `{"msg_type":"history","id":2,"messages":[{}]}` + "\n" + `{"msg_type":"error","id":2}`,
		welcome + `{"msg_type":"reconnect","after_ms":-5}` + "\n" + `{"msg_type":"pong","time":9223372036854775807}`,
		`{"msg_type":"chat"}` + "\n" + `[]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		h := newHub("ws://hubbub.test/ws", Options{})
		defer h.cancel()
		h.session.clientID = "c"
		r := h.Room("r")
		r.joined, r.at, r.list.watchers = true, &Position{"e", 5}, 1
		conn := newConnection(h)
		defer conn.cancel()
		h.conn = conn
		calls := []*call{
			{kind: once, message: outgoing{Type: "room_message", Room: "r", Content: []byte("1")}},
			{message: outgoing{Type: "history", Room: "r"}},
		}
		for _, c := range calls {
			if err := h.enqueue(c); err != nil {
				t.Fatal(err)
			}
		}
		for line := range bytes.Lines(script) {
			events, err := h.receive(conn, bytes.TrimSuffix(line, []byte("\n")))
			if err != nil {
				break // the connection ends
			}
			for _, d := range events {
				d.to.put(context.Background(), d.event, &h.waiting, h.poked)
			}
			for h.next(conn) != nil { // what the client says to it
			}
		}
		answered := 0
		h.mu.Lock()
		h.conn = nil
		h.hungUp(false)
		h.fail()
		h.mu.Unlock()
		for _, c := range calls {
			select {
			case <-c.result:
				answered++
			default:
			}
		}
		if answered != len(calls) || h.waiting.Load() != 0 || h.calls.count != 0 || h.calls.bytes != 0 {
			t.Errorf("%d of %d calls have ended; %d, %d, %d bytes are left", answered, len(calls), h.waiting.Load(), h.calls.count, h.calls.bytes)
		}
	})
}
