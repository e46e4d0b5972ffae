package seed

import (
	"encoding/json"
	"iter"
	"slices"
	"testing"
)

// record is what each client got.
type record map[string][]outgoing

func (got record) broadcast(text []byte, to iter.Seq[string]) {
	var m outgoing
	if err := json.Unmarshal(text, &m); err != nil {
		panic(err)
	}
	m.From = "" // random
	for client := range to {
		got[client] = append(got[client], m)
	}
}

func TestMessagesReachWhomTheSeedSendsThemTo(t *testing.T) {
	got := record{}
	m := NewManager(got.broadcast)
	for _, client := range []string{"ann", "ben", "eve"} {
		m.Add(client)
	}
	m.Handle("ann", []byte(`{"msg_type":"join_room","room":"lobby"}`))
	m.Handle("ben", []byte(`{"msg_type":"join_room","room":"lobby"}`))
	m.Handle("ann", []byte(`{"msg_type":"room_message","room":"lobby","content":"to the room"}`))
	m.Handle("ann", []byte(`{"msg_type":"chat","content":"to all"}`))
	for _, ignored := range []string{`{"msg_type":"room_message","room":"lobby"}`, `{"msg_type":"wave"}`, `{broken`} {
		m.Handle("ann", []byte(ignored))
	}
	m.Remove("ben")
	m.Handle("eve", []byte(`{"msg_type":"room_message","room":"lobby","content":"ben is gone"}`))

	room := func(content string) outgoing { return outgoing{MsgType: "room_message", Content: content} }
	chat := outgoing{MsgType: "chat", Content: "to all"}
	want := record{
		"ann": {room("ben is gone")},
		"ben": {room("to the room"), chat},
		"eve": {chat},
	}
	for client, want := range want {
		if !slices.Equal(got[client], want) {
			t.Errorf("%s got %v, want %v", client, got[client], want)
		}
	}
}
