package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A stream of one replica goes with its store. When the cluster forgets that store it gets another copy, which is empty,
// but has the same nonce and begins with the same offsets: nobody could tell that it is another log. So it is removed, and
// the nodes make one with another nonce, of which members are told.

// dropLost has forget make the cluster forget a store, and removes the streams whose only copy it had. o is how the stores
// are.
func (c Cluster) dropLost(ctx context.Context, o *Overview, forget func(jetstream.JetStream) error) error {
	options := []client.Option{c.login(forNodes), client.NoReconnect(), client.Timeout(apiTimeout), client.SetCustomDialer(dialer{}), client.Name("hubbub, removes a store")}
	if c.TLS != nil {
		t, err := c.TLS.config()
		if err != nil {
			return err
		}
		options = append(options, client.Secure(t))
	}
	conn, err := client.Connect("nats://"+strings.Join(c.Join, ",nats://"), options...)
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	away, err := unreached(ctx, js, o)
	if err != nil {
		return fmt.Errorf("it can't be seen which streams go with the store, and nothing was removed; try again: %w", err)
	}
	if err := forget(js); err != nil {
		return err
	}
	var gone []string // stores that are away, this one among them
	for _, s := range o.Stores {
		if !s.Up {
			gone = append(gone, s.Name)
		}
	}
	// Those that other stores have from now on had their only copy there.
	for until := time.Now().Add(2 * apiTimeout); len(away) > 0 && time.Now().Before(until); time.Sleep(retryAfter) {
		away = slices.DeleteFunc(away, func(name string) bool {
			info, err := look(ctx, js, name)
			switch {
			case err != nil:
				return errors.Is(err, jetstream.ErrStreamNotFound) // a node has removed it
			case info.Config.Replicas > 1 || info.Cluster == nil || slices.Contains(gone, info.Cluster.Leader):
				return true // another store is back, and has it
			}
			return js.DeleteStream(ctx, name) == nil
		})
	}
	if len(away) > 0 && len(gone) == 1 {
		return fmt.Errorf("the store was removed, but these streams, whose only copy it had, don't come back: %s; remove them", strings.Join(away, ", "))
	}
	return nil
}

// unreached are the streams of which no store that is up has a copy.
func unreached(ctx context.Context, js jetstream.JetStream, o *Overview) (names []string, err error) {
	list := js.StreamNames(ctx)
	for name := range list.Name() {
		known := slices.ContainsFunc(o.Streams, func(s StreamState) bool { return s.Name == name })
		if known || !strings.HasPrefix(name, streamPrefix) || name == beginning { // that has no log
			continue
		}
		_, err := look(ctx, js, name)
		var api *jetstream.APIError
		switch {
		case errors.As(err, &api) && api.ErrorCode == streamOffline:
			names = append(names, name)
		case err != nil && !errors.Is(err, jetstream.ErrStreamNotFound):
			return nil, fmt.Errorf("the stream %s: %w", name, err) // it may be about to be known
		}
	}
	return names, list.Err()
}

const streamOffline = 10118 // JetStream's word for a stream all of whose stores are away

func look(ctx context.Context, js jetstream.JetStream, name string) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout/2)
	defer cancel()
	s, err := js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.CachedInfo(), nil
}
