package wire

import (
	"bytes"
	"strings"
	"testing"
)

// benchNext parses one frame again and again; each time it has to be masked
// anew, so the time of one copy of the frame is in the figure.
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
}

func BenchmarkAppendFrame(b *testing.B) {
	payload := bytes.Repeat([]byte("x"), 200)
	b.Run("into room", func(b *testing.B) {
		dst := make([]byte, 0, 1024)
		b.ReportAllocs()
		for b.Loop() {
			dst = AppendFrame(dst[:0], Text, payload)
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			AppendFrame(nil, Text, payload)
		}
	})
}
