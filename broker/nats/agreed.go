package nats

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// agreedBucket is where nodes keep the little that all of them must agree on.
const (
	agreedBucket = "HB_AGREED"
	agreedStream = "KV_" + agreedBucket
)

// Agree has all nodes agree on a value: decide is given the one that they have, nil for none, and says which one it shall
// be; another one only if no other node has changed it meanwhile, or decide is asked again. It waits for the servers.
func (b *Broker) Agree(ctx context.Context, key string, decide func(now []byte) []byte) ([]byte, error) {
	kv, err := b.js.KeyValue(ctx, agreedBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		if err = b.mayCreate(ctx); err == nil {
			kv, err = createAgreed(ctx, b.js, b.replicas())
		}
	}
	for err == nil {
		var now []byte
		var revision uint64
		switch e, no := kv.Get(ctx, key); {
		case no == nil:
			now, revision = e.Value(), e.Revision()
		case !errors.Is(no, jetstream.ErrKeyNotFound):
			return nil, fmt.Errorf("read what nodes have agreed on: %w", no)
		}
		next := decide(now)
		if now != nil && bytes.Equal(now, next) {
			return now, nil
		}
		if revision == 0 {
			_, err = kv.Create(ctx, key, next)
		} else {
			_, err = kv.Update(ctx, key, next, revision)
		}
		if err == nil {
			return next, nil
		}
		if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) { // another node was first
			err = nil
		}
	}
	return nil, fmt.Errorf("write what nodes have agreed on: %w", err)
}

// createAgreed makes the bucket, with fewer replicas where some stores are away (stream.create).
func createAgreed(ctx context.Context, js jetstream.JetStream, replicas int) (kv jetstream.KeyValue, err error) {
	for n := replicas; ; n-- {
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: agreedBucket, Storage: jetstream.FileStorage, Replicas: n})
		var api *jetstream.APIError
		if n <= 2 || !errors.As(err, &api) || api.ErrorCode != noPeers {
			return kv, err
		}
	}
}

// SetMark is Config.Mark for a broker that has to ask others first what it is. It is called before Run.
func (b *Broker) SetMark(mark string) { b.marked.Store(&mark) }

func (b *Broker) mark() string {
	if m := b.marked.Load(); m != nil {
		return *m
	}
	return b.cfg.Mark
}

// replicas is how many a stream shall have. Who doesn't know how many servers there are has three in a cluster; stores raise
// it where there are five (replicate).
func (b *Broker) replicas() int {
	switch {
	case b.cfg.Replicas > 0:
		return b.cfg.Replicas
	case b.send.ConnectedClusterName() != "":
		return 3
	}
	return 1
}
