package loop

import (
	"testing"

	"example.com/hubbub/internal/wire"
	"example.com/hubbub/internal/wsclient"
)

// What a worker does in a turn takes no memory, once its lists have grown to what the load needs: memory is taken by a
// message that others are to share, when it is made, and not by those who get it.
func TestATurnAllocatesNothing(t *testing.T) {
	small, large := frameTo("hello"), frameTo(string(make([]byte, 16<<10)))
	frames := make([]*Frame, 16)
	for i := range frames {
		frames[i] = NewFrame(wire.Text, []byte("hello"))
	}
	nothing := taskFunc(func(*Worker) {})
	for name, turn := range map[string]func(w *Worker, conns []*Conn){
		"echo": func(w *Worker, conns []*Conn) {
			for _, c := range conns {
				hear(w, c, small)
				hear(w, c, large)
			}
		},
		"a pipelined echo": func(w *Worker, conns []*Conn) {
			for range 20 {
				w.feed(conns[0], w.in[:copy(w.in, small)])
			}
			w.flushAll()
		},
		"a ping": func(w *Worker, conns []*Conn) {
			n := copy(w.in, wsclient.Append(w.in[:0], true, wsclient.Ping, [4]byte{1, 2, 3, 4}, nil))
			w.feed(conns[0], w.in[:n])
			w.flushAll()
		},
		"pings of ours": func(w *Worker, conns []*Conn) {
			for _, c := range conns {
				c.seen, c.due = w.now, w.now-1
				w.fire(c)
			}
			w.sendPings()
		},
		"one message to all": func(w *Worker, conns []*Conn) {
			for _, c := range conns {
				c.Send(frames[0])
			}
			w.flushAll()
		},
		"16 messages to all": func(w *Worker, conns []*Conn) {
			for _, f := range frames {
				for _, c := range conns {
					c.Send(f)
				}
			}
			w.flushAll()
		},
		"the mailbox": func(w *Worker, _ []*Conn) {
			for range 100 {
				w.Post(nothing, 0)
			}
			w.runMail()
		},
	} {
		for _, how := range []string{"alone", "together"} {
			t.Run(name+" "+how, func(t *testing.T) {
				w, conns := byHand(100, echo())
				if how == "together" {
					writeTogether(w, conns)
				}
				if n := testing.AllocsPerRun(100, func() { turn(w, conns) }); n != 0 {
					t.Errorf("%v allocations a turn", n)
				}
			})
		}
	}
}
