package protocol

import (
	"fmt"
	"strings"
	"testing"
	"time"
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

// kindTexts has a usual message of each kind.
var kindTexts = []struct{ name, text string }{
	{"chat", `{"msg_type":"chat","content":"` + strings.Repeat("hello wo", 16) + `"}`},
	{"join_room", `{"msg_type":"join_room","room":"r12","id":7}`},
	{"leave_room", `{"msg_type":"leave_room","room":"r12","id":7}`},
	{"room_message", `{"msg_type":"room_message","room":"r12","content":"` + strings.Repeat("hello wo", 16) + `","id":7}`},
	{"direct_message", `{"msg_type":"direct_message","to":"01234567-89ab-4cde-8f01-23456789abcd","content":"` + strings.Repeat("hello wo", 16) + `"}`},
	{"ping", `{"msg_type":"ping"}`},
	{"join_room since", `{"msg_type":"join_room","room":"r12","id":7,"since":{"epoch":"k3j9x1","offset":1234567},"data":{"name":"Ann"}}`},
	{"room_message with key and publish_id", `{"msg_type":"room_message","room":"r12","content":"` + strings.Repeat("hello wo", 16) + `","key":"cpu","publish_id":"p-123","id":7}`},
	{"presence", `{"msg_type":"presence","room":"r12","id":7}`},
	{"history", `{"msg_type":"history","room":"r12","before":{"epoch":"k3j9x1","offset":1234567},"limit":50,"id":7}`},
	{"resume", `{"msg_type":"resume","id":7,"rooms":{"r0":null` + manyRooms(100) + `}}`},
	{"custom", `{"msg_type":"vote","poll":"lunch","choice":3,"id":7}`},
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

func manyRooms(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, `,"room \u00e9 %d":{"epoch":"k3j9x1","offset":%d}`, i, 1000+i)
	}
	return s.String()
}

func BenchmarkDecode(b *testing.B) {
	for _, m := range benchTexts {
		b.Run(m.name, func(b *testing.B) { benchDecode(b, m.text) })
	}
	for _, m := range kindTexts {
		b.Run("kind="+m.name, func(b *testing.B) { benchDecode(b, m.text) })
	}
}

func benchDecode(b *testing.B, s string) {
	text := []byte(s)
	var c Command
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(text, &c); err != nil {
			b.Fatal(err)
		}
	}
}

// appends makes each message of the server once, with a content of 128 bytes where it has one.
func appends() []appendCase {
	const from, room, at = "01234567-89ab-4cde-8f01-23456789abcd", "r12", 1760000000000
	content, id := []byte(`"`+strings.Repeat("hello wo", 16)+`"`), []byte("7")
	welcome := Welcome{ClientID: from, MaxMessageBytes: 64 << 10, PingInterval: 25 * time.Second, PongTimeout: 10 * time.Second}
	welcome.ResumeToken, welcome.ResumeWindow = "eyJzIjoiMDEyMyJ9.abc", time.Minute
	key := []byte("cpu of the seventh node, in a group of its own é")
	published := AppendRoomMessageTail(AppendRoomMessageHead(nil, from, content, room, at), 1234567, "alice", key)
	members := []Member{{ClientID: from, User: "alice", Data: []byte(`{"name":"Ann"}`)}, {ClientID: from}}
	resumed := []ResumedRoom{{room, "k3j9x1", 1234567, true, "", false}, {"r13", "", 0, false, ReasonNoHistory, false}}
	refusal := &Error{Code: BadRoom, Message: "room is empty"}
	return []appendCase{
		{"welcome", func(dst []byte) []byte { return AppendWelcome(dst, welcome) }},
		{"chat", func(dst []byte) []byte { return AppendChat(dst, from, content, at, "") }},
		{"direct_message", func(dst []byte) []byte { return AppendDirectMessage(dst, from, content, at, "") }},
		{"room_message", func(dst []byte) []byte {
			return AppendRoomMessageTail(AppendRoomMessageHead(dst, from, content, room, at), 0, "", nil)
		}},
		{"room_message of a user", func(dst []byte) []byte {
			return AppendRoomMessageTail(AppendRoomMessageHead(dst, from, content, room, at), 0, "alice", nil)
		}},
		{"room_message of a room with history", func(dst []byte) []byte {
			return AppendRoomMessageTail(AppendRoomMessageHead(dst, from, content, room, at), 1234567, "", key)
		}},
		{"joined", func(dst []byte) []byte { return AppendJoined(dst, Joined{Room: room, ID: id}) }},
		{"joined since", func(dst []byte) []byte {
			return AppendJoined(dst, Joined{Room: room, ID: id, Epoch: "k3j9x1", Offset: 1234567, Since: true, Recovered: true})
		}},
		{"resumed", func(dst []byte) []byte { return AppendResumed(dst, id, resumed) }},
		{"history", func(dst []byte) []byte {
			dst = AppendHistoryMessage(AppendHistoryHead(dst, room, "k3j9x1", 1234567), published)
			return AppendHistoryTail(dst, true, id)
		}},
		{"presence", func(dst []byte) []byte { return AppendPresence(dst, room, 2, members, false, id) }},
		{"member_joined", func(dst []byte) []byte { return AppendMembers(dst, true, room, 2, members) }},
		{"gap", func(dst []byte) []byte { return AppendGap(dst, Gap{room, 3, GapHistory, 5, 7}) }},
		{"left", func(dst []byte) []byte { return AppendLeft(dst, room, id) }},
		{"removed", func(dst []byte) []byte { return AppendRemoved(dst, room, LeftKicked) }},
		{"ack", func(dst []byte) []byte { return AppendAck(dst, Ack{ID: id}) }},
		{"ack with a position", func(dst []byte) []byte { return AppendAck(dst, Ack{ID: id, Epoch: "k3j9x1", Offset: 1234567}) }},
		{"pong", func(dst []byte) []byte { return AppendPong(dst, at, id) }},
		{"error", func(dst []byte) []byte { return AppendError(dst, refusal, 0, id) }},
		{"reconnect", func(dst []byte) []byte { return AppendReconnect(dst, time.Second, "drain") }},
		{"custom", func(dst []byte) []byte { return AppendCustom(dst, "vote", "server", content, id) }},
	}
}

type appendCase struct {
	name string
	to   func(dst []byte) []byte
}

func BenchmarkAppend(b *testing.B) {
	for _, a := range appends() {
		b.Run(a.name, func(b *testing.B) {
			dst := make([]byte, 0, 512)
			b.SetBytes(int64(len(a.to(dst))))
			b.ReportAllocs()
			for b.Loop() {
				dst = a.to(dst[:0])
			}
		})
	}
}
