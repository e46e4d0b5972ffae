package room

import "testing"

func TestEveryKindIsDecodedWithoutAllocating(t *testing.T) {
	for _, m := range kindTexts {
		in := []byte(m.text)
		var c decoding
		if err := decode(in, &c); err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		if n := testing.AllocsPerRun(1000, func() { decode(in, &c) }); n != 0 {
			t.Errorf("%s: %v allocations", m.name, n)
		}
	}
}

func TestEveryMessageIsEncodedWithoutAllocating(t *testing.T) {
	dst := make([]byte, 0, 512)
	for _, a := range appends() {
		if n := testing.AllocsPerRun(1000, func() { a.to(dst) }); n != 0 {
			t.Errorf("%s: %v allocations into a buffer that is large enough", a.name, n)
		}
	}
}
