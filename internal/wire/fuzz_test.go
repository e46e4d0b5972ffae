package wire

import (
	"bytes"
	"compress/flate"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// However the bytes are cut, they give the same events and the same fault.
func FuzzReader(f *testing.F) {
	for _, stream := range [][]byte{
		final(Text, "Hello"),
		final(Text, strings.Repeat("Ж", 300)),
		final(Text, "\xf4\x90"),
		join(part(Text, "\xf0\x9f"), final(Ping, "ping"), final(Continuation, "\x98\x80")),
		join(part(Binary, strings.Repeat("x", 200)), part(Continuation, ""), final(Continuation, "y"), final(Close, "\x03\xe8bye")),
		join(final(Pong, ""), final(Close, "")),
		{0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4},
		{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4},
		{0x82, 0xfe, 0, 125},
		{0x81, 0x05},
		final(Text|Deflated, "\xf2\x48\xcd\xc9\xc9\x07\x00"),
		final(Text|Deflated, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"),
		join(part(Text|Deflated, "\xf2\x48\x05\x00\x00\x00\xff\xff"), final(Ping, ""), final(Continuation, "\xca\xc9\xc9\x07\x00")),
		join(final(Binary|Deflated, squeeze(f, strings.Repeat("abcd", 1000))), final(Binary|Deflated, "\x06")),
	} {
		f.Add(stream, uint64(len(stream)), uint32(testLimit))
		f.Add(stream, uint64(1), uint32(100))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, limit uint32) {
		limit %= 4 * testLimit
		stream = stream[:min(len(stream), 4096)]
		rnd := rand.New(rand.NewPCG(seed, 0))
		for _, inflater := range []func() *Inflater{
			func() *Inflater { return nil },
			func() *Inflater { return new(Inflater) },
			func() *Inflater { return &Inflater{Window: NewPeerWindow(9)} },
		} {
			want := receiveBy(t, inflater(), int(limit), stream)
			if got := receiveBy(t, inflater(), int(limit), single(stream)...); !slices.Equal(got, want) {
				t.Fatalf("byte by byte %q, whole %q", got, want)
			}
			for range 4 {
				if got := receiveBy(t, inflater(), int(limit), cuts(stream, rnd)...); !slices.Equal(got, want) {
					t.Fatalf("cut %q, whole %q", got, want)
				}
			}
		}
	})
}

// Whatever a peer sends as compressed is what the standard library makes of it, or a fault where that finds one; and
// what we compress, in any window and behind any history, three decoders undo.
func FuzzInflate(f *testing.F) {
	for _, p := range []string{"", "\x00", "\xf2\x48\xcd\xc9\xc9\x07\x00", "\x00\x05\x00\xfa\xffHello\x00", "\x02\x00", "\x06", squeeze(f, strings.Repeat("abcd", 1000))} {
		f.Add([]byte(p), uint8(len(p)))
	}
	var in, out = new(Inflater), new(Deflater)
	f.Fuzz(func(t *testing.T, p []byte, bits uint8) {
		const limit = 1 << 16
		in.Window = nil
		got, fault := in.inflate(p, limit)
		src := strings.NewReader(string(p) + flushed + last)
		want, err := io.ReadAll(flate.NewReader(src))
		switch {
		case err == nil && src.Len() >= len(last): // BFINAL: that decoder stops there, and we go on
		case fault == errTooBig:
			if len(want) <= limit {
				t.Fatalf("too big, and %d bytes by compress/flate", len(want))
			}
		case err == nil && src.Len() == 0:
			if fault != nil || !bytes.Equal(got, want) {
				t.Fatalf("%x: %v and %d bytes, by compress/flate %d bytes", p, fault, len(got), len(want))
			}
		case fault != errDeflate:
			t.Fatalf("%x: %v, by compress/flate %v", p, fault, err)
		}

		bits = minBits + bits%(maxBits-minBits+1)
		half := len(p) / 2
		sent, received := NewWindow(bits), NewPeerWindow(bits)
		for _, p := range [][]byte{p[:half], p[half:], p, slices.Concat(p, p, p)} {
			z, ok := out.Deflate(p, bits, sent)
			if !ok {
				continue
			}
			in.Window = received
			var ev Event
			if fault := in.message(&ev, Binary, z, len(p)); fault != nil || !bytes.Equal(ev.Payload, p) {
				t.Fatalf("%x comes back as %x: %v", p, ev.Payload, fault)
			}
		}
		z := string(out.deflate(p, bits, nil)) + flushed
		var by puff
		if err := by.inflate([]byte(z)); err != nil || !bytes.Equal(by.out, p) || by.farthest > 1<<bits {
			t.Fatalf("puff: %v, as far back as %d", err, by.farthest)
		}
		if std, err := io.ReadAll(flate.NewReader(strings.NewReader(z + last))); err != nil || !bytes.Equal(std, p) {
			t.Fatalf("compress/flate: %v", err)
		}
	})
}
