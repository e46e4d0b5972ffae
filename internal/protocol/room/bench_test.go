package room

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/internal/protocol"
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
	var c decoding
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if err := decode(text, &c); err != nil {
			b.Fatal(err)
		}
	}
}

// appends makes each message of the server once, with a content of 128 bytes where it has one.
func appends() (all []appendCase) {
	const from, room, at = "01234567-89ab-4cde-8f01-23456789abcd", "r12", 1760000000000
	content, id := []byte(`"`+strings.Repeat("hello wo", 16)+`"`), []byte("7")
	key := []byte("cpu of the seventh node, in a group of its own é")
	message := func(name string, m protocol.Message) {
		m.From, m.Content, m.Time = from, content, at
		all = append(all, appendCase{name, func(dst []byte) []byte { return dialect.AppendMessage(dst, &m) }})
	}
	answer := func(name string, a protocol.Answer) {
		all = append(all, appendCase{name, func(dst []byte) []byte { return dialect.AppendAnswer(dst, &a) }})
	}
	published := protocol.Message{Kind: protocol.RoomMessage, Room: room, From: from, User: "alice", Content: content, Key: key, Time: at, Offset: 1234567}
	members := []protocol.Member{{ClientID: from, User: "alice", Data: []byte(`{"name":"Ann"}`)}, {ClientID: from}}

	message("chat", protocol.Message{Kind: protocol.Chat})
	message("direct_message", protocol.Message{Kind: protocol.DirectMessage})
	message("room_message", protocol.Message{Kind: protocol.RoomMessage, Room: room})
	message("room_message of a user", protocol.Message{Kind: protocol.RoomMessage, Room: room, User: "alice"})
	message("room_message of a room with history", protocol.Message{Kind: protocol.RoomMessage, Room: room, Offset: 1234567, Key: key})
	answer("welcome", protocol.Answer{Kind: protocol.AnswerWelcome, Welcome: protocol.Welcome{ClientID: from, MaxMessageBytes: 64 << 10,
		PingInterval: 25 * time.Second, PongTimeout: 10 * time.Second, ResumeToken: "eyJzIjoiMDEyMyJ9.abc", ResumeWindow: time.Minute}})
	answer("joined", protocol.Answer{Kind: protocol.AnswerJoined, Room: room, ID: id})
	answer("joined since", protocol.Answer{Kind: protocol.AnswerJoined, Room: room, ID: id, Epoch: "k3j9x1", Offset: 1234567, Since: true, Recovered: true})
	answer("resumed", protocol.Answer{Kind: protocol.AnswerResumed, ID: id, Rooms: []protocol.ResumedRoom{
		{Room: room, Epoch: "k3j9x1", Offset: 1234567, Recovered: true}, {Room: "r13", Reason: protocol.ReasonNoHistory}}})
	answer("history", protocol.Answer{Kind: protocol.AnswerHistory, ID: id, Room: room, Epoch: "k3j9x1", Offset: 1234567, More: true,
		Messages: []*protocol.Message{&published}})
	answer("presence", protocol.Answer{Kind: protocol.AnswerPresence, ID: id, Room: room, Count: 2, Members: members})
	answer("member_joined", protocol.Answer{Kind: protocol.AnswerMemberJoined, Room: room, Count: 2, Members: members})
	answer("gap", protocol.Answer{Kind: protocol.AnswerGap, Room: room, Count: 3, Reason: protocol.GapHistory, From: 5, To: 7})
	answer("deleted", protocol.Answer{Kind: protocol.AnswerDeleted, Room: room, From: 5})
	answer("left", protocol.Answer{Kind: protocol.AnswerLeft, Room: room, ID: id})
	answer("removed", protocol.Answer{Kind: protocol.AnswerLeft, Room: room, Reason: protocol.LeftKicked})
	answer("ack", protocol.Answer{Kind: protocol.AnswerAck, ID: id})
	answer("ack with a position", protocol.Answer{Kind: protocol.AnswerAck, ID: id, Epoch: "k3j9x1", Offset: 1234567})
	answer("pong", protocol.Answer{Kind: protocol.AnswerPong, ID: id, Time: at})
	answer("error", protocol.Answer{Kind: protocol.AnswerError, ID: id, Err: &protocol.Error{Code: protocol.BadRoom, Message: "room is empty"}})
	answer("reconnect", protocol.Answer{Kind: protocol.AnswerReconnect, After: time.Second, Reason: "drain"})
	answer("reply", protocol.Answer{Kind: protocol.AnswerReply, Type: "vote", Content: content, ID: id})
	return all
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
