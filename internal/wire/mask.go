package wire

import (
	"encoding/binary"
	"math/bits"
)

// Mask XORs b in place with the masking key, as if b began at offset pos of the payload. It masks and unmasks, and says
// whether the result is ASCII alone: that costs nothing here, and saves a look at each byte of most texts. RFC 6455
// 5.3: "octet i of the transformed data is the XOR of octet i of the original data with octet at index i modulo 4 of
// the masking key".
func Mask(b []byte, key [4]byte, pos int) (ascii bool) {
	k := bits.RotateLeft32(binary.LittleEndian.Uint32(key[:]), -8*(pos&3))
	w := uint64(k)<<32 | uint64(k)
	n, seen := maskWide(b, w)
	return (seen|maskWords(b[n:], w))&high == 0
}

const high = 0x8080_8080_8080_8080 // the bits that ASCII hasn't

// maskWords masks b, and gives the sum of all bits of the result. Eight words a turn measured best (BenchmarkUnmask),
// ahead of crypto/subtle's assembly with a pad of keys too.
func maskWords(b []byte, w uint64) (seen uint64) {
	le := binary.LittleEndian
	for len(b) >= 64 {
		q := b[:64:64]
		v0, v1, v2, v3 := le.Uint64(q)^w, le.Uint64(q[8:])^w, le.Uint64(q[16:])^w, le.Uint64(q[24:])^w
		v4, v5, v6, v7 := le.Uint64(q[32:])^w, le.Uint64(q[40:])^w, le.Uint64(q[48:])^w, le.Uint64(q[56:])^w
		le.PutUint64(q, v0)
		le.PutUint64(q[8:], v1)
		le.PutUint64(q[16:], v2)
		le.PutUint64(q[24:], v3)
		le.PutUint64(q[32:], v4)
		le.PutUint64(q[40:], v5)
		le.PutUint64(q[48:], v6)
		le.PutUint64(q[56:], v7)
		seen |= v0 | v1 | v2 | v3 | v4 | v5 | v6 | v7
		b = b[64:]
	}
	for len(b) >= 8 {
		v := le.Uint64(b) ^ w
		le.PutUint64(b, v)
		seen |= v
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(w)
		seen |= uint64(b[i])
		w >>= 8
	}
	return seen
}
