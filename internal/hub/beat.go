package hub

import (
	"encoding/json"

	"example.com/hubbub/broker"
)

// NodeInfo is what a node says of itself: its beat, in JSON. A node of another version may say less, or more.
type NodeInfo struct {
	ID          string `json:"id"` // of this life of its process; in hexadecimal digits
	Name        string `json:"name"`
	Version     string `json:"version"`
	Started     int64  `json:"started"`         // Unix milliseconds, by its clock
	Role        string `json:"role"`            // "store", or "node"
	Store       string `json:"store,omitempty"` // where other nodes find it, of a store
	Connections int    `json:"connections"`
	Clients     int    `json:"clients"`
	Parked      int    `json:"parked"`
	Rooms       int    `json:"rooms"`
	Policies    string `json:"policies"`            // a digest of Rules
	Rules       []byte `json:"rules,omitempty"`     // three bytes of the digest of each policy of rooms, where they are few
	In          bool   `json:"in"`                  // it serves, or has served; else it is about to begin
	NotReady    string `json:"not_ready,omitempty"` // why /readyz says 503; "" where it doesn't
}

// InfoOf reads what a peer says of itself. ok is false while it hasn't said anything that can be read.
func InfoOf(p broker.Peer) (info NodeInfo, ok bool) {
	if json.Unmarshal(p.Beat, &info) != nil || info.ID == "" {
		return NodeInfo{}, false
	}
	return info, true
}
