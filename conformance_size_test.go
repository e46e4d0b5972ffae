package hubbub_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/wire"
)

// Large messages (Autobahn's sections 9 and 10), and those that are too large: 1009, in whatever shape the size comes.

const mib = 1 << 20

// pattern is a text of n bytes without a short period.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = ' ' + byte((i^i>>8^i>>16)%95)
	}
	return p
}

// inFragments is a message in fragments of n bytes.
func inFragments(op wire.Opcode, p []byte, n int) (b []byte) {
	for len(p) > n {
		b = wire.AppendClientFrame(b, false, op, testMask, p[:n])
		op, p = wire.Continuation, p[n:]
	}
	return wire.AppendClientFrame(b, true, op, testMask, p)
}

// expectEchoOf sends a message in pieces of chop bytes, and reads it back meanwhile.
func (c *rawClient) expectEchoOf(op wire.Opcode, message, p []byte, chop int) {
	c.t.Helper()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		c.sendChopped(message, chop)
	}()
	c.expect(op, p)
	<-sent
}

func TestLargeMessages(t *testing.T) {
	sizes := []int{64 << 10, 256 << 10, mib, 4 * mib, 8 * mib, 16 * mib}
	eachIO(t, func(t *testing.T, io string) {
		s := startServer(t, hubbub.Config{IO: io, MaxMessageBytes: 16 * mib, SendQueueBytes: 32 * mib})
		for op, section := range map[wire.Opcode]string{wire.Text: "9.1", wire.Binary: "9.2"} {
			for _, n := range sizes {
				t.Run(fmt.Sprintf("%s whole, %d", section, n), func(t *testing.T) {
					c, p := dial(t, s, "/echo"), pattern(n)
					c.expectEchoOf(op, frame(op, true, p), p, len(p)+14)
					c.sendRaw(bye)
					c.expectClose(1000)
				})
			}
		}
		for _, n := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, mib, 4 * mib} {
			t.Run(fmt.Sprintf("9.3 in fragments of %d", n), func(t *testing.T) {
				c, p := dial(t, s, "/echo"), pattern(max(mib, n))
				message := inFragments(wire.Text, p, n)
				c.expectEchoOf(wire.Text, message, p, len(message))
				c.sendRaw(bye)
				c.expectClose(1000)
			})
		}
		for _, chop := range []int{64, 128, 256, 512, 1024, 2048} {
			t.Run(fmt.Sprintf("9.5 in writes of %d", chop), func(t *testing.T) {
				c, p := dial(t, s, "/echo"), pattern(mib)
				c.expectEchoOf(wire.Text, frame(wire.Text, true, p), p, chop)
				c.sendRaw(bye)
				c.expectClose(1000)
			})
		}
		t.Run("10.1 fragments of 1300", func(t *testing.T) {
			c, p := dial(t, s, "/echo"), pattern(65536)
			message := inFragments(wire.Text, p, 1300)
			c.expectEchoOf(wire.Text, message, p, len(message))
			c.sendRaw(bye)
			c.expectClose(1000)
		})
	})
}

func TestManyMessages(t *testing.T) {
	eachIO(t, func(t *testing.T, io string) {
		s := startServer(t, hubbub.Config{IO: io})
		for _, n := range []int{0, 16, 64, 256, 1024, 4096} {
			t.Run(fmt.Sprintf("9.7 a thousand of %d", n), func(t *testing.T) {
				c, p := dial(t, s, "/echo"), pattern(n)
				for range 1000 {
					c.send(wire.Text, true, p)
					c.expect(wire.Text, p)
				}
				go c.sendRaw(bytes.Repeat(frame(wire.Binary, true, p), 1000)) // and as many without waiting
				for range 1000 {
					c.expect(wire.Binary, p)
				}
				c.sendClose(1000, "")
				c.expectClose(1000)
			})
		}
	})
}

// head64 is the header of a frame whose length stands in eight bytes, with nothing behind it.
func head64(first byte, n uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{first, 0xff}, n)
	return append(b, testMask[:]...)
}

func TestTooBigInWhateverShape(t *testing.T) {
	const limit = 65536 // the default
	full := string(pattern(limit))
	half := string(pattern(limit / 2))
	finText, partText, finMore := byte(0x81), byte(0x01), byte(0x80)
	stories := []story{
		{"exactly the limit", [][]byte{text(full), bye}, echoed(line(wire.Text, []byte(full)))},
		{"exactly the limit in two", [][]byte{begin(half), last(half), bye}, echoed(line(wire.Text, []byte(full)))},
		{"exactly the limit, then nothing more", [][]byte{begin(half), more(half), last(""), bye}, echoed(line(wire.Text, []byte(full)))},
		{"one byte over", [][]byte{text(full + "*"), bye}, failed(1009)},
		{"one byte over by the last fragment", [][]byte{begin(half), more(half), last("*"), bye}, failed(1009)},
		{"one byte over by the second of two", [][]byte{begin(half), last(half + "*"), bye}, failed(1009)},
		{"a length in eight bytes", [][]byte{head64(finText, limit+1)}, failed(1009)},
		{"the greatest signed length", [][]byte{head64(finText, 1<<63-1)}, failed(1009)},
		{"the high bit of the length", [][]byte{head64(finText, 1<<63)}, failed(1002)},
		{"all bits of the length", [][]byte{head64(finText, 1<<64-1)}, failed(1002)},
		{"a sum that overflows 64 bits signed", [][]byte{begin(half), head64(finMore, 1<<63-1)}, failed(1009)},
		{"a sum that overflows 32 bits", [][]byte{begin(half), head64(finMore, 1<<32-limit/2)}, failed(1009)},
		{"an unfinished fragment", [][]byte{head64(partText, limit+1)}, failed(1009)},
		{"a message in a fragment does not count to the next", [][]byte{begin(half), last(half), begin(half), last(half), bye},
			echoed(line(wire.Text, []byte(full)), line(wire.Text, []byte(full)))},
		{"what was good comes first", [][]byte{text("good"), head64(finText, 1<<40)}, failed(1009, `text "good"`)},
	}
	conform(t, stories)
}

// The header alone says it: not a byte of the payload comes, nor will.
func TestTooBigIsSaidBeforeThePayload(t *testing.T) {
	over16 := []byte{0x82, 0xfe, 0x04, 0x01}       // 1025, without its masking key
	over64 := []byte{0x82, 0xff, 0, 0, 0, 0, 0, 1} // 65536 or more, two bytes of the length to come
	second := append(begin(strings.Repeat("*", 1000)), 0x80, 0x80|25)
	for name, bad := range map[string][]byte{"two bytes": over16, "eight bytes": over64, "a second fragment": second} {
		t.Run(name, func(t *testing.T) {
			eachIO(t, func(t *testing.T, io string) {
				s := startServer(t, hubbub.Config{IO: io, MaxMessageBytes: 1024})
				c := dial(t, s, "/echo")
				c.sendRaw(bad)
				c.expectClose(1009)
			})
		})
	}
}

func TestTooManyTinyFragments(t *testing.T) {
	ones := func(n int) (b []byte) { // n fragments of one byte each, the first of a text, none the last
		b = begin("a")
		return append(b, bytes.Repeat(more("a"), n-1)...)
	}
	eachIO(t, func(t *testing.T, io string) {
		s := startServer(t, hubbub.Config{IO: io})
		for _, path := range []string{"/echo", "/ws"} {
			c := dial(t, s, path)
			if path == "/ws" {
				c.nextJSON()
			}
			c.sendRaw(ones(4097))
			c.expectClose(1008)
		}

		c := dial(t, s, "/echo")
		c.sendRaw(append(ones(4095), last("a")...))
		c.expect(wire.Text, bytes.Repeat([]byte("a"), 4096))
		c.sendRaw(append(begin(""), bytes.Repeat(more(""), 4095)...))
		c.quiet()
		c.sendRaw(more(""))
		c.expectClose(1008)

		c = dial(t, s, "/echo")
		p := pattern(16 * 4000)
		c.sendRaw(inFragments(wire.Text, p, 15)) // 4267 of them, with a mean of 15
		c.expectClose(1008)
	})
}

func TestClaimedLengthCostsNoMemory(t *testing.T) {
	const conns, claim = 200, 60 << 10
	eachIO(t, func(t *testing.T, io string) {
		s := startServer(t, hubbub.Config{IO: io})
		var clients []*rawClient
		for range conns {
			c := dial(t, s, "/echo")
			c.quiet()
			clients = append(clients, c)
		}
		before := heap()
		for _, c := range clients {
			c.sendRaw(append(ping("x"), 0x82, 0xfe, claim>>8, claim&0xff, 1, 2, 3, 4, 0))
			c.expect(wire.Pong, []byte("x"))
		}
		if grew := heap() - before; grew > conns*2048 {
			t.Errorf("%d connections that announced %d bytes grew the heap by %d", conns, claim, grew)
		}
	})
}

// heap is how many bytes live.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A connection that is being read fast can't hold up the turn: others of its worker are served meanwhile.
func TestGreedyEchoStarvesNobody(t *testing.T) {
	eachIO(t, func(t *testing.T, io string) {
		s := startServer(t, hubbub.Config{IO: io, Workers: 1})
		greedy, other := dial(t, s, "/echo"), dial(t, s, "/echo")
		const rounds = 200
		burst := bytes.Repeat(frame(wire.Binary, true, pattern(1000)), 1000)
		stop := make(chan struct{})
		done := make(chan struct{}, 2)
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if greedy.trySend(burst) != nil {
					return
				}
			}
		}()
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				if _, _, err := greedy.tryNext(); err != nil {
					return
				}
			}
		}()
		var worst time.Duration
		for range rounds { // each has an answer while the greedy one goes on
			began := time.Now()
			other.quiet()
			worst = max(worst, time.Since(began))
		}
		close(stop)
		greedy.reset()
		<-done
		<-done
		t.Logf("the other client waited %s at worst", worst)
	})
}
