package nats

import (
	"crypto/rand"

	"example.com/hubbub/broker"
)

// ID implements broker.Broker.
func (b *Broker) ID() broker.NodeID { return b.id }

func newNodeID() (id broker.NodeID) {
	rand.Read(id[:])
	return id
}

// Listen implements broker.Broker.
func (b *Broker) Listen(topic string, ready func(error)) (closed func()) {
	go ready(broker.ErrUnavailable)
	return func() {}
}

// Tell implements broker.Broker.
func (b *Broker) Tell(topic string, body []byte) error { return broker.ErrUnavailable }

// Call implements broker.Broker.
func (b *Broker) Call(to broker.NodeID, body []byte, done func([]byte, error)) {
	go done(nil, broker.ErrUnavailable)
}
