package nats

import (
	"cmp"
	"context"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// tend has this store's server start anew where it has stopped to write, and streams get the replicas that they shall
// have.
func (b *Broker) tend(serves bool) {
	e := b.server
	e.mu.Lock()
	s, sick := e.s, e.sick()
	e.mu.Unlock()
	if sick {
		e.revive()
		return
	}
	if serves && s.JetStreamIsLeader() { // one store does it, or for a moment two
		b.replicate(s)
	}
}

// replicate raises the replicas of streams that have fewer than they shall, where there are stores enough: they were
// made when there were fewer. Nothing ever lowers them by itself: who has fewer would have lost something.
func (b *Broker) replicate(s *server.Server) {
	info, err := s.Jsz(&server.JSzOptions{})
	if err != nil || info.Meta == nil {
		return
	}
	there := 1
	for _, peer := range info.Meta.Replicas {
		if !peer.Offline {
			there++
		}
	}
	ctx, cancel := context.WithTimeout(b.ctx, 2*apiTimeout)
	defer cancel()
	list := b.js.ListStreams(ctx)
	for info := range list.Info() {
		ours := strings.HasPrefix(info.Config.Name, streamPrefix) || info.Config.Name == agreedStream
		want := cmp.Or(ownReplicas(info.Config.Name), b.cfg.Replicas)
		if !ours || info.Config.Replicas >= want || there < want {
			continue
		}
		now, err := b.js.Stream(ctx, info.Config.Name) // another node may have changed it since
		if err != nil {
			continue
		}
		config := now.CachedInfo().Config
		was := config.Replicas
		config.Replicas = want
		if _, err := b.js.UpdateStream(ctx, config); err != nil {
			b.log.Warn("a stream can't get more replicas", "stream", config.Name, "replicas", was, "wanted", config.Replicas, "error", err)
			continue
		}
		b.log.Info("a stream gets more replicas", "stream", config.Name, "replicas", was, "wanted", config.Replicas)
	}
	if err := list.Err(); err != nil {
		b.log.Warn("streams can't be listed", "error", err)
	}
}
