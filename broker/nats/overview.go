package nats

import (
	"context"
	"errors"
	"time"
)

// Overview is how a cluster's stores are.
type Overview struct {
	Cluster  string        `json:"cluster"`
	Leader   string        `json:"leader"` // the store that says where streams are; "" where there is none: most stores don't hear each other
	Stores   []StoreState  `json:"stores"`
	Streams  []StreamState `json:"streams"`
	Problems []string      `json:"problems"` // in words for the operator; empty where all is well
}

// StoreState is one store. One that doesn't answer but belongs to the cluster isn't Up, and has little more than its name.
type StoreState struct {
	Name     string        `json:"name"`    // Store.ID
	Address  string        `json:"address"` // Store.Address
	Up       bool          `json:"up"`
	Leader   bool          `json:"leader"`
	Version  string        `json:"version"` // of its NATS server
	Started  time.Time     `json:"started"`
	Routes   int           `json:"routes"`  // other stores that it is connected to
	Clients  int           `json:"clients"` // connections of nodes
	Skew     time.Duration `json:"skew"`    // its clock before this process's, in nanoseconds, to about the time that the answer took
	Streams  int           `json:"streams"`
	Bytes    uint64        `json:"bytes"`     // of its disk that streams have
	LastSeen time.Duration `json:"last_seen"` // how long ago the leader heard of it, in nanoseconds, where it isn't Up
}

// StreamState is a part of the rooms' logs.
type StreamState struct {
	Name     string      `json:"name"`
	Messages uint64      `json:"messages"`
	Bytes    uint64      `json:"bytes"`
	Replicas int         `json:"replicas"` // that it shall have
	Leader   string      `json:"leader"`   // "" where it has none, and takes nothing
	Copies   []CopyState `json:"copies"`   // the leader's own included
}

// CopyState is a store's copy of a stream.
type CopyState struct {
	Store   string `json:"store"`
	Current bool   `json:"current"` // it has all that the leader has, or nearly
	Offline bool   `json:"offline"`
	Lag     uint64 `json:"lag"` // operations that it doesn't have yet
}

// Look asks the stores how they are. Each method waits for answers, a few seconds at most, or until ctx is done.
func (b *Broker) Look(ctx context.Context) (Overview, error) {
	return Overview{}, errors.New("not yet")
}

// Look asks the stores that Join names; for a process that is no node.
func (c Cluster) Look(ctx context.Context) (Overview, error) {
	return Overview{}, errors.New("not yet")
}

// Remove has the cluster forget a store that won't come back, by its name: streams get another copy elsewhere where there are
// stores for that. A store that is up is refused; so is everything while most stores are away. One that was removed and
// comes back must have an empty folder and another id.
func (c Cluster) Remove(ctx context.Context, store string) error {
	return errors.New("not yet")
}
