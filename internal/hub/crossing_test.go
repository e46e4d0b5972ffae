package hub

import (
	"testing"
	"time"

	"example.com/hubbub/internal/protocol"
)

// What is on its way to a client whose connection ends reaches it: it waits where the session is parked by then, or
// goes on to the connection that has the session.
func TestADirectMessageCrossesTheEndOfAConnection(t *testing.T) {
	for name, isBack := range map[string]bool{"the session is parked": false, "it is resumed already": true} {
		t.Run(name, func(t *testing.T) {
			h, l := newHubOf(t, 3, func(c *Config) { c.ResumeWindow = time.Hour }) // one for each connection
			a, b := newClient(t, h, l), newClient(t, h, l)
			id, _ := ParseID([]byte(a.id))
			s, w := h.here(id), h.here(id).conn.Worker()
			begun, sent, parked, goOn := make(chan bool), make(chan bool), make(chan bool), make(chan bool)
			w.Post(task(func() {
				close(begun)
				<-sent
				s.conn.Close(protocol.CloseNoSignOfLife, "")
				close(parked)
				<-goOn
			}), 0)
			<-begun
			if _, _, err := h.Publish(t.Context(), &Publication{Client: id, From: Server, Content: []byte(`1`)}); err != nil {
				t.Fatal(err)
			}
			b.say(`{"msg_type":"direct_message","to":%q,"content":2,"id":1}`, a.id)
			if got := b.next(); got["msg_type"] != "ack" {
				t.Fatal(got)
			}
			close(sent)
			<-parked
			reach := func() {
				close(goOn)
				until(t, "the worker has gone on", func() bool { return w.Depth() == 0 })
			}
			if !isBack {
				reach()
			}
			back := a.again(h, l, a.welcome["resume_token"].(string))
			back.say(`{"msg_type":"resume","rooms":{},"id":1}`)
			got := back.sync()
			if isBack {
				reach()
				got = append(got, back.sync()...)
			}
			if len(got) != 3 || got[0]["msg_type"] != "resumed" || got[1]["content"] != 1.0 || got[2]["content"] != 2.0 {
				t.Errorf("got %v, want resumed and two messages", got)
			}
		})
	}
}
