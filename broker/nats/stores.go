package nats

import (
	"cmp"
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

// Tests have less.
var (
	askEvery  = 5 * time.Second  // whether the stores still serve
	bear      = 10 * time.Second // when they don't: another one of them may lead soon
	tellEvery = 10 * time.Second // what keeps them from it
)

const (
	askSoon   = time.Second / 4 // while they don't serve
	mayDiffer = 2 * time.Second // clocks
)

var errNoLeader = errors.New("the stores have no leader: most of them must be up and hear each other, and all of them when the cluster begins")

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
	begun   bool      // the cluster has, once
	brought bool      // all that this store had when it was alone is copied
	one     bool      // it is known that all stores are of one cluster
	belong  bool      // it is known that this store wasn't removed, since it could serve last
	looked  time.Time // for what is wrong
	found   string    // of that, last; "" where the node can serve
	told    string    // last
	toldAt  time.Time

	mu      sync.Mutex
	why     error // why the node can't serve; nil where it can
	catchUp error // why this store's copies aren't whole since it has started; nil where they are
}

// follow looks whether the stores serve, tends this one, and logs what is wrong, until the broker ends.
func (s *stores) follow() {
	s.looked = time.Now()
	for missed := (time.Time{}); ; {
		err := s.serve()
		if errors.Is(err, ErrRemoved) { // for good, and Run ends
			s.set(err)
			return
		}
		if err == nil {
			missed = time.Time{}
		} else if missed.IsZero() {
			missed = time.Now()
		}
		if s.serves() && time.Since(missed) < bear {
			err = nil // their leader changes: no reason to send all clients of all nodes away
		}
		s.set(err)
		switch since := time.Since(s.looked); {
		case err != nil && since > tellEvery:
			s.looked = time.Now()
			s.found = strings.Join(s.wrong(s.b.ctx), "; ")
			s.set(err)
			s.tell(slog.LevelWarn, "this node can't serve: "+s.Ready().Error())
		case err == nil && since > 3*tellEvery && s.own != "":
			s.looked = time.Now()
			if o, err := s.b.Look(s.b.ctx); err == nil && len(o.Problems) > 0 {
				s.tell(slog.LevelWarn, "the cluster's stores: "+strings.Join(o.Problems, "; "))
			}
		}
		wait := askEvery
		if !missed.IsZero() || s.behind() != nil {
			wait = askSoon
		}
		if !s.b.pause(wait) {
			return
		}
	}
}

// serve is an error where the node can't serve. It tends the store.
func (s *stores) serve() error {
	if s.own == "" {
		if err := s.ask(); err != nil || s.one {
			return err
		}
		return s.areOne()
	}
	err := s.leader()
	if err == nil && !s.belong {
		err = s.belongs()
	}
	if err == nil && !s.begun {
		err = s.begin()
	}
	if err == nil {
		err = s.write()
	}
	s.belong = s.belong && err == nil
	s.b.tend(err == nil)
	if err == nil && s.behind() != nil {
		health := s.b.server.health()
		s.mu.Lock()
		s.catchUp = health
		s.mu.Unlock()
	}
	return err
}

// behind says whether this store has yet to catch up with the others since it has started. Nodes are served meanwhile,
// but no other store should be stopped.
func (s *stores) behind() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.catchUp
}

// serves says whether the node could serve a moment ago.
func (s *stores) serves() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why == nil
}

// set says whether the node can serve.
func (s *stores) set(err error) {
	served := s.serves()
	switch {
	case err == nil:
		s.found = ""
	case s.found != "" && !strings.Contains(err.Error(), s.found): // a store may have said the same
		err = fmt.Errorf("%w: %s", err, s.found)
	}
	s.mu.Lock()
	s.why = err
	s.mu.Unlock()
	if !served && err == nil {
		s.told = ""
		s.tell(slog.LevelInfo, "the cluster's stores are there: this node can serve")
	}
}

// Ready is Broker.Ready.
func (s *stores) Ready() error { return cmp.Or(s.lost(), s.behind()) }

// lost says why the stores don't serve this node, or nil.
func (s *stores) lost() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.why, s.few())
}

// few is an error where this store hears of so few others that they are none together: then no leader will come, and
// nothing has to be borne. Where what others send is lost on its way, its own server would notice only much later.
func (s *stores) few() error {
	if s.own == "" || s.b.nodes == nil {
		return nil
	}
	if heard, ok := s.b.nodes.otherStores(); ok && heard+1 <= (len(s.others)+1)/2 {
		return errNoLeader
	}
	return nil
}

// tell logs what is new, and what isn't once a minute.
func (s *stores) tell(level slog.Level, text string) {
	if text == s.told && time.Since(s.toldAt) < time.Minute {
		return
	}
	s.told, s.toldAt = text, time.Now()
	s.b.log.Log(s.b.ctx, level, text, "cluster", s.cluster.name())
}

// serving is where nodes ask whether the stores serve: who is connected to one, that one.
const serving = "hb.serving"

// answer has this store say to nodes whether it can serve.
func (s *stores) answer() error {
	_, err := s.b.send.QueueSubscribe(serving, "hb", func(m *client.Msg) {
		var why string
		if err := s.lost(); err != nil {
			why = err.Error()
		}
		_ = m.Respond([]byte(why)) // who doesn't hear it asks again
	})
	return err
}

// ask asks a store whether it can serve.
func (s *stores) ask() error {
	m, err := s.b.send.Request(serving, nil, apiTimeout/2)
	switch {
	case err != nil && !s.b.send.IsConnected():
		return errors.New("no store can be reached")
	case err != nil:
		return fmt.Errorf("no store answers: %w", err)
	case len(m.Data) > 0:
		return fmt.Errorf("a store says: %s", m.Data)
	}
	return nil
}

// leader is an error where the stores have none.
func (s *stores) leader() error {
	ctx, cancel := context.WithTimeout(s.b.ctx, apiTimeout/2)
	defer cancel()
	_, err := s.b.js.AccountInfo(ctx)
	return leaderless(err)
}

// write has most stores write something: a leader that was left alone doesn't know it for 10 s and more.
func (s *stores) write() error {
	ctx, cancel := context.WithTimeout(s.b.ctx, apiTimeout/2)
	defer cancel()
	_, err := s.b.js.Publish(ctx, beginningSubject, nil)
	return leaderless(err)
}

func leaderless(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &api) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, jetstream.ErrNoStreamResponse):
		return errNoLeader
	}
	return fmt.Errorf("the stores: %w", err)
}

// probe asks the store at an address which stores it knows, and says which it is.
func (s *stores) probe(ctx context.Context, address string) (id string, known []server.ServerStatsMsg, err error) {
	c, err := s.connect(address)
	if err != nil {
		return "", nil, err
	}
	defer c.Close()
	known, err = gather[server.ServerStatsMsg](ctx, c, "STATSZ", nil, allOf)
	return c.ConnectedServerId(), known, err
}

// connect connects to the store at an address, as one who may look at stores.
func (s *stores) connect(address string) (*client.Conn, error) {
	options := []client.Option{s.cluster.login(forStores), client.NoReconnect(), client.IgnoreDiscoveredServers(),
		client.Timeout(apiTimeout / 2), client.SetCustomDialer(dialer{}), client.Name("hubbub, looks at stores")}
	if s.tls != nil {
		options = append(options, client.Secure(s.tls))
	}
	return client.Connect("nats://"+address, options...)
}

// allOf says whether all stores have answered that one of them knows.
func allOf(known []server.ServerStatsMsg) bool {
	routes := 0
	for _, m := range known {
		routes = max(routes, storeState(&m, time.Now()).Routes)
	}
	return len(known) > routes
}

// gather asks all stores that the one at the other end knows. It waits until there are all answers, a second at most.
func gather[T any](ctx context.Context, c *client.Conn, what string, question any, all func(answers []T) bool) (answers []T, err error) {
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
	for len(answers) == 0 || !all(answers) {
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

// areOne is an error where the addresses are those of stores that don't know each other: of two clusters, or each
// alone. Those that aren't there aren't asked.
func (s *stores) areOne() error {
	var first string
	var known []string
	for _, address := range s.others {
		id, all, err := s.probe(s.b.ctx, address)
		if s.b.ctx.Err() != nil {
			return s.b.ctx.Err() // each probe may take seconds
		}
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
		if self = s.b.server.running(); self == nil {
			return []string{"the store's own server is down"}
		}
	}
	for _, address := range s.others {
		id, known, err := s.probe(ctx, address)
		if ctx.Err() != nil {
			return wrong
		}
		switch {
		case err != nil:
			wrong = append(wrong, reason(address, err))
		case self == nil: // a node has no more to do with it
		case id == self.ID():
			wrong = append(wrong, fmt.Sprintf("%s is this store, which calls itself %s, and so it waits for one store too many: have --join and --cluster-advertise name it alike", address, s.own))
		case slices.ContainsFunc(known, func(m server.ServerStatsMsg) bool { return m.Server.ID == id && m.Server.Name == self.Name() }):
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
	case refused(err):
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
