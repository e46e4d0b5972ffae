package hub

import "example.com/hubbub/broker"

// What nodes tell each other of who is in a room, beside its messages (topics.go).

// heardMembers is what another node has told the room's topic of its members: body begins with its kind, 2 or above. One
// at a time for a room; no lock is held.
func (h *Hub) heardMembers(room string, from broker.NodeID, body []byte) {}

// topicReady is called each time that what others tell the room begins to be heard here. r.mu is held.
func (h *Hub) topicReady(r *room) {}

// topicMissed is called when something that was told the room may be lost, while it is heard here. r.mu is held.
func (h *Hub) topicMissed(r *room) {}
