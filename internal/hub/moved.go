package hub

import "example.com/hubbub/broker"

// movedTo says to which node a session that began here, or was here, has gone; false where it is here, or nobody knows.
// Any goroutine; it takes no lock above the client shard's.
func (h *Hub) movedTo(ID) (broker.NodeID, bool) { return broker.NodeID{}, false }
