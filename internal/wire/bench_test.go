package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// benchNext parses one frame again and again; each time it has to be masked anew, so the time of one copy of the frame
// is in the figure.
func benchNext(b *testing.B, frame []byte, pieces int) {
	var r Reader
	p := make([]byte, len(frame))
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		copy(p, frame)
		for i := range pieces {
			piece := p[i*len(p)/pieces : (i+1)*len(p)/pieces]
			if _, _, ok, err := r.Next(piece, testLimit, nil); ok != (i == pieces-1) || err != nil {
				b.Fatal(ok, err)
			}
		}
	}
}

func BenchmarkNext(b *testing.B) {
	small, ascii, cyrillic := final(Text, strings.Repeat("x", 60)), final(Text, strings.Repeat("x", 16<<10)), final(Text, strings.Repeat("Ж", 8<<10))
	binary := final(Binary, strings.Repeat("x", 16<<10))
	b.Run("ping", func(b *testing.B) { benchNext(b, final(Ping, ""), 1) })
	b.Run("text of 60 bytes", func(b *testing.B) { benchNext(b, small, 1) })
	b.Run("text of 60 bytes in 2 pieces", func(b *testing.B) { benchNext(b, small, 2) })
	b.Run("text of 16 KiB", func(b *testing.B) { benchNext(b, ascii, 1) })
	b.Run("Cyrillic of 16 KiB", func(b *testing.B) { benchNext(b, cyrillic, 1) })
	b.Run("binary of 16 KiB", func(b *testing.B) { benchNext(b, binary, 1) })
	b.Run("text of 16 KiB in 12 pieces", func(b *testing.B) { benchNext(b, ascii, 12) })
	quarter := strings.Repeat("x", 4<<10)
	fragments := join(part(Text, quarter), part(Continuation, quarter), part(Continuation, quarter), final(Continuation, quarter))
	b.Run("text of 16 KiB in 4 fragments", func(b *testing.B) { benchNext(b, fragments, 1) })
}

// What a payload's length and its place in memory do to Mask; BenchmarkMask has it beside what it was chosen from.
func BenchmarkUnmask(b *testing.B) {
	space := make([]byte, 64<<10+8)
	for _, size := range []int{8, 32, 125, 512, 4 << 10, 16 << 10, 64 << 10} {
		for _, at := range []int{0, 3} {
			b.Run(fmt.Sprintf("size=%d/at=%d", size, at), func(b *testing.B) {
				p := space[at : at+size]
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					Mask(p, testKey, at)
				}
			})
		}
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	for _, size := range []int{60, 200, 16 << 10} {
		payload := bytes.Repeat([]byte("x"), size)
		b.Run(fmt.Sprintf("%d bytes, into room", size), func(b *testing.B) {
			dst := make([]byte, 0, MaxHeader+size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				dst = AppendFrame(dst[:0], Text, payload)
			}
		})
		b.Run(fmt.Sprintf("%d bytes, new", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				AppendFrame(nil, Text, payload)
			}
		})
	}
}

// The figures of docs/decisions/0004-compression.md.
func BenchmarkDeflate(b *testing.B) {
	for _, n := range []int{512, 2 << 10, 16 << 10, 64 << 10} {
		p := []byte(sample(n, rand.New(rand.NewPCG(1, 2))))
		run := func(name string, bits uint8, w *Window) {
			b.Run(fmt.Sprintf("%d bytes, %s", n, name), func(b *testing.B) {
				var z Deflater
				size := 0
				b.ReportAllocs()
				for b.Loop() {
					size = len(z.deflate(p, bits, w.bytes()))
				}
				b.ReportMetric(float64(size), "B/msg")
			})
		}
		for _, bits := range []uint8{8, 10, 12, 15} {
			run(fmt.Sprintf("%d bits", bits), bits, nil)
		}
		w := NewWindow(15)
		w.add([]byte(sample(8<<10, rand.New(rand.NewPCG(3, 4)))))
		run("in context", 15, w)
	}
}

func BenchmarkInflate(b *testing.B) {
	for _, n := range []int{512, 2 << 10, 16 << 10, 64 << 10} {
		frame := final(Text|Deflated, squeeze(b, sample(n, rand.New(rand.NewPCG(1, 2)))))
		run := func(name string, w *Window) {
			b.Run(fmt.Sprintf("%d bytes%s", n, name), func(b *testing.B) {
				var r Reader
				z := Inflater{Window: w}
				p := make([]byte, len(frame))
				b.ReportAllocs()
				for b.Loop() {
					copy(p, frame)
					if _, _, ok, err := r.Next(p, testLimit, &z); !ok || err != nil {
						b.Fatal(ok, err)
					}
				}
			})
		}
		run("", nil)
		for _, bits := range []uint8{10, 15} {
			run(fmt.Sprintf(", in a context of %d bits", bits), NewPeerWindow(bits))
		}
	}
}
