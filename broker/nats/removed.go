package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A store that was removed and comes back with the folder that it had would be ready, and get no copies. So what nodes agree on
// has its id since then, and a store looks there before it is among the others, as far as they are there, and again each time
// that it begins to serve. With an empty folder it has another id.

// ErrRemoved is why a store is refused by StartStore, or ends Run: it was removed (Cluster.Remove), and has its old folder.
var ErrRemoved = errors.New("this store was removed from its cluster (hubbub nodes remove), and its data-dir is the one from before: " +
	"give it an empty data-dir, and it comes in as a new store")

const (
	removedKey = "removed." // and the store's id, or what NATS has in its place: a text
	refusedKey = "refused." // and the store's id: a refusedStore
	// refusedFor is how long the overview tells of it. What starts it again and again does so more often.
	refusedFor = 10 * time.Minute
	// askRemoved bounds what a store waits for the others before it is among them: it may be they that wait for it.
	askRemoved = 2 * time.Second
)

// refusedStore is one that was removed and has tried to come back.
type refusedStore struct {
	Store   string `json:"store"`
	Address string `json:"address"`
}

// note writes what nodes agree on, whatever is there. It makes the bucket where there is none.
func note(ctx context.Context, js jetstream.JetStream, key string, value []byte, replicas int) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	kv, err := js.KeyValue(ctx, agreedBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = createAgreed(ctx, js, replicas)
	}
	if err == nil {
		_, err = kv.Put(ctx, key, value)
	}
	return err
}

// noted reads it, nil for nothing. The leader is asked: this store's own copy may be an old one.
func noted(ctx context.Context, c *client.Conn, key string) (value []byte, at time.Time, err error) {
	var answer server.JSApiMsgGetResponse
	err = ask(ctx, c, "$JS.API.STREAM.MSG.GET."+agreedStream, server.JSApiMsgGetRequest{LastFor: "$KV." + agreedBucket + "." + key}, &answer, &answer.ApiResponse)
	switch {
	case server.IsNatsErr(err, server.JSNoMessageFoundErr, server.JSStreamNotFoundErr):
		return nil, at, nil
	case err != nil || answer.Message == nil:
		return nil, at, err
	}
	return answer.Message.Data, answer.Message.Time, nil
}

// refusal is ErrRemoved where a store of one of these names was removed, which is then noted for the others to show.
func (s *Store) refusal(ctx context.Context, c *client.Conn, names ...string) error {
	for _, name := range names {
		switch v, _, err := noted(ctx, c, removedKey+name); {
		case err != nil:
			return err
		case len(v) == 0:
			continue
		}
		address, _ := s.Address()
		told, _ := json.Marshal(refusedStore{s.ID, address})
		if js, err := jetstream.New(c); err == nil {
			_ = note(ctx, js, refusedKey+s.ID, told, 1) // or only this one says it; the bucket is there
		}
		return ErrRemoved
	}
	return nil
}

// removed is ErrRemoved where another store says so. This one isn't among them yet. All are asked at once, and the first that
// knows is enough: some may be silent.
func (e *embedded) removed() error {
	if !e.clustered() || !e.hasPeers() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), askRemoved)
	defer cancel()
	others := e.store.others()
	answers := make(chan error, len(others))
	var all sync.WaitGroup
	for _, address := range others {
		all.Go(func() { answers <- e.removedSays(ctx, address) })
	}
	defer all.Wait()
	defer cancel()
	for range others {
		if err := <-answers; err == nil || errors.Is(err, ErrRemoved) {
			return err
		}
	}
	return nil // nobody knows; they say so later
}

// removedSays is what the store at an address knows of that; another error where it can't be asked, or doesn't know.
func (e *embedded) removedSays(ctx context.Context, address string) error {
	options := []client.Option{e.store.login(forNodes), client.NoReconnect(), client.Timeout(askRemoved), client.Name("hubbub, a store that comes"),
		client.IgnoreDiscoveredServers(), client.SkipHostLookup(), client.SetCustomDialer(untilDone{ctx})}
	if e.tls != nil {
		options = append(options, client.Secure(e.tls))
	}
	c, err := client.Connect("nats://"+address, options...)
	if err != nil {
		return err
	}
	defer c.Close()
	return e.store.refusal(ctx, c, e.store.ID)
}

// untilDone dials all addresses of a name at once, since some may be silent, and takes the first that answers. It cuts the
// connection when ctx is done.
type untilDone struct{ ctx context.Context }

func (d untilDone) Dial(network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addresses, err := net.DefaultResolver.LookupHost(d.ctx, host)
	if err != nil {
		return nil, err
	}
	type dialled struct {
		net.Conn
		error
	}
	all := make(chan dialled, len(addresses))
	for _, a := range addresses {
		go func() {
			c, err := new(net.Dialer).DialContext(d.ctx, network, net.JoinHostPort(a, port))
			if err == nil {
				context.AfterFunc(d.ctx, func() { c.Close() }) // also of those that aren't taken
			}
			all <- dialled{c, err}
		}()
	}
	for range addresses {
		first := <-all
		if err = first.error; err == nil {
			return first.Conn, nil
		}
	}
	return nil, err
}

// dialer waits for two seconds for an address, which is a packet that is sent again: where packets are dropped, each address is as
// silent as the next. What is said on the connection has a longer time, by client.Timeout.
type dialer struct{}

// Dial implements client.CustomDialer.
func (dialer) Dial(network, address string) (net.Conn, error) {
	return net.DialTimeout(network, address, 2*time.Second)
}

// belongs has Run end where this store was removed, which it may have been while it was cut off. Where nobody answers it may
// serve, and is asked again.
func (s *stores) belongs() error {
	own := s.b.server.running()
	if own == nil || !s.b.server.clustered() {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.b.ctx, apiTimeout/2)
	defer cancel()
	err := s.b.server.store.refusal(ctx, s.b.send, own.Name(), own.Node())
	switch {
	case errors.Is(err, ErrRemoved):
		select {
		case s.b.refusal <- err:
		default: // Run has it already
		}
		return err
	case err == nil:
		s.belong = true
	}
	return nil
}

// mentionRefused adds the stores that were removed, and have tried to come back a while ago.
func (o *Overview) mentionRefused(ctx context.Context, c *client.Conn) {
	const subject = "$KV." + agreedBucket + "."
	var info server.JSApiStreamInfoResponse
	err := ask(ctx, c, "$JS.API.STREAM.INFO."+agreedStream, server.JSApiStreamInfoRequest{SubjectsFilter: subject + refusedKey + "*"}, &info, &info.ApiResponse)
	if err != nil || info.StreamInfo == nil {
		return // the next time
	}
	for _, key := range slices.Sorted(maps.Keys(info.State.Subjects)) {
		if told, at, err := noted(ctx, c, strings.TrimPrefix(key, subject)); err == nil && told != nil {
			o.mention(told, at)
		}
	}
}

// mention adds a store that was removed, and has tried to come back a while ago.
func (o *Overview) mention(told []byte, at time.Time) {
	var r refusedStore
	back := func(s StoreState) bool { return s.Up && s.Address == r.Address && s.Name != r.Store }
	if json.Unmarshal(told, &r) != nil || time.Since(at) > refusedFor || slices.ContainsFunc(o.Stores, back) {
		return
	}
	again := ""
	if slices.ContainsFunc(o.Stores, func(s StoreState) bool { return s.Name == r.Store }) { // it was there before the others
		again = ", and remove it once more"
	}
	o.Problems = append(o.Problems, fmt.Sprintf("the store %s (%s) was removed, and has come back with its data-dir from before at %s: it is refused; give it an empty data-dir%s",
		r.Store, r.Address, at.UTC().Format(time.RFC3339), again))
}

// removeNoted has a store be removed, and noted as such, behind that: one that is noted and wasn't removed after all, since
// an answer was lost, would be refused for good. unnoted is why it couldn't be noted.
func removeNoted(ctx context.Context, conn *client.Conn, js jetstream.JetStream, store string, stores int) (unnoted, err error) {
	key := removedKey + store
	if _, id, ok := peerID(store); ok {
		key = removedKey + id
	}
	if err := remove(ctx, conn, store); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*apiTimeout) // who interrupts it now has removed the store
	defer cancel()
	// Where the store had the only copy of what nodes agree on, there is another one in a moment.
	for {
		if unnoted = note(ctx, js, key, []byte("removed"), replicas(stores)); unnoted == nil {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return unnoted, nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}
