package wire

import "golang.org/x/sys/cpu"

// wideBlock is what maskBlocks takes in one turn. Below leastWide the words of maskWords are as fast.
const (
	wideBlock = 128
	leastWide = 256
)

// maskWide masks as much of b as wide vectors do better, and says how much, and which bits it saw.
func maskWide(b []byte, w uint64) (n int, seen uint64) {
	if len(b) < leastWide || !cpu.X86.HasAVX2 {
		return 0, 0
	}
	n = len(b) &^ (wideBlock - 1)
	if maskBlocks(&b[0], n, w) {
		seen = high
	}
	return n, seen
}

// maskBlocks masks n bytes, a multiple of wideBlock and not 0, with AVX2. It says whether one of the results has its
// highest bit set.
//
//go:noescape
func maskBlocks(p *byte, n int, w uint64) (notASCII bool)
