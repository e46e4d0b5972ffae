package wsclient

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// frame is a server's frame, by its first byte.
func frame(first byte, payload string) string {
	b := []byte{first}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, byte(n))
	case n <= 65535:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return string(b) + payload
}

// deflated is text as RFC 7692 7.2.1 has it.
func deflated(text string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.DefaultCompression)
	w.Write([]byte(text))
	w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// received is what a client makes of a stream that comes in pieces.
func received(most int, pieces ...[]byte) (messages []string, err error) {
	var parts Parts
	var z Inflater
	var b []byte
	for _, piece := range pieces {
		b = append(b, piece...)
		for {
			f, size, err := Parse(b, most)
			if err != nil {
				return messages, err
			}
			if size > len(b) {
				break
			}
			b = b[size:]
			if f.Op == Close {
				if _, _, err := ParseClose(f.Payload); err != nil {
					return messages, err
				}
			}
			ok := true
			if !f.Op.Control() {
				if f, ok, err = parts.Add(f, most); err != nil {
					return messages, err
				}
			}
			if f.Deflated {
				if f.Payload, err = z.Inflate(f.Payload, most); err != nil {
					return messages, err
				}
			}
			if ok {
				messages = append(messages, f.Op.String()+" "+string(f.Payload))
			}
		}
	}
	return messages, nil
}

// A server's frames are the same however they are cut.
func TestFramesInPieces(t *testing.T) {
	long, huge := strings.Repeat("long ", 100), strings.Repeat("huge ", 20_000)
	z := deflated(long)
	stream := []byte(frame(0x81, "short") + frame(0x81, long) +
		frame(0x01, "one") + frame(0x00, "") + frame(0x89, "?") + frame(0x80, "two") + // a message in three pieces, with a ping inside
		frame(0xc1, z) + frame(0x42, z[:5]) + frame(0x80, z[5:]) + frame(0x82, "") + frame(0x82, huge) + frame(0x88, "\x03\xe9bye"))
	want := []string{"text short", "text " + long, "ping ?", "text onetwo", "text " + long, "binary " + long, "binary ", "binary " + huge, "close \x03\xe9bye"}
	for cut := range 700 {
		got, err := received(1<<20, stream[:cut], stream[cut:])
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("cut at %d: %d messages, %v", cut, len(got), err)
		}
	}
	if got, err := received(1<<20, slices.Collect(slices.Chunk(stream, 1))...); err != nil || !slices.Equal(got, want) {
		t.Errorf("byte by byte: %d messages, %v", len(got), err)
	}
}

// No stream breaks the parser, and it takes no frame to be longer than it is.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0x81, 1, 'x', 0x89, 0}, 2)
	f.Add([]byte{0x01, 126, 0, 1, 'x', 0x80, 0}, 3)
	f.Add([]byte(frame(0x41, deflated("compressed"))+frame(0x80, "")+frame(0x88, "\x03\xe8")), 5)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		whole, err := received(1<<20, bytes.Clone(b))
		cut = min(max(cut, 0), len(b))
		parts, perr := received(1<<20, bytes.Clone(b[:cut]), bytes.Clone(b[cut:]))
		if !slices.Equal(whole, parts) || (err == nil) != (perr == nil) {
			t.Fatalf("whole: %q %v; in parts: %q %v", whole, err, parts, perr)
		}
	})
}
