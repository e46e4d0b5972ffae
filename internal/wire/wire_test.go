package wire

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"example.com/hubbub/internal/wsclient"
)

// The tests write a stream as frames and what it gives as lines: one for each event, and "! code" for the fault at its
// end.

const testLimit = 1 << 20

var testKey = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// final and part are client's frames, the latter with more to follow.
func final(op Opcode, payload string) []byte {
	return wsclient.Append(nil, true, wsclient.Opcode(op), testKey, []byte(payload))
}

func part(op Opcode, payload string) []byte {
	return wsclient.Append(nil, false, wsclient.Opcode(op), testKey, []byte(payload))
}

func join(frames ...[]byte) []byte { return slices.Concat(frames...) }

func line(ev Event) string {
	if ev.Op == Close {
		return fmt.Sprintf("close %d %q", ev.Code, ev.Payload)
	}
	return fmt.Sprintf("%v %q", ev.Op, ev.Payload)
}

// receive feeds a Reader the chunks one after the other, as a connection's owner would, and tells what came out. It
// holds the Reader to its contract on the way, and moves it to another place after each chunk.
func receive(t testing.TB, limit int, chunks ...[]byte) []string {
	t.Helper()
	return receiveBy(t, nil, limit, chunks...)
}

// receiveBy is receive where compression was negotiated, unless z is nil.
func receiveBy(t testing.TB, z *Inflater, limit int, chunks ...[]byte) []string {
	t.Helper()
	r := new(Reader)
	var lines []string
	arrived := 0
	for _, chunk := range chunks {
		b := slices.Clone(chunk) // it is unmasked in place
		for len(b) > 0 {
			ev, n, ok, err := r.Next(b, limit, z)
			if n < 0 || n > len(b) {
				t.Fatalf("consumed %d of %d bytes", n, len(b))
			}
			if ok && err != nil {
				t.Fatalf("both an event and the fault %v", err)
			}
			arrived += n
			if most := 2*arrived + minBuffer + maxControl; r.Buffered() > most {
				t.Fatalf("holds %d bytes after %d arrived", r.Buffered(), arrived)
			}
			if zero := reflect.ValueOf(r).Elem().IsZero(); r.Idle() != zero {
				t.Fatalf("Idle is %v, zero is %v: %+v", r.Idle(), zero, *r)
			}
			if err != nil {
				if !r.Idle() {
					t.Fatalf("not zero after a fault: %+v", *r)
				}
				return append(lines, fmt.Sprintf("! %d", err.Code))
			}
			if !ok && n != len(b) {
				t.Fatalf("no event, but %d of %d bytes consumed", n, len(b))
			}
			if ok {
				lines = append(lines, line(ev))
			}
			b = b[n:]
		}
		moved := *r
		*r = Reader{}
		r = &moved
	}
	return lines
}

// single cuts b into single bytes.
func single(b []byte) [][]byte { return slices.Collect(slices.Chunk(b, 1)) }

// cuts cuts b at random, into pieces of any size.
func cuts(b []byte, rnd *rand.Rand) (pieces [][]byte) {
	for len(b) > 0 {
		n := 1 + rnd.IntN(len(b))
		if rnd.IntN(2) == 0 {
			n = 1 + rnd.IntN(min(len(b), 20))
		}
		pieces = append(pieces, b[:n])
		b = b[n:]
	}
	return pieces
}

// wantLines checks that a stream gives the lines whole, cut at every position and byte by byte.
func wantLines(t *testing.T, stream []byte, limit int, want ...string) {
	t.Helper()
	if got := receive(t, limit, stream); !slices.Equal(got, want) {
		t.Fatalf("whole:\n got %.200q\nwant %.200q", got, want)
	}
	if got := receive(t, limit, single(stream)...); !slices.Equal(got, want) {
		t.Fatalf("byte by byte:\n got %.200q\nwant %.200q", got, want)
	}
	for i := 1; i < len(stream); i++ {
		if i > 20 && len(stream) > 2000 { // inside a long payload a sample will do
			i = min(i+len(stream)/100, len(stream)-1)
		}
		if got := receive(t, limit, stream[:i], stream[i:]); !slices.Equal(got, want) {
			t.Fatalf("cut at %d:\n got %.200q\nwant %.200q", i, got, want)
		}
	}
}
