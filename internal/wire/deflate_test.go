package wire

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"example.com/hubbub/internal/wsclient"
)

// squeeze compresses as RFC 7692 7.2.1 says, by the standard library.
func squeeze(t testing.TB, s string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, s)
	w.Flush()
	out, ok := bytes.CutSuffix(b.Bytes(), []byte(flushed))
	if !ok {
		t.Fatal("the flush wrote no empty block")
	}
	return string(out)
}

// sample is JSON-like text of n bytes.
func sample(n int, rnd *rand.Rand) string {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, `{"id":%d,"name":"%s","value":%.3f},`, rnd.IntN(1e6), []string{"alice", "bob", "temperature", "Жанна"}[rnd.IntN(4)], rnd.Float64())
	}
	return strings.ToValidUTF8(b.String()[:n], "")
}

func noise(n int, rnd *rand.Rand) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return string(b)
}

// The examples of RFC 7692 7.2.3, and what else a peer may do.
func TestCompressedMessages(t *testing.T) {
	const hello = "\xf2\x48\xcd\xc9\xc9\x07\x00"
	long := strings.Repeat("Hello, Ж! ", 300)
	z := squeeze(t, long)
	var windowed Inflater
	for _, c := range []struct {
		name   string
		stream []byte
		want   []string
	}{
		{"one block (7.2.3.1)", final(Text|Deflated, hello), []string{`text "Hello"`}},
		{"fragments (7.2.3.1)", join(part(Text|Deflated, hello[:3]), final(Continuation, hello[3:])), []string{`text "Hello"`}},
		{"a ping between fragments", join(part(Text|Deflated, hello[:3]), final(Ping, "p"), final(Continuation, hello[3:])), []string{`ping "p"`, `text "Hello"`}},
		{"an empty fragment at both ends", join(part(Text|Deflated, ""), part(Continuation, hello), final(Continuation, "")), []string{`text "Hello"`}},
		{"not compressed (7.2.3.3)", final(Text|Deflated, "\x00\x05\x00\xfa\xffHello\x00"), []string{`text "Hello"`}},
		{"BFINAL set (7.2.3.4)", final(Text|Deflated, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), []string{`text "Hello"`}},
		{"BFINAL set and more behind it", final(Text|Deflated, "\xf3\x48\xcd\xc9\xc9\x07\x00"+hello), []string{`text "HelloHello"`}},
		{"two blocks (7.2.3.5)", final(Text|Deflated, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), []string{`text "Hello"`}},
		{"an empty message (7.2.3.6)", final(Text|Deflated, "\x00"), []string{`text ""`}},
		{"an empty fixed block", final(Binary|Deflated, "\x02\x00"), []string{`binary ""`}},
		{"many empty blocks", final(Binary|Deflated, strings.Repeat("\x00\x00\x00\xff\xff", 100)+"\x00"), []string{`binary ""`}},
		{"next to plain messages", join(final(Text, "a"), final(Text|Deflated, hello), final(Binary, "b"), final(Text|Deflated, hello)),
			[]string{`text "a"`, `text "Hello"`, `binary "b"`, `text "Hello"`}},
		{"a long text", final(Text|Deflated, z), []string{line(Event{Op: Text, Payload: []byte(long)})}},
		{"a long text in pieces that cut runes", join(part(Text|Deflated, z[:5]), part(Continuation, z[5:11]), final(Continuation, z[11:])), []string{line(Event{Op: Text, Payload: []byte(long)})}},

		{"text that is not UTF-8", final(Text|Deflated, squeeze(t, "a\xff")), []string{"! 1007"}},
		{"text that ends within a rune", final(Text|Deflated, squeeze(t, "\xd0")), []string{"! 1007"}},
		{"binary that is not UTF-8", final(Binary|Deflated, squeeze(t, "a\xff")), []string{`binary "a\xff"`}},
		{"BFINAL set and no padding", final(Text|Deflated, "\xf3\x48\xcd\xc9\xc9\x07\x00"), []string{"! 1007"}},
		{"an empty payload, which 7.2.3.6 would have be of one byte", final(Binary|Deflated, ""), []string{"! 1007"}},
		{"no deflate", final(Binary|Deflated, "\xff\xff\xff"), []string{"! 1007"}},
		{"a reserved block type", final(Binary|Deflated, "\x06"), []string{"! 1007"}},
		{"cut within a block", final(Text|Deflated, z[:len(z)/2]), []string{"! 1007"}},
		{"a stored block whose length is broken", final(Binary|Deflated, "\x00\x05\x00\xfa\xfeHello\x00"), []string{"! 1007"}},
		{"a stored block that ends in what we append", final(Binary|Deflated, "\x00\x06\x00\xf9\xff"), []string{"! 1007"}},
		{"a reference to before the message", final(Text|Deflated, "\xf2\x00\x11\x00\x00"), []string{"! 1007"}},
		{"after a fault nothing", join(final(Binary|Deflated, "\xff"), final(Text|Deflated, hello)), []string{"! 1007"}},

		{"RSV1 on a continuation", join(part(Text|Deflated, hello[:3]), final(Continuation|Deflated, hello[3:])), []string{"! 1002"}},
		{"RSV1 on a continuation of a plain message", join(part(Text, "a"), final(Continuation|Deflated, "b")), []string{"! 1002"}},
		{"RSV1 on a ping", final(Ping|Deflated, "p"), []string{"! 1002"}},
		{"RSV1 on a pong", final(Pong|Deflated, ""), []string{"! 1002"}},
		{"RSV1 on a close", final(Close|Deflated, "\x03\xe8"), []string{"! 1002"}},
		{"RSV1 on a reserved opcode", final(3|Deflated, ""), []string{"! 1002"}},
		{"RSV2", final(Text|0x20, ""), []string{"! 1002"}},
		{"RSV3", final(Text|0x10, ""), []string{"! 1002"}},
		{"RSV1 and RSV2", final(Text|Deflated|0x20, hello), []string{"! 1002"}},
		{"a new message inside a compressed one", join(part(Text|Deflated, hello), final(Text|Deflated, hello)), []string{"! 1002"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, z := range []*Inflater{{}, &windowed} {
				for _, chunks := range [][][]byte{{c.stream}, single(c.stream)} {
					if got := receiveBy(t, z, testLimit, chunks...); !slices.Equal(got, c.want) {
						t.Fatalf("got %.200q\nwant %.200q", got, c.want)
					}
				}
			}
			if strings.Contains(c.name, "plain") {
				return
			}
			if got := receive(t, testLimit, c.stream); got[len(got)-1] != "! 1002" {
				t.Errorf("where it was not negotiated: %.200q", got)
			}
		})
	}
}

func TestInflatedBytesAreLimited(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, limit := range []int{0, 1, 100, 65536} {
		for name, fill := range map[string]string{"zeros": strings.Repeat("\x00", limit+1), "noise": noise(limit+1, rnd)} {
			fits, over := final(Binary|Deflated, squeeze(t, fill[:limit])), final(Binary|Deflated, squeeze(t, fill))
			want := []string{line(Event{Op: Binary, Payload: []byte(fill[:limit])})}
			if got := receiveBy(t, new(Inflater), limit, fits); !slices.Equal(got, want) {
				t.Errorf("%s, exactly %d bytes: %.100q", name, limit, got)
			}
			if got := receiveBy(t, new(Inflater), limit, over); !slices.Equal(got, []string{"! 1009"}) {
				t.Errorf("%s, %d bytes and one: %.100q", name, limit, got)
			}
		}
	}
	// The compressed bytes are limited too: as soon as a header claims too many.
	head := final(Binary|Deflated, strings.Repeat("\x00", maxDeflated(1000)+1))[:4]
	if got := receiveBy(t, new(Inflater), 1000, head); !slices.Equal(got, []string{"! 1009"}) {
		t.Errorf("a header that claims too much: %q", got)
	}
}

// 64 KiB that would become 64 MiB and more cost next to nothing. The bound on compressed bytes is of the whole message,
// whatever they inflate to and however many fragments bring them.
func TestCompressedFragmentsAreLimitedTogether(t *testing.T) {
	const limit = 1000
	empty := "\x00\x00\x00\xff\xff" // a block of nothing
	for _, size := range []int{1, 20, 200} {
		fragment := strings.Repeat(empty, size)
		fits := maxDeflated(limit) / len(fragment)
		stream := part(Binary|Deflated, fragment)
		for range fits - 1 {
			stream = join(stream, part(Continuation, fragment))
		}
		if got, want := receiveBy(t, new(Inflater), limit, stream, final(Continuation, "\x00")), []string{`binary ""`}; !slices.Equal(got, want) {
			t.Errorf("%d fragments of %d bytes: %q", fits, len(fragment), got)
		}
		head := part(Continuation, fragment)[:4]
		if got := receiveBy(t, new(Inflater), limit, stream, head); !slices.Equal(got, []string{"! 1009"}) {
			t.Errorf("a header that claims one of %d bytes more than %d: %q", len(fragment), fits, got)
		}
	}
}

func TestBombCostsLittle(t *testing.T) {
	bomb := final(Binary|Deflated, squeeze(t, strings.Repeat("\x00", 65<<20))) // deflate gains 1,032 at most
	if len(bomb) < 64<<10 || len(bomb) > maxDeflated(64<<10) {
		t.Fatalf("the bomb has only %d bytes", len(bomb))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var z Inflater
	for i := range 2 {
		var r Reader
		_, _, ok, err := r.Next(bytes.Clone(bomb), 64<<10, &z)
		if ok || err != errTooBig {
			t.Fatal(i, ok, err)
		}
	}
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc - 2*uint64(len(bomb)); spent > 512<<10 {
		t.Errorf("two bombs of %d bytes took %d bytes", len(bomb), spent)
	}
}

// The window's bounds hold, by a decoder that measures them, and three decoders find the same message.
func TestDeflateKeepsToItsWindow(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var out Deflater
	var in Inflater
	for bits := uint8(minBits); bits <= maxBits; bits++ {
		farthest := 0
		for _, n := range []int{1, 16, 255, 257, 512, 4096, 32768, 65536} {
			far := noise(1<<bits, rnd) // found again just inside the window, and just outside
			for name, s := range map[string]string{"text": sample(n, rnd), "noise": noise(n, rnd), "zeros": strings.Repeat("\x00", n),
				"inside": far[:1<<bits-20] + far, "outside": far + far[:1] + far} {
				p := slices.Clone(out.deflate([]byte(s), bits, nil))
				var by puff
				if err := by.inflate([]byte(string(p) + flushed)); err != nil || string(by.out) != s {
					t.Fatalf("%d bits, %s of %d: puff: %v", bits, name, n, err)
				}
				farthest = max(farthest, by.farthest)
				if got, err := in.inflate(p, len(s)); err != nil || string(got) != s {
					t.Fatalf("%d bits, %s of %d: inflate: %v", bits, name, n, err)
				}
				std := flate.NewReader(strings.NewReader(string(p) + flushed + last))
				if got, err := io.ReadAll(std); err != nil || string(got) != s {
					t.Fatalf("%d bits, %s of %d: compress/flate: %v", bits, name, n, err)
				}
			}
		}
		if farthest > 1<<bits || farthest < 1<<bits*3/4 {
			t.Errorf("%d bits reach back %d bytes", bits, farthest)
		}
	}
}

// With takeover every message refers to those before it, and both ends agree on how far.
func TestContextIsTakenOver(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	var out Deflater
	var in Inflater
	for bits := uint8(minBits); bits <= maxBits; bits++ {
		sent, got := NewWindow(bits), NewPeerWindow(bits)
		var by puff
		again := sample(1<<bits-60, rnd)[:min(1<<bits-60, 4000)]
		for i := range 60 {
			s := sample(1+rnd.IntN(3000), rnd)
			switch i % 10 {
			case 7:
				s = noise(1000, rnd) // not sent compressed, so not in the window
			case 8:
				s = sample(70000, rnd)
			case 9:
				s = again
			}
			p, ok := out.Deflate([]byte(s), bits, sent)
			if !ok {
				continue
			}
			by.farthest = 0
			by.out = slices.Clone(by.out)
			start := len(by.out)
			if err := by.inflate([]byte(string(p) + flushed)); err != nil || string(by.out[start:]) != s {
				t.Fatalf("%d bits, message %d: puff: %v", bits, i, err)
			}
			if by.farthest > 1<<bits {
				t.Fatalf("%d bits, message %d reaches back %d bytes", bits, i, by.farthest)
			}
			in.Window = got
			p = slices.Clone(p)
			if b, err := in.inflate(p, len(s)); err != nil || string(b) != s {
				t.Fatalf("%d bits, message %d: %v", bits, i, err)
			} else {
				got.add(b)
			}
			if cap(sent.b) > 1<<takeoverBits || cap(got.b) > 1<<max(bits, 9) {
				t.Fatalf("%d bits: windows of %d and %d bytes", bits, cap(sent.b), cap(got.b))
			}
			if p2, _ := out.Deflate([]byte(s), bits, sent); i%10 == 9 && bits > 11 && len(p2) > 100 {
				t.Fatalf("%d bits: the same %d bytes again took %d", bits, len(s), len(p2))
			} else if b, err := in.inflate(slices.Clone(p2), len(s)); p2 != nil && (err != nil || string(b) != s) {
				t.Fatalf("%d bits, message %d again: %v", bits, i, err)
			} else if p2 != nil {
				got.add(b)
				by.out = append(by.out, s...)
			}
		}
	}
}

// The peer's messages in one stream of deflate, as zlib makes them.
func TestPeersContextIsTakenOver(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	z := Inflater{Window: NewPeerWindow(15)}
	var r Reader
	for i := range 200 {
		s := sample(rnd.IntN(2000), rnd)
		b.Reset()
		io.WriteString(w, s)
		w.Flush()
		p := bytes.TrimSuffix(b.Bytes(), []byte(flushed))
		ev, _, ok, err := r.Next(wsclient.Append(nil, true, wsclient.Text|wsclient.Deflated, testKey, p), testLimit, &z)
		if !ok || err != nil || string(ev.Payload) != s {
			t.Fatal(i, ok, err)
		}
	}
}

// A client that has named a window of 8 bits may refer back as far as zlib does then, which takes one of 9.
func TestThePeersSmallestWindowIsZlibs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	letters := make([]byte, 350) // at random: nothing repeats itself
	for i := range letters {
		letters[i] = byte('!' + rnd.IntN(90))
	}
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	z := Inflater{Window: NewPeerWindow(8)}
	var r Reader
	for _, s := range []string{string(letters), string(letters[:50])} {
		b.Reset()
		io.WriteString(w, s)
		w.Flush()
		p := bytes.TrimSuffix(b.Bytes(), []byte(flushed))
		ev, _, ok, err := r.Next(final(Text|Deflated, string(p)), testLimit, &z)
		if !ok || err != nil || string(ev.Payload) != s {
			t.Fatal(len(s), ok, err)
		}
	}
}

func TestInflateTakesNoMemoryAgain(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 10))
	frame := final(Text|Deflated, squeeze(t, sample(16<<10, rnd)))
	p := make([]byte, len(frame))
	var z Inflater
	var r Reader
	if n := testing.AllocsPerRun(100, func() {
		copy(p, frame)
		if _, _, ok, err := r.Next(p, testLimit, &z); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}); n > 0 {
		t.Errorf("%v allocations a message", n)
	}
	var d Deflater
	s := []byte(sample(16<<10, rnd))
	d.Deflate(s, 15, nil)
	if n := testing.AllocsPerRun(100, func() { d.Deflate(s, 15, nil) }); n > 0 {
		t.Errorf("%v allocations to deflate", n)
	}
}
