package nats

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	askEvery  = 5 * time.Second  // whether the stores still serve
	askSoon   = time.Second / 4  // while they don't
	tellEvery = 10 * time.Second // what keeps them from it, and how long it is no news
	mayDiffer = 2 * time.Second  // clocks
)

var errNotYet = errors.New("no store of the cluster has answered yet")

// stores is what a node knows of its cluster's stores.
type stores struct {
	b       *Broker
	cluster Cluster
	own     string       // this store's address; "" where the node isn't one
	others  []string     // the other stores' addresses
	tls     *tls.Config  // nil for none
	system  *client.Conn // to the server in this process, as one who may look at stores; nil where there is none

	// follow's own.
	one    bool      // it is known that all stores are of one cluster
	looked time.Time // for what is wrong
	told   string    // of that, last
	toldAt time.Time

	mu  sync.Mutex
	why error // why the node can't serve; nil where it can
}

// follow looks whether the stores serve, tends this one, and logs what is wrong, until the broker ends.
func (s *stores) follow() {
	s.looked = time.Now()
	for {
		err := s.ask()
		if err == nil && !s.one {
			err = s.areOne()
		}
		if err == nil && s.own != "" {
			s.b.tend()
		}
		if err != nil && s.b.ctx.Err() == nil && time.Since(s.looked) > tellEvery {
			s.looked = time.Now()
			if wrong := s.wrong(s.b.ctx); len(wrong) > 0 {
				err = fmt.Errorf("%w: %s", err, strings.Join(wrong, "; "))
			}
			s.tell(slog.LevelWarn, "this node can't serve: "+err.Error())
		} else if err == nil && time.Since(s.looked) > 3*tellEvery && s.own != "" {
			s.looked = time.Now()
			if o, err := s.b.Look(s.b.ctx); err == nil && len(o.Problems) > 0 {
				s.tell(slog.LevelWarn, "the cluster's stores: "+strings.Join(o.Problems, "; "))
			}
		}
		s.set(err)
		wait := askEvery
		if err != nil {
			wait = askSoon
		}
		if !s.b.pause(wait) {
			return
		}
	}
}

// set says whether the node can serve.
func (s *stores) set(err error) {
	s.mu.Lock()
	was := s.why
	if err == nil || was == nil || time.Since(s.looked) < time.Second { // what was found to be wrong says more
		s.why = err
	}
	s.mu.Unlock()
	if was != nil && err == nil {
		s.told = ""
		s.tell(slog.LevelInfo, "the cluster's stores are there: this node can serve")
	}
}

// tell logs what is new, and what isn't once a minute.
func (s *stores) tell(level slog.Level, text string) {
	if text == s.told && time.Since(s.toldAt) < time.Minute {
		return
	}
	s.told, s.toldAt = text, time.Now()
	s.b.log.Log(s.b.ctx, level, text, "cluster", s.cluster.name())
}

// ask has the stores answer one question of JetStream: it has a leader then.
func (s *stores) ask() error {
	ctx, cancel := context.WithTimeout(s.b.ctx, apiTimeout/2)
	defer cancel()
	_, err := s.b.js.AccountInfo(ctx)
	var api *jetstream.APIError
	switch {
	case err == nil:
	case !s.b.send.IsConnected():
		err = errors.New("no store can be reached")
	case errors.As(err, &api) || errors.Is(err, context.DeadlineExceeded):
		err = errors.New("the stores have no leader: most of them must be up and hear each other")
	default:
		err = fmt.Errorf("the stores: %w", err)
	}
	return err
}

// probe asks the store at an address which stores it knows, and says which it is.
func (s *stores) probe(ctx context.Context, address string) (id string, known []server.ServerStatsMsg, err error) {
	options := []client.Option{s.cluster.login(forStores), client.NoReconnect(), client.IgnoreDiscoveredServers(),
		client.Timeout(apiTimeout), client.Name("hubbub, looks at stores")}
	if s.tls != nil {
		options = append(options, client.Secure(s.tls))
	}
	c, err := client.Connect("nats://"+address, options...)
	if err != nil {
		return "", nil, err
	}
	defer c.Close()
	known, err = gather[server.ServerStatsMsg](ctx, c, "STATSZ", nil, len(s.others)+1)
	return c.ConnectedServerId(), known, err
}

// gather asks all stores that the one at the other end knows. It waits for as many answers as are expected, up to a second.
func gather[T any](ctx context.Context, c *client.Conn, what string, question any, expected int) (answers []T, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	data, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	if question == nil {
		data = nil
	}
	arrived := make(chan *client.Msg, 64)
	inbox := c.NewInbox()
	sub, err := c.ChanSubscribe(inbox, arrived)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	if err := c.PublishRequest("$SYS.REQ.SERVER.PING."+what, inbox, data); err != nil {
		return nil, err
	}
	for len(answers) < expected {
		select {
		case m, ok := <-arrived:
			var answer T
			if !ok || json.Unmarshal(m.Data, &answer) != nil {
				return answers, errors.New("no answer that can be read")
			}
			answers = append(answers, answer)
		case <-ctx.Done():
			if len(answers) == 0 {
				return nil, errors.New("no answer")
			}
			return answers, nil
		}
	}
	return answers, nil
}

// areOne is an error where the addresses are those of stores that don't know each other: of two clusters, or each alone. Those
// that aren't there aren't asked. Servers that form a cluster see for themselves.
func (s *stores) areOne() error {
	if s.own != "" {
		s.one = true
		return nil
	}
	var first string
	var known []string
	for _, address := range s.others {
		id, all, err := s.probe(s.b.ctx, address)
		if err != nil {
			continue
		}
		if first == "" {
			for _, m := range all {
				known = append(known, m.Server.ID)
			}
			first = address
		} else if !slices.Contains(known, id) {
			return fmt.Errorf("the stores at %s and %s don't know each other: each is alone, or they are two clusters; start all stores with the same --join", first, address)
		}
	}
	s.one = first != ""
	return nil
}

// wrong says of each other store what keeps it from being one of the same cluster, in words for the operator.
func (s *stores) wrong(ctx context.Context) (wrong []string) {
	var self *server.Server
	if s.own != "" {
		s.b.server.mu.Lock()
		self = s.b.server.s
		s.b.server.mu.Unlock()
		if self == nil {
			return []string{"the store's own server is down"}
		}
	}
	for _, address := range s.others {
		id, known, err := s.probe(ctx, address)
		switch {
		case err != nil:
			wrong = append(wrong, reason(address, err))
		case self == nil: // a node has no more to do with it
		case id != self.ID() && slices.ContainsFunc(known, func(m server.ServerStatsMsg) bool { return m.Server.ID == id && m.Server.Name == self.Name() }):
			wrong = append(wrong, fmt.Sprintf("%s is a store with the same id as this one: one's data-dir is a copy of the other's; give it an empty one", address))
		case !slices.ContainsFunc(known, func(m server.ServerStatsMsg) bool { return m.Server.ID == self.ID() }):
			wrong = append(wrong, fmt.Sprintf("%s answers, but there is no route to it: it was started without --join, or has another --cluster-name, or %s can't be reached", address, above(address)))
		}
		if err == nil {
			for _, m := range known {
				if m.Server.ID == id {
					wrong = append(wrong, skewed(address, time.Until(m.Server.Time))...)
				}
			}
		}
	}
	return wrong
}

// reason says why a store can't be reached, and what to look at.
func reason(address string, err error) string {
	text := err.Error()
	switch {
	case errors.Is(err, client.ErrAuthorization) || strings.Contains(strings.ToLower(text), "authorization violation"):
		return address + " refuses this node: it has another --cluster-secret or another --cluster-name"
	case errors.Is(err, client.ErrSecureConnRequired), errors.Is(err, client.ErrSecureConnWanted):
		return address + " and this node don't both have TLS: set --cluster-tls-ca, --cluster-tls-cert and --cluster-tls-key on all nodes, or on none"
	case strings.Contains(text, "tls: ") || strings.Contains(text, "x509: "):
		return fmt.Sprintf("%s: %s: all nodes need certificates of the same --cluster-tls-ca that name their hosts", address, text)
	}
	return fmt.Sprintf("no way to %s: %s", address, text)
}

func skewed(store string, skew time.Duration) []string {
	if skew.Abs() < mayDiffer {
		return nil
	}
	return []string{fmt.Sprintf("the clock of %s differs by %v from this node's: set both by NTP, for how long messages are kept goes by it", store, skew.Round(time.Second/10))}
}
