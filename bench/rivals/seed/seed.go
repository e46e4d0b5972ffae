// Package seed is what the Go rivals share: the messages of the seed, the Rust server that Hubbub grew from, and its
// manager of connections and rooms. What a rival adds is its library's own way to read, and to write to many.
package seed

import (
	"encoding/json"
	"iter"
	"maps"
	"sync"

	"github.com/google/uuid"
)

// QueuedMessages is how many messages may wait for one client where a rival needs a bound; past it the client is
// closed. It is four times what the scenarios have outstanding. (The seed's own queue has no bound.)
const QueuedMessages = 256

type incoming struct {
	MsgType string  `json:"msg_type"`
	Content *string `json:"content"`
	Room    *string `json:"room"`
}

type outgoing struct {
	MsgType string `json:"msg_type"`
	From    string `json:"from"`
	Content string `json:"content"`
}

// Manager knows the clients and the rooms that they are in. C is a rival's own client. Any goroutine may call its
// methods.
type Manager[C comparable] struct {
	broadcast func(text []byte, to iter.Seq[C])

	mu      sync.RWMutex
	members map[C]*member
	rooms   map[string]map[C]struct{}
}

type member struct {
	id    string
	rooms []string
}

// NewManager makes a manager that calls broadcast with each message and the clients that shall get it, on the goroutine
// that called Handle. It must neither wait for a client nor call the manager; text is its own to keep.
func NewManager[C comparable](broadcast func(text []byte, to iter.Seq[C])) *Manager[C] {
	return &Manager[C]{broadcast: broadcast, members: map[C]*member{}, rooms: map[string]map[C]struct{}{}}
}

// Add makes a client known, under an id of its own.
func (m *Manager[C]) Add(client C) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.members[client] = &member{id: uuid.NewString()}
}

// Remove forgets a client, once or several times.
func (m *Manager[C]) Remove(client C) {
	m.mu.Lock()
	defer m.mu.Unlock()
	leaver, ok := m.members[client]
	if !ok {
		return
	}
	delete(m.members, client)
	for _, room := range leaver.rooms {
		delete(m.rooms[room], client)
		if len(m.rooms[room]) == 0 {
			delete(m.rooms, room)
		}
	}
}

// Handle does what a client's message says. What it doesn't understand it ignores, as the seed does. It doesn't keep
// text.
func (m *Manager[C]) Handle(client C, text []byte) {
	var in incoming
	if json.Unmarshal(text, &in) != nil {
		return
	}
	switch {
	case in.MsgType == "chat":
		var content string
		if in.Content != nil {
			content = *in.Content
		}
		m.mu.RLock()
		defer m.mu.RUnlock()
		m.publish(client, "chat", content, maps.Keys(m.members))
	case in.MsgType == "join_room" && in.Room != nil:
		m.join(client, *in.Room)
	case in.MsgType == "room_message" && in.Room != nil && in.Content != nil:
		m.mu.RLock()
		defer m.mu.RUnlock()
		m.publish(client, "room_message", *in.Content, maps.Keys(m.rooms[*in.Room]))
	}
}

// publish encodes a message and has it sent to all but its sender. The lock is held all the while, for reading, as it
// is in the seed.
func (m *Manager[C]) publish(sender C, kind, content string, to iter.Seq[C]) {
	from, ok := m.members[sender]
	if !ok {
		return
	}
	text, err := json.Marshal(outgoing{kind, from.id, content})
	if err != nil {
		panic(err) // strings always encode
	}
	m.broadcast(text, func(yield func(C) bool) {
		for client := range to {
			if client != sender && !yield(client) {
				return
			}
		}
	})
}

func (m *Manager[C]) join(client C, room string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	joiner, ok := m.members[client]
	if !ok {
		return
	}
	if m.rooms[room] == nil {
		m.rooms[room] = map[C]struct{}{}
	}
	if _, ok := m.rooms[room][client]; !ok {
		m.rooms[room][client] = struct{}{}
		joiner.rooms = append(joiner.rooms, room)
	}
}
