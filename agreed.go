package hubbub

import (
	"context"
	"fmt"
)

// agreeOnName refuses a node of another cluster than the one that has the account in NATS: the two would be taken for one,
// and their clients would be in each other's rooms.
func (l *links) agreeOnName() error {
	ctx, cancel := context.WithTimeout(context.Background(), agreeTime)
	defer cancel()
	own := l.s.cfg().Cluster.Name
	b, err := l.own.Agree(ctx, "cluster", func(now []byte) []byte {
		if now != nil {
			return now
		}
		return []byte(own)
	})
	if has := string(b); err == nil && has != own {
		return fmt.Errorf("cluster-name %s: the account in NATS is that of the cluster %q; give this one an account of its own, or set cluster-name %s "+
			"(to give a cluster another name, stop all its nodes and remove the key cluster from the bucket HB_AGREED)", own, has, has)
	}
	return err
}
