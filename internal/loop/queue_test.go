package loop

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"example.com/hubbub/internal/wire"
)

// The queue gives out the frames' bytes in order, whatever the sizes of the writes, and its counts agree; what was forgiven
// is so until it is empty.
func TestQueueGivesOutWhatWasPut(t *testing.T) {
	for _, step := range []int{1, 3, 7, 64, 1000, 1 << 20} {
		w := &Worker{}
		var q queue
		var want, got []byte
		answers := 0
		for i := range 50 {
			p := bytes.Repeat([]byte{byte('a' + i%26)}, i*i%300)
			f := NewFrame(wire.Text, p)
			if f.answer = i%3 == 0; f.answer {
				answers += f.Len()
			}
			want = append(want, f.b...)
			q.push(f, w)
		}
		q.widen(w).forgiven = true
		if q.unsent() != len(want) || q.answers() != answers {
			t.Fatalf("counts %d and %d, want %d and %d", q.unsent(), q.answers(), len(want), answers)
		}
		for q.first != nil {
			b := w.join(&q)
			n := min(step, len(b))
			got = append(got, b[:n]...)
			if q.advance(n, w); q.first != nil && (q.more == nil || !q.more.forgiven) {
				t.Fatalf("writes of %d: with %d bytes left it is forgiven no more", step, q.unsent())
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("writes of %d: the bytes differ", step)
		}
		if q.unsent() != 0 || q.answers() != 0 || q.more != nil {
			t.Errorf("writes of %d: left over: %+v", step, q)
		}
	}
}

func TestDropKeepsAPartlyWrittenFrame(t *testing.T) {
	w := &Worker{}
	var q queue
	for i := range 3 {
		q.push(NewFrame(wire.Text, []byte(fmt.Sprint("frame", i))), w)
	}
	q.advance(3, w)
	q.drop(w)
	if got := string(w.join(&q)); got != "rame0" {
		t.Errorf("left is %q, want the rest of the frame that was begun", got)
	}
	q.advance(5, w)
	if q.first != nil || q.more != nil {
		t.Errorf("left over: %+v", q)
	}
	q.push(NewFrame(wire.Text, []byte("x")), w)
	if q.drop(w); q.first != nil || q.more != nil {
		t.Errorf("a frame that was not begun stayed: %+v", q)
	}
}

// What a handler owes is a debt of the client's, and gone with it.
func TestWhatIsOwedIsCounted(t *testing.T) {
	w := &Worker{loop: &Loop{}, slots: make([]slot, 1)}
	c := &Conn{w: w}
	c.Owe(100, 2)
	c.Owe(50, 1)
	if got := w.owed[c]; c.debt() != 150 || w.counts.Unsent != 150 || got.messages != 3 {
		t.Errorf("a debt of %d bytes, %d unsent, %d messages", c.debt(), w.counts.Unsent, got.messages)
	}
	c.Owe(-60, -1)
	w.destroy(c, false)
	if len(w.owed) != 0 || w.counts.Unsent != 0 {
		t.Errorf("left over: %v, %d bytes", w.owed, w.counts.Unsent)
	}
}

// Connections with the same frames share one joined buffer; others must not get it.
func TestJoinedBytesAreOnlySharedByTheSameFrames(t *testing.T) {
	w := &Worker{}
	a, b, c := NewFrame(wire.Text, []byte("a")), NewFrame(wire.Text, []byte("b")), NewFrame(wire.Text, []byte("c"))
	for _, frames := range [][]*Frame{{a, b, c}, {a, b, c}, {a, c, b}, {a, b}, {b, c}, {a, b, c}} {
		var q queue
		var want []byte
		for _, f := range frames {
			q.push(f, w)
			want = append(want, f.b...)
		}
		if got := w.join(&q); !bytes.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Connections that got the same frames get all of them, whatever the socket of each takes at a time.
func TestTheSameFramesReachSocketsThatTakeLittle(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		w := &Worker{}
		var queues [6]queue
		var got [len(queues)][]byte
		var want []byte
		for i := range 12 {
			f := NewFrame(wire.Text, bytes.Repeat([]byte{byte('a' + i)}, random.IntN(8)))
			want = append(want, f.b...)
			for k := range queues {
				queues[k].push(f, w)
			}
		}
		for left := len(queues) * len(want); left > 0; {
			k := random.IntN(len(queues))
			if queues[k].first == nil {
				continue
			}
			b := w.join(&queues[k])
			n := len(b)
			if random.IntN(2) == 0 {
				n = 1 + random.IntN(n)
			}
			got[k] = append(got[k], b[:n]...)
			queues[k].advance(n, w)
			left -= n
		}
		for k := range got {
			if !bytes.Equal(got[k], want) {
				t.Fatalf("seed %d: connection %d got %q, want %q", seed, k, got[k], want)
			}
		}
	}
}

func TestAnIdleConnectionIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Conn{}); n > 112 { // a size class of the allocator
		t.Errorf("a connection takes %d bytes, want 112 at most", n)
	}
}

// What crypto/tls answers by itself, to a peer that asks and asks and takes nothing, is bounded: a record and a little
// more may wait.
func TestWhatTLSAnswersByItselfIsBounded(t *testing.T) {
	l := &tlsLink{moved: true, out: make([]byte, 1)} // the socket takes no more
	var taken int
	var err error
	for answer := make([]byte, 31); err == nil && taken < 1<<20; {
		var n int
		n, err = l.Write(answer) // as of a key update, RFC 8446 4.6.3
		taken += n
	}
	if err == nil || taken < maxRecord || taken > maxCipher || len(l.out) != 1+taken {
		t.Errorf("%d bytes wait, of at most %d: %v", taken, maxCipher, err)
	}
}
