package loop

import (
	"bytes"
	"fmt"
	"net"
	"testing"
	"time"

	"example.com/hubbub/internal/wire"
)

// Of many who send as much as is read, and each message of whom is work, few are heard in a turn, each in its time, and
// after everybody else.
func TestThoseWhoAreMuchWorkAreHeardLast(t *testing.T) {
	const (
		greedy = 20
		work   = 20 * time.Microsecond // for each of their messages
		most   = int(time.Millisecond/work) + 2*lookWork/messageWork
	)
	type word struct {
		turn  uint32
		who   int // 0 is the innocent
		heavy bool
	}
	eachIO(t, func(t *testing.T, cfg Config) {
		l := start(t, cfg)
		var said []word
		handler := func(who int) *script {
			return &script{message: func(c *Conn, op wire.Opcode, p []byte) {
				said = append(said, word{c.w.turns, who, c.heavy})
				if who == 0 {
					c.Answer(op, p)
					return
				}
				for began := time.Now(); time.Since(began) < work; {
				}
			}}
		}
		innocent := connect(t, l, handler(0))
		var attackers []net.Conn
		for i := range greedy {
			far := connect(t, l, handler(i+1))
			attackers = append(attackers, far)
			packet := bytes.Repeat(frameTo(string(make([]byte, 100))), 600)
			go func() {
				for {
					if _, err := far.Write(packet); err != nil {
						return
					}
				}
			}()
		}
		for i := range 100 {
			s := fmt.Sprint("there? ", i)
			innocent.Write(frameTo(s))
			expect(t, innocent, text(s))
		}
		until(t, "all have been heard more than once", func() bool {
			heard := map[int]map[uint32]bool{}
			do(l.workers[0], func() {
				for _, word := range said {
					if heard[word.who] == nil {
						heard[word.who] = map[uint32]bool{}
					}
					heard[word.who][word.turn] = true
				}
			})
			for i := range greedy {
				if len(heard[i+1]) < 3 {
					return false
				}
			}
			return true
		})
		for _, far := range attackers {
			far.Close()
		}
		do(l.workers[0], func() {
			inTurn, late, others := 0, 0, 0
			for i, word := range said {
				if i > 0 && said[i-1].turn != word.turn {
					inTurn = 0
				}
				if word.heavy {
					inTurn++
					late++
				}
				if word.who != 0 {
					others++
				}
				if word.who == 0 && inTurn > 0 {
					t.Errorf("turn %d: the innocent is heard after %d messages of the others", word.turn, inTurn)
				}
				if inTurn == most+1 {
					t.Errorf("turn %d: more than %d of their messages are heard", word.turn, most)
				}
			}
			if late < others/4 {
				t.Errorf("of %d messages of the others only %d are heard late", others, late)
			}
		})
	})
}

// once is a transport that gives these bytes, and then nothing.
type once struct {
	discard
	b []byte
}

func (o *once) recv(b []byte) (n int, err error) {
	if n, o.b = copy(b, o.b), nil; n == 0 {
		err = errAgain
	}
	return n, err
}

// Whether a read is much work shows when all of it was heard: the little that may be left of it says nothing.
func TestTheRestOfAHeavyReadIsNoLightRead(t *testing.T) {
	w, conns := byHand(1, echo())
	c, little := conns[0], frameTo("little")
	for i, step := range []struct {
		left, read []byte
		heavy      bool // after it
	}{
		{nil, little, false},
		{nil, frameTo(string(make([]byte, lookWork))), true},
		{little, nil, true},
		{nil, bytes.Repeat(little, lookWork/messageWork), true},
		{nil, little, false},
		{little, nil, false},
	} {
		if c.via = (&once{b: step.read}); step.left != nil {
			c.in = &half{left: step.left}
		}
		w.receive(c)
		if c.heavy != step.heavy {
			t.Errorf("step %d: heavy is %t", i, c.heavy)
		}
	}
}
