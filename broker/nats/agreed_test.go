package nats

import (
	"fmt"
	"sync"
	"testing"
)

// Nodes that start at once agree on one value, and one that changes it doesn't take back what another has changed.
func TestNodesAgree(t *testing.T) {
	s := startEmbedded(t)
	var nodes []*Broker
	for range 4 {
		b := s.node(t)
		t.Cleanup(b.Close)
		nodes = append(nodes, b)
	}
	var all sync.WaitGroup
	got := make([]string, len(nodes))
	for i, b := range nodes {
		all.Go(func() {
			v, err := b.Agree(t.Context(), "key", func(now []byte) []byte {
				if now != nil {
					return now
				}
				return fmt.Append(nil, "of node ", i)
			})
			if err != nil {
				t.Error(err)
			}
			got[i] = string(v)
		})
	}
	all.Wait()
	for _, v := range got[1:] {
		if v != got[0] || v == "" {
			t.Errorf("they have %q", got)
		}
	}
	for _, b := range nodes {
		all.Go(func() {
			if _, err := b.Agree(t.Context(), "count", func(now []byte) []byte { return append(now, 'x') }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	v, err := nodes[0].Agree(t.Context(), "count", func(now []byte) []byte { return now })
	if err != nil || string(v) != "xxxx" {
		t.Errorf("four changes come to %q, %v", v, err)
	}
}
