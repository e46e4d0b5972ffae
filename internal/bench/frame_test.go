package bench

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"example.com/hubbub/internal/wire"
)

// received is what a connection makes of a stream that comes in pieces.
func received(pieces ...[]byte) (messages []string, err error) {
	var parts assembly
	var b []byte
	for _, piece := range pieces {
		b = append(b, piece...)
		for {
			f, size, err := parseFrame(b)
			if err != nil {
				return messages, err
			}
			if size > len(b) {
				break
			}
			if f.op.Control() {
				messages = append(messages, f.op.String()+" "+string(f.payload))
			} else {
				p, deflated, ok, err := parts.add(f)
				if err != nil {
					return messages, err
				}
				if deflated {
					if p, err = new(inflater).inflate(p); err != nil {
						return messages, err
					}
				}
				if ok {
					messages = append(messages, string(p))
				}
			}
			b = b[size:]
		}
	}
	return messages, nil
}

// A server's frames are the same however they are cut.
func TestFramesInPieces(t *testing.T) {
	long, huge := strings.Repeat("long ", 100), strings.Repeat("huge ", 20_000)
	var z wire.Deflater
	deflated, ok := z.Deflate([]byte(long), 15, nil)
	if !ok {
		t.Fatal("it was not compressed")
	}
	var stream []byte
	stream = wire.AppendFrame(stream, wire.Text, []byte("short"))
	stream = wire.AppendFrame(stream, wire.Text, []byte(long))
	stream = append(stream, 0x01, 3, 'o', 'n', 'e') // a message in three pieces, with a ping inside
	stream = append(stream, 0x00, 0)
	stream = wire.AppendFrame(stream, wire.Ping, []byte("?"))
	stream = append(stream, 0x80, 3, 't', 'w', 'o')
	stream = wire.AppendFrame(stream, wire.Text|wire.Deflated, deflated)
	stream = wire.AppendFrame(stream, wire.Binary, nil)
	stream = wire.AppendFrame(stream, wire.Binary, []byte(huge))
	stream = wire.AppendClose(stream, 1001, "bye")
	want := []string{"short", long, "ping ?", "onetwo", long, "", huge, "close \x03\xe9bye"}
	for cut := range 700 {
		got, err := received(stream[:cut], stream[cut:])
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("cut at %d: %d messages, %v", cut, len(got), err)
		}
	}
	var bytewise [][]byte
	for i := range stream {
		bytewise = append(bytewise, stream[i:i+1])
	}
	if got, err := received(bytewise...); err != nil || !slices.Equal(got, want) {
		t.Errorf("byte by byte: %d messages, %v", len(got), err)
	}
}

func TestFramesThatNoServerMaySend(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"masked":                    {[]byte{0x81, 0x80}, errMasked},
		"RSV2":                      {[]byte{0xA1, 0}, errReserved},
		"opcode 3":                  {[]byte{0x83, 0}, errReserved},
		"opcode 11":                 {[]byte{0x8B, 0}, errReserved},
		"a ping in pieces":          {[]byte{0x09, 0}, errControl},
		"a long ping":               {[]byte{0x89, 126}, errControl},
		"an endless message":        {[]byte{0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0}, errLength},
		"a length of 2^63":          {[]byte{0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, errLength},
		"the end of nothing":        {[]byte{0x80, 0}, errFragment},
		"two beginnings":            {[]byte{0x01, 0, 0x81, 0}, errFragment},
		"compression in the middle": {[]byte{0x01, 0, 0xC0, 0}, errFragment},
		"broken compression":        {[]byte{0xC1, 2, 0xFF, 0xFF}, errDeflated},
	} {
		if _, err := received(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// No stream breaks the parser, and it takes no frame to be longer than it is.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0x81, 1, 'x', 0x89, 0}, 2)
	f.Add([]byte{0x01, 126, 0, 1, 'x', 0x80, 0}, 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		whole, err := received(bytes.Clone(b))
		cut = min(max(cut, 0), len(b))
		parts, perr := received(bytes.Clone(b[:cut]), bytes.Clone(b[cut:]))
		if !slices.Equal(whole, parts) || (err == nil) != (perr == nil) {
			t.Fatalf("whole: %q %v; in parts: %q %v", whole, err, parts, perr)
		}
	})
}

func TestMarkersAreFoundInWhateverIsAround(t *testing.T) {
	p := newPayloads("0a1b2c3d", 100)
	m := marker{id: 0xFFFFFFFE, publisher: 0xABCDEF, seq: 7, due: 1<<48 - 1}
	payload := p.append(nil, m)
	if len(payload) != 100 {
		t.Fatalf("%d bytes, want 100", len(payload))
	}
	for _, around := range []string{"", `{"content":"`, "#0a1b2c3d", "#0a1b2c3d0123456789#", strings.Repeat("#", 50)} {
		text := append([]byte(around), payload...)
		text = append(text, `"} and more`...)
		for _, hint := range []int{0, len(around), 5, len(text), len(text) + 1} {
			got, at, ok := p.find(text, hint)
			if !ok || got != m || at != len(around) {
				t.Errorf("behind %q, looked for at %d: %+v at %d, %v", around, hint, got, at, ok)
			}
		}
		if rest, ok := p.intact(text[len(around):]); !ok || string(rest) != `"} and more` {
			t.Errorf("behind %q: %q, %v", around, rest, ok)
		}
	}
	for _, other := range []string{"", "hello", string(newPayloads("ffffffff", 100).append(nil, m)), string(payload[:markerSize-1]), string(bytes.ToUpper(payload))} {
		if _, _, ok := p.find([]byte(other), 0); ok {
			t.Errorf("found in %q", other)
		}
	}
	changed := bytes.Clone(payload)
	changed[99] ^= 1
	if _, ok := p.intact(changed); ok {
		t.Error("a payload that was changed is intact")
	}
	if _, ok := p.intact(payload[:99]); ok {
		t.Error("a payload that was cut short is intact")
	}
}

func TestTemplates(t *testing.T) {
	c := &conn{num: 12, room: 3}
	for text, want := range map[string]string{
		"%r": "bench-0a1b2c3d-3", "%n/%i/%p/%%": "3/12/data/%", "": "", "plain": "plain", "%%p": "%p",
	} {
		tmpl, err := parseTemplate(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(tmpl.append(nil, "0a1b2c3d", c, []byte("data"))); got != want {
			t.Errorf("%q comes to %q, want %q", text, got, want)
		}
	}
}
