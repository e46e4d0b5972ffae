package protocol

import (
	"strings"
	"testing"
)

// The messages that docs/decisions/0002-json-decoder.md gives figures for.
var benchTexts = []struct{ name, text string }{
	{"typical", `{"msg_type":"room_message","room":"r12","content":"` + strings.Repeat("hello wo", 16) + `"}`},
	{"16KiB", `{"msg_type":"room_message","room":"r12","content":"` + strings.Repeat("hello wo", 2048) + `"}`},
	{"16KiB-nested", `{"msg_type":"room_message","room":"r12","content":[` + strings.Repeat(`{"x":12,"y":[1.5,true]},`, 682) + `0]}`},
	{"16KiB-cyrillic", `{"msg_type":"room_message","room":"r12","content":"` + strings.Repeat("привет, ", 1170) + `"}`},
	{"16KiB-escapes", `{"msg_type":"room_message","room":"r12","content":"` + strings.Repeat(`a \"word\"\n`, 1365) + `"}`},
	{"64KiB-keys", `{"msg_type":"ping"` + manyKeys(64<<10) + `}`},
	{"ping", `{"msg_type":"ping","id":7}`},
}

// manyKeys returns members with different short keys, size bytes of them.
func manyKeys(size int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	var s strings.Builder
	for n := 0; s.Len() < size; n++ {
		s.WriteString(`,"` + string([]byte{letters[n&63], letters[n>>6&63], letters[n>>12&63]}) + `":0`)
	}
	return s.String()
}

func BenchmarkDecode(b *testing.B) {
	for _, m := range benchTexts {
		b.Run(m.name, func(b *testing.B) {
			text := []byte(m.text)
			var c Command
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if err := Decode(text, &c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendRoomMessage(b *testing.B) {
	content := []byte(`"` + strings.Repeat("hello wo", 16) + `"`)
	dst := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendRoomMessage(dst[:0], "01234567-89ab-4cde-8f01-23456789abcd", content, "r12", 1760000000000, "")
	}
}
