package wire

import (
	"encoding/binary"
	"math/bits"
)

// Mask XORs b in place with the masking key, as if b began at offset pos of
// the payload. It masks and unmasks.
// RFC 6455 5.3: "octet i of the transformed data is the XOR of octet i of the
// original data with octet at index i modulo 4 of the masking key".
func Mask(b []byte, key [4]byte, pos int) {
	le := binary.LittleEndian
	k := bits.RotateLeft32(le.Uint32(key[:]), -8*(pos&3))
	w := uint64(k)<<32 | uint64(k)
	// Eight words a turn measured best (BenchmarkMask), ahead of crypto/subtle's
	// assembly with a pad of keys too.
	for len(b) >= 64 {
		q := b[:64:64]
		le.PutUint64(q, le.Uint64(q)^w)
		le.PutUint64(q[8:], le.Uint64(q[8:])^w)
		le.PutUint64(q[16:], le.Uint64(q[16:])^w)
		le.PutUint64(q[24:], le.Uint64(q[24:])^w)
		le.PutUint64(q[32:], le.Uint64(q[32:])^w)
		le.PutUint64(q[40:], le.Uint64(q[40:])^w)
		le.PutUint64(q[48:], le.Uint64(q[48:])^w)
		le.PutUint64(q[56:], le.Uint64(q[56:])^w)
		b = b[64:]
	}
	for len(b) >= 8 {
		le.PutUint64(b, le.Uint64(b)^w)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(w)
		w >>= 8
	}
}
