package hubbub

import (
	"context"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/internal/loop"
)

// Refresh is what the hub calls when a client shows a new token.
var Refresh = (*Server).refresh

// Quick answers the publish at the front of b without net/http, where it can.
func Quick(s *Server, b []byte) (answer []byte, used int) {
	return s.api.Quick(s.cfg().BasePath)(b, nil)
}

// QuickUpgrade is what serves an upgrade without net/http, where its head is plain; nil: net/http does.
var QuickUpgrade = (*Server).quickUpgrade

// EndsWithin waits as Shutdown does for what may not end.
var EndsWithin = endsWithin

// TellsApart compares the rooms that the server will have with those that it has now, as it does with another node's.
func TellsApart(s *Server) func() string {
	now := s.nodeInfo()
	return func() string { return s.difference(now) }
}

// Buffered is what MaxBufferedBytes bounds, by the account itself.
func Buffered(s *Server) int64 { return s.loop.Buffered() }

// Hang keeps a worker from taking turns until release is called.
func Hang(s *Server, worker int) (release func()) {
	on := make(chan struct{})
	s.loop.Workers()[worker].Post(hanging(on), 0)
	return func() { close(on) }
}

type hanging chan struct{}

func (h hanging) Run(*loop.Worker) { <-h }

// Meet has the server look for other nodes anew, as when it comes. It hears of those by hear.
func Meet(s *Server) (hear func(others ...broker.Peer), met chan error) {
	l := &links{s: s, own: s.links.own, viewed: make(chan struct{}, 1), known: map[broker.NodeID]string{}}
	met = make(chan error, 1)
	go func() { met <- l.meet(context.Background()) }()
	return func(others ...broker.Peer) { l.view(others, false) }, met
}

// Writes is how many calls have written to connections.
func Writes(s *Server) (n int64) {
	s.loop.Inspect(time.Minute, func(w *loop.Worker) { n += w.Counts().Writes })
	return n
}

// TakeSample does what happens every ten seconds.
func TakeSample(s *Server) { s.takeSample() }

// WouldAllow is what the log advises where all connections are open that may be.
func WouldAllow(s *Server) string { return s.cfg().tooMany().flag }
