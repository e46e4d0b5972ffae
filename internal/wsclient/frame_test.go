package wsclient

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// RFC 6455 5.7: "A single-frame masked text message", "A fragmented ... message".
func TestTheFramesOfTheRFC(t *testing.T) {
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	got := Append([]byte("before"), true, Text, mask, []byte("Hello"))
	if want := "before\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"; string(got) != want {
		t.Errorf("got %x, want %x", got, want)
	}
	for in, want := range map[string]Frame{
		"\x81\x05Hello":                        {Op: Text, Fin: true, Payload: []byte("Hello")},
		"\x01\x03Hel":                          {Op: Text, Payload: []byte("Hel")},
		"\x80\x02lo":                           {Op: Continuation, Fin: true, Payload: []byte("lo")},
		"\x89\x05Hello":                        {Op: Ping, Fin: true, Payload: []byte("Hello")},
		"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00": {Op: Text, Fin: true, Deflated: true, Payload: []byte("\xf2\x48\xcd\xc9\xc9\x07\x00")}, // RFC 7692 7.2.3.1
	} {
		f, size, err := Parse([]byte(in), 100)
		if err != nil || size != len(in) || fmt.Sprint(f) != fmt.Sprint(want) {
			t.Errorf("%x: %v, %d bytes, %v; want %v", in, f, size, err, want)
		}
	}
	if p, err := new(Inflater).Inflate([]byte("\xf2\x48\xcd\xc9\xc9\x07\x00"), 5); err != nil || string(p) != "Hello" {
		t.Errorf("inflated: %q, %v", p, err)
	}
}

// Every length is written in its shortest form, and every byte is masked as the RFC's sentence says (5.3), wherever the
// frame lies in memory.
func TestAppendAtEveryLength(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	payload := make([]byte, 70_000)
	for i := range payload {
		payload[i] = byte(random.Uint32())
	}
	sizes := []int{1000, 1023, 1024, 1025, 4095, 65534, 65535, 65536, 65537, 70_000}
	for n := range 600 {
		sizes = append(sizes, n)
	}
	for _, n := range sizes {
		for _, fin := range []bool{true, false} {
			before := random.IntN(9)
			var mask [4]byte
			binary.NativeEndian.PutUint32(mask[:], random.Uint32())
			want := append(make([]byte, before), map[bool]byte{true: 0x82, false: 0x02}[fin])
			switch {
			case n <= 125:
				want = append(want, 0x80|byte(n))
			case n <= 65535:
				want = append(want, 0xfe, byte(n>>8), byte(n))
			default:
				want = append(want, 0xff, 0, 0, 0, 0, 0, byte(n>>16), byte(n>>8), byte(n))
			}
			want = append(want, mask[:]...)
			for i, b := range payload[:n] {
				want = append(want, b^mask[i%4])
			}
			if got := Append(make([]byte, before), fin, Binary, mask, payload[:n]); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes behind %d, final: %t: not as it should be", n, before, fin)
			}
		}
	}
	if got := Append(nil, true, Text|Deflated, [4]byte{}, nil); got[0] != 0xc1 {
		t.Errorf("compressed: %x", got)
	}
}

func TestAppendIntoRoomTakesNoMemory(t *testing.T) {
	dst, payload := make([]byte, 0, 20<<10), make([]byte, 16<<10)
	for _, n := range []int{0, 60, 600, 16 << 10} {
		if allocs := testing.AllocsPerRun(100, func() { dst = Append(dst[:0], true, Text, [4]byte{1, 2, 3, 4}, payload[:n]) }); allocs != 0 {
			t.Errorf("%d bytes: %v allocations", n, allocs)
		}
	}
}

func TestFramesThatNoServerMaySend(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want error
	}{
		"masked":                      {"\x81\x80", errMasked},
		"RSV2":                        {"\xa1\x00", errReserved},
		"RSV3":                        {"\x91\x00", errReserved},
		"opcode 3":                    {"\x83\x00", errReserved},
		"opcode 11":                   {"\x8b\x00", errReserved},
		"a ping in pieces":            {"\x09\x00", errControl},
		"a long ping":                 {"\x89\x7e", errControl},
		"a compressed ping":           {"\xc9\x00", errControl},
		"125 in two bytes":            {"\x81\x7e\x00\x7d", errShortest},
		"65535 in eight bytes":        {"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff", errShortest},
		"more than the bound":         {"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x01", errLong},
		"a length of 2^63":            {"\x81\x7f\x80\x00\x00\x00\x00\x00\x00\x00", errLong},
		"the end of nothing":          {"\x80\x00", errFragment},
		"two beginnings":              {"\x01\x00\x81\x00", errFragment},
		"compression in the middle":   {"\x01\x00\xc0\x00", errFragment},
		"fragments beyond the bound":  {"\x01\x7e\x80\x00" + strings.Repeat("x", 0x8000) + "\x00\x7e\x80\x01" + strings.Repeat("x", 0x8001), errLong},
		"broken compression":          {"\xc1\x02\xff\xff", ErrDeflated},
		"a bomb":                      {frame(0xc1, deflated(strings.Repeat("x", 65537))), errLong},
		"a Close of one byte":         {"\x88\x01\x03", errClose},
		"a Close with half a reason":  {"\x88\x03\x03\xe8\xe2", errClose},
		"what was good, then a fault": {"\x81\x01x\x80\x00", errFragment},
	} {
		if got, err := received(65536, []byte(c.in)); !errors.Is(err, c.want) {
			t.Errorf("%s: %q, %v, want %v", name, got, err, c.want)
		}
	}
}

func TestReadTakesOneFrameAndNoMore(t *testing.T) {
	in := frame(0x81, "short") + frame(0x01, strings.Repeat("long ", 100)) + frame(0x89, "") + frame(0x80, strings.Repeat("huge ", 20_000))
	r := strings.NewReader(in)
	var got []string
	for {
		f, err := Read(r, 1<<20)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(f.Op, f.Fin, len(f.Payload)))
	}
	if want := "[text true 5 text false 500 ping true 0 continuation true 100000]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	for cut := range in[:600] {
		if cut == 0 || cut == 7 || cut == 7+504 || cut == 7+504+2 {
			continue // an end between two frames
		}
		r, err := strings.NewReader(in[:cut]), error(nil)
		for err == nil {
			_, err = Read(r, 1<<20)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	if _, err := Read(strings.NewReader(in[7:]), 499); !errors.Is(err, errLong) {
		t.Errorf("a frame beyond the bound: %v", err)
	}
}

func TestClosePayloads(t *testing.T) {
	for payload, want := range map[string]string{"": "1005  <nil>\n", "\x03\xe8": "1000  <nil>\n", "\x13\x88bye": "5000 bye <nil>\n"} {
		if got := fmt.Sprintln(ParseClose([]byte(payload))); got != want {
			t.Errorf("%q: %q, want %q", payload, got, want)
		}
	}
	if got := AppendClose(nil, [4]byte{}, 4321, "bye"); string(got) != "\x88\x85\x00\x00\x00\x00\x10\xe1bye" {
		t.Errorf("%x", got)
	}
	if got := AppendClose(nil, [4]byte{}, NoStatus, ""); string(got) != "\x88\x80\x00\x00\x00\x00" {
		t.Errorf("without a code: %x", got)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{60, 200, 511, 512, 2 << 10, 16 << 10} {
		payload, dst := bytes.Repeat([]byte("x"), size), make([]byte, 0, size+maxHeader)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				dst = Append(dst[:0], true, Text, [4]byte{1, 2, 3, 4}, payload)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	in := []byte(frame(0x81, strings.Repeat("x", 200)))
	b.ReportAllocs()
	for b.Loop() {
		if _, size, err := Parse(in, 1<<20); err != nil || size != len(in) {
			b.Fatal(size, err)
		}
	}
}
