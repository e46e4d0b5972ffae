package wire

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// maskPlain is the RFC's sentence (5.3).
func maskPlain(b []byte, key [4]byte, pos int) {
	for i := range b {
		b[i] ^= key[(pos+i)%4]
	}
}

func TestMaskAtEveryLengthAndPlace(t *testing.T) {
	original := make([]byte, 5000)
	for i := range original {
		original[i] = byte(i * 7)
	}
	sizes := []int{1000, 1023, 1024, 1025, 4096, 4999}
	for n := range 300 {
		sizes = append(sizes, n)
	}
	for _, n := range sizes {
		for start := range 8 {
			if start+n > len(original) {
				continue
			}
			for pos := range 9 {
				got, want := bytes.Clone(original), bytes.Clone(original)
				ascii := Mask(got[start:start+n], testKey, pos)
				maskPlain(want[start:start+n], testKey, pos)
				if !bytes.Equal(got, want) {
					t.Fatalf("%d bytes from %d at position %d differ", n, start, pos)
				}
				if plain := !slices.ContainsFunc(want[start:start+n], func(c byte) bool { return c >= 0x80 }); ascii != plain {
					t.Fatalf("%d bytes from %d at position %d are ASCII: %v, Mask says %v", n, start, pos, plain, ascii)
				}
			}
		}
	}
}

// One byte that isn't ASCII is seen wherever it stands.
func TestMaskSeesWhatIsNotASCII(t *testing.T) {
	for _, n := range []int{1, 7, 8, 63, 64, 100, 255, 256, 300, 384, 1000} {
		text := bytes.Repeat([]byte("a"), n)
		for i := -1; i < n; i++ {
			b := bytes.Clone(text)
			if i >= 0 {
				b[i] |= 0x80
			}
			maskPlain(b, testKey, 0)
			if ascii := Mask(b, testKey, 0); ascii != (i < 0) {
				t.Fatalf("%d bytes, other than ASCII at %d: Mask says %v", n, i, ascii)
			}
		}
	}
}

// The words alone do what the vectors do.
func TestMaskWordsAreTheVectorsTwin(t *testing.T) {
	b := make([]byte, 4099)
	for i := range b {
		b[i] = byte(i*i>>3) & 0x7f
	}
	for _, n := range []int{256, 257, 384, 1000, 4096, 4099} {
		for _, c := range []byte{0, 0x80} {
			b[n/2] = c
			wide, words := bytes.Clone(b[:n]), bytes.Clone(b[:n])
			ascii := Mask(wide, [4]byte{1, 2, 3, 4}, 0)
			seen := maskWords(words, 0x0403_0201_0403_0201)
			if !bytes.Equal(wide, words) || ascii != (seen&high == 0) {
				t.Errorf("%d bytes differ", n)
			}
		}
	}
}

// The other ways to mask that were measured; see BenchmarkMask.

func mask8(b []byte, key [4]byte) {
	k := binary.LittleEndian.Uint32(key[:])
	w := uint64(k)<<32 | uint64(k)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^w)
		b = b[8:]
	}
	maskPlain(b, key, 0)
}

func mask32(b []byte, key [4]byte) {
	k := binary.LittleEndian.Uint32(key[:])
	w := uint64(k)<<32 | uint64(k)
	for len(b) >= 32 {
		q := b[:32:32]
		binary.LittleEndian.PutUint64(q, binary.LittleEndian.Uint64(q)^w)
		binary.LittleEndian.PutUint64(q[8:], binary.LittleEndian.Uint64(q[8:])^w)
		binary.LittleEndian.PutUint64(q[16:], binary.LittleEndian.Uint64(q[16:])^w)
		binary.LittleEndian.PutUint64(q[24:], binary.LittleEndian.Uint64(q[24:])^w)
		b = b[32:]
	}
	mask8(b, key)
}

// maskPad XORs with a pad of the repeated key, by crypto/subtle's assembly.
func maskPad(b []byte, key [4]byte, size int) {
	var space [2048]byte
	k := binary.LittleEndian.Uint32(key[:])
	w := uint64(k)<<32 | uint64(k)
	pad := space[:size]
	for i := 0; i < len(pad); i += 8 {
		binary.LittleEndian.PutUint64(pad[i:], w)
	}
	for len(b) > 0 {
		n := subtle.XORBytes(b, b, pad)
		b = b[n:]
	}
}

func BenchmarkMask(b *testing.B) {
	variants := []struct {
		name string
		mask func([]byte)
	}{
		{"Mask, 8 words", func(p []byte) { Mask(p, testKey, 0) }},
		{"bytes", func(p []byte) { maskPlain(p, testKey, 0) }},
		{"words", func(p []byte) { mask8(p, testKey) }},
		{"4 words", func(p []byte) { mask32(p, testKey) }},
		{"XORBytes 256", func(p []byte) { maskPad(p, testKey, 256) }},
		{"XORBytes 1024", func(p []byte) { maskPad(p, testKey, 1024) }},
		{"XORBytes 2048", func(p []byte) { maskPad(p, testKey, 2048) }},
	}
	for _, size := range []int{16, 128, 1 << 10, 16 << 10} {
		for _, v := range variants {
			b.Run(fmt.Sprintf("%s/%d", v.name, size), func(b *testing.B) {
				p := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					v.mask(p)
				}
			})
		}
	}
}
