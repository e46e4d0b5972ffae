package wire

import "errors"

// puff is a decoder of raw deflate (RFC 1951) of the tests' own, slow and plain. Beside the data it tells how far back
// it reaches at most, which no library does.
type puff struct {
	in       []byte
	at       int // bits read
	out      []byte
	farthest int
}

var errPuff = errors.New("broken deflate")

func (p *puff) bits(n int) (v int) {
	for i := range n {
		if p.at/8 >= len(p.in) {
			panic(errPuff)
		}
		v |= int(p.in[p.at/8]>>(p.at%8)&1) << i
		p.at++
	}
	return v
}

// code is a canonical Huffman code: how many symbols of each length, and the symbols in order.
type code struct {
	count   [16]int
	symbols []int
}

func newCode(lengths []int) (c code) {
	for _, n := range lengths {
		c.count[n]++
	}
	c.count[0] = 0
	for n := 1; n < 16; n++ {
		for s, l := range lengths {
			if l == n {
				c.symbols = append(c.symbols, s)
			}
		}
	}
	return c
}

func (p *puff) symbol(c code) int {
	value, first, index := 0, 0, 0
	for n := 1; n < 16; n++ {
		value |= p.bits(1)
		if value-c.count[n] < first {
			return c.symbols[index+value-first]
		}
		index += c.count[n]
		first = (first + c.count[n]) << 1
		value <<= 1
	}
	panic(errPuff)
}

var (
	lengthBase = []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthMore = []int{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase   = []int{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distMore   = []int{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

func (p *puff) codes() (literals, distances code) {
	lengths := make([]int, p.bits(5)+257)
	dists, n := p.bits(5)+1, p.bits(4)+4
	var order [19]int
	for i := range n {
		order[[]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[i]] = p.bits(3)
	}
	lens, all := newCode(order[:]), make([]int, 0, len(lengths)+dists)
	for len(all) < len(lengths)+dists {
		repeat, value := 1, p.symbol(lens)
		switch value {
		case 16:
			value, repeat = all[len(all)-1], 3+p.bits(2)
		case 17:
			value, repeat = 0, 3+p.bits(3)
		case 18:
			value, repeat = 0, 11+p.bits(7)
		}
		for range repeat {
			all = append(all, value)
		}
	}
	return newCode(all[:len(lengths)]), newCode(all[len(lengths):])
}

func (p *puff) block(literals, distances code) {
	for {
		s := p.symbol(literals)
		switch {
		case s < 256:
			p.out = append(p.out, byte(s))
		case s == 256:
			return
		default:
			n := lengthBase[s-257] + p.bits(lengthMore[s-257])
			d := p.symbol(distances)
			far := distBase[d] + p.bits(distMore[d])
			p.farthest = max(p.farthest, far)
			for range n {
				p.out = append(p.out, p.out[len(p.out)-far])
			}
		}
	}
}

// inflate decodes in, which ends between two blocks, behind what is in out.
func (p *puff) inflate(in []byte) (err error) {
	defer func() {
		if e := recover(); e != nil {
			err = errPuff
		}
	}()
	p.in, p.at = in, 0
	for p.at < 8*len(in) {
		p.bits(1)
		switch p.bits(2) {
		case 0:
			p.at = (p.at + 7) / 8 * 8
			n := p.bits(16)
			if p.bits(16) != n^0xffff {
				return errPuff
			}
			for range n {
				p.out = append(p.out, byte(p.bits(8)))
			}
		case 1:
			p.block(fixedCodes())
		case 2:
			p.block(p.codes())
		default:
			return errPuff
		}
	}
	return nil
}

func fixedCodes() (literals, distances code) {
	l := make([]int, 288)
	for i := range l {
		switch {
		case i < 144, i >= 280:
			l[i] = 8
		case i < 256:
			l[i] = 9
		default:
			l[i] = 7
		}
	}
	d := make([]int, 30)
	for i := range d {
		d[i] = 5
	}
	return newCode(l), newCode(d)
}
