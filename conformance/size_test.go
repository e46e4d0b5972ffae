package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
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

// expectEchoOf sends a message in pieces of chop bytes, and reads it back meanwhile.
func expectEchoOf(c *rawtest.Client, op wsclient.Opcode, message, p []byte, chop int) {
	c.T.Helper()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		c.SendChopped(message, chop)
	}()
	c.Expect(op, p)
	<-sent
}

func TestLargeMessages(t *testing.T) {
	sizes := []int{64 << 10, 256 << 10, mib, 4 * mib, 8 * mib, 16 * mib}
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, MaxMessageBytes: 16 * mib, SendQueueBytes: 32 * mib})
		for op, section := range map[wsclient.Opcode]string{wsclient.Text: "9.1", wsclient.Binary: "9.2"} {
			for _, n := range sizes {
				t.Run(fmt.Sprintf("%s whole, %d", section, n), func(t *testing.T) {
					c, p := rawtest.Dial(t, s, "/echo"), pattern(n)
					expectEchoOf(c, op, rawtest.Frame(op, true, p), p, len(p)+14)
					c.SendRaw(bye)
					c.ExpectClose(1000)
				})
			}
		}
		for _, n := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, mib, 4 * mib} {
			t.Run(fmt.Sprintf("9.3 in fragments of %d", n), func(t *testing.T) {
				c, p := rawtest.Dial(t, s, "/echo"), pattern(max(mib, n))
				message := rawtest.InFragments(wsclient.Text, p, n)
				expectEchoOf(c, wsclient.Text, message, p, len(message))
				c.SendRaw(bye)
				c.ExpectClose(1000)
			})
		}
		for _, chop := range []int{64, 128, 256, 512, 1024, 2048} {
			t.Run(fmt.Sprintf("9.5 in writes of %d", chop), func(t *testing.T) {
				c, p := rawtest.Dial(t, s, "/echo"), pattern(mib)
				expectEchoOf(c, wsclient.Text, rawtest.Frame(wsclient.Text, true, p), p, chop)
				c.SendRaw(bye)
				c.ExpectClose(1000)
			})
		}
		t.Run("10.1 fragments of 1300", func(t *testing.T) {
			c, p := rawtest.Dial(t, s, "/echo"), pattern(65536)
			message := rawtest.InFragments(wsclient.Text, p, 1300)
			expectEchoOf(c, wsclient.Text, message, p, len(message))
			c.SendRaw(bye)
			c.ExpectClose(1000)
		})
	})
}

func TestManyMessages(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		for _, n := range []int{0, 16, 64, 256, 1024, 4096} {
			t.Run(fmt.Sprintf("9.7 a thousand of %d", n), func(t *testing.T) {
				c, p := rawtest.Dial(t, s, "/echo"), pattern(n)
				for range 1000 {
					c.Send(wsclient.Text, true, p)
					c.Expect(wsclient.Text, p)
				}
				go c.SendRaw(bytes.Repeat(rawtest.Frame(wsclient.Binary, true, p), 1000)) // and as many without waiting
				for range 1000 {
					c.Expect(wsclient.Binary, p)
				}
				c.SendClose(1000, "")
				c.ExpectClose(1000)
			})
		}
	})
}

// head64 is the header of a frame whose length stands in eight bytes, with nothing behind it.
func head64(first byte, n uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{first, 0xff}, n)
	return append(b, rawtest.Mask[:]...)
}

func TestTooBigInWhateverShape(t *testing.T) {
	const limit = 65536 // the default
	full := string(pattern(limit))
	half := string(pattern(limit / 2))
	finText, partText, finMore := byte(0x81), byte(0x01), byte(0x80)
	stories := []story{
		{"exactly the limit", [][]byte{text(full), bye}, echoed(line(wsclient.Text, []byte(full)))},
		{"exactly the limit in two", [][]byte{begin(half), last(half), bye}, echoed(line(wsclient.Text, []byte(full)))},
		{"exactly the limit, then nothing more", [][]byte{begin(half), more(half), last(""), bye}, echoed(line(wsclient.Text, []byte(full)))},
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
			echoed(line(wsclient.Text, []byte(full)), line(wsclient.Text, []byte(full)))},
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
			rawtest.EachIO(t, func(t *testing.T, io string) {
				s := rawtest.Start(t, hubbub.Config{IO: io, MaxMessageBytes: 1024})
				c := rawtest.Dial(t, s, "/echo")
				c.SendRaw(bad)
				c.ExpectClose(1009)
			})
		})
	}
}

func TestTooManyTinyFragments(t *testing.T) {
	ones := func(n int) (b []byte) { // n fragments of one byte each, the first of a text, none the last
		b = begin("a")
		return append(b, bytes.Repeat(more("a"), n-1)...)
	}
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		for _, path := range []string{"/echo", "/ws"} {
			c := rawtest.Dial(t, s, path)
			if path == "/ws" {
				c.NextJSON()
			}
			c.SendRaw(ones(4097))
			c.ExpectClose(1008)
		}

		c := rawtest.Dial(t, s, "/echo")
		c.SendRaw(append(ones(4095), last("a")...))
		c.Expect(wsclient.Text, bytes.Repeat([]byte("a"), 4096))
		c.SendRaw(append(begin(""), bytes.Repeat(more(""), 4095)...))
		c.Quiet()
		c.SendRaw(more(""))
		c.ExpectClose(1008)

		c = rawtest.Dial(t, s, "/echo")
		p := pattern(16 * 4000)
		c.SendRaw(rawtest.InFragments(wsclient.Text, p, 15)) // 4267 of them, with a mean of 15
		c.ExpectClose(1008)
	})
}

func TestClaimedLengthCostsNoMemory(t *testing.T) {
	const conns, claim = 200, 60 << 10
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		var clients []*rawtest.Client
		for range conns {
			c := rawtest.Dial(t, s, "/echo")
			c.Quiet()
			clients = append(clients, c)
		}
		before := heap()
		for _, c := range clients {
			c.SendRaw(append(ping("x"), 0x82, 0xfe, claim>>8, claim&0xff, 1, 2, 3, 4, 0))
			c.Expect(wsclient.Pong, []byte("x"))
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
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, Workers: 1})
		greedy, other := rawtest.Dial(t, s, "/echo"), rawtest.Dial(t, s, "/echo")
		const rounds = 200
		burst := bytes.Repeat(rawtest.Frame(wsclient.Binary, true, pattern(1000)), 1000)
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
				if greedy.TrySend(burst) != nil {
					return
				}
			}
		}()
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				if _, _, err := greedy.TryNext(); err != nil {
					return
				}
			}
		}()
		var worst time.Duration
		for range rounds { // each has an answer while the greedy one goes on
			began := time.Now()
			other.Quiet()
			worst = max(worst, time.Since(began))
		}
		close(stop)
		greedy.Reset()
		<-done
		<-done
		t.Logf("the other client waited %s at worst", worst)
	})
}
