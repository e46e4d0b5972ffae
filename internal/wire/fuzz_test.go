package wire

import (
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
	} {
		f.Add(stream, uint64(len(stream)), uint32(testLimit))
		f.Add(stream, uint64(1), uint32(100))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, limit uint32) {
		limit %= 4 * testLimit
		stream = stream[:min(len(stream), 4096)]
		want := receive(t, int(limit), stream)
		if got := receive(t, int(limit), single(stream)...); !slices.Equal(got, want) {
			t.Fatalf("byte by byte %q, whole %q", got, want)
		}
		rnd := rand.New(rand.NewPCG(seed, 0))
		for range 4 {
			if got := receive(t, int(limit), cuts(stream, rnd)...); !slices.Equal(got, want) {
				t.Fatalf("cut %q, whole %q", got, want)
			}
		}
	})
}
