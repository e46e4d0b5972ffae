package nats

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Overview is how a cluster's stores are.
type Overview struct {
	Cluster  string        `json:"cluster"`
	Leader   string        `json:"leader"` // the store that says where streams are; "" where there is none: most stores don't hear each other
	Stores   []StoreState  `json:"stores"`
	Streams  []StreamState `json:"streams"`
	Problems []string      `json:"problems"` // in words for the operator; empty where all is well
}

// StoreState is one store. One that doesn't answer but belongs to the cluster isn't Up, and has little more than its
// name.
type StoreState struct {
	Name     string        `json:"name"`    // Store.ID
	Address  string        `json:"address"` // Store.Address
	Up       bool          `json:"up"`
	Leader   bool          `json:"leader"`
	Version  string        `json:"version"` // of its NATS server
	Started  time.Time     `json:"started"`
	Routes   int           `json:"routes"`  // other stores that it is connected to
	Clients  int           `json:"clients"` // connections of nodes
	Skew     time.Duration `json:"skew"`    // its clock before this process's, in nanoseconds, to about the time that the answer took
	Streams  int           `json:"streams"`
	Bytes    uint64        `json:"bytes"`     // of its disk that streams have
	LastSeen time.Duration `json:"last_seen"` // how long ago the leader heard of it, in nanoseconds, where it isn't Up; 0 where it never did
}

// StreamState is a part of the rooms' logs.
type StreamState struct {
	Name     string      `json:"name"`
	Messages uint64      `json:"messages"`
	Bytes    uint64      `json:"bytes"`
	Replicas int         `json:"replicas"` // that it shall have
	Leader   string      `json:"leader"`   // "" where it has none that answers, and takes nothing; which copies are whole isn't known then
	Copies   []CopyState `json:"copies"`   // the leader's own included
}

// CopyState is a store's copy of a stream.
type CopyState struct {
	Store   string `json:"store"`
	Current bool   `json:"current"` // it has all that the leader has, or nearly
	Offline bool   `json:"offline"`
	Lag     uint64 `json:"lag"` // operations that it doesn't have yet
}

// Look asks the stores how they are. Each method waits for answers, a few seconds at most, or until ctx is done.
func (b *Broker) Look(ctx context.Context) (o Overview, err error) {
	switch {
	case b.stores == nil:
		return Overview{}, errNoStores
	case b.stores.system != nil:
		o, err = b.stores.look(ctx, b.stores.system)
	default:
		o, err = b.stores.cluster.Look(ctx)
	}
	if err != nil || len(o.Problems) == 0 { // then no store is missing
		return o, err
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout/2)
	defer cancel()
	o.mentionRefused(ctx, b.send)
	return o, nil
}

var errNoStores = errors.New("this node has no stores: it is alone, or uses NATS servers that aren't Hubbub's")

// Look asks the stores that Join names; for a process that is no node.
func (c Cluster) Look(ctx context.Context) (o Overview, err error) {
	err = c.withSystem(ctx, func(s *stores, conn *client.Conn) error {
		o, err = s.look(ctx, conn)
		return err
	})
	return o, err
}

// withSystem connects to one of the stores, as one who may look at them.
func (c Cluster) withSystem(ctx context.Context, use func(s *stores, conn *client.Conn) error) error {
	if err := c.Check(); err != nil {
		return err
	}
	if len(c.Join) == 0 {
		return errors.New("join names no store")
	}
	s := &stores{cluster: c, others: c.Join}
	options := []client.Option{c.login(forStores), client.NoReconnect(), client.Timeout(apiTimeout), client.SetCustomDialer(dialer{}), client.Name("hubbub, looks at stores")}
	if c.TLS != nil {
		t, err := c.TLS.config()
		if err != nil {
			return err
		}
		s.tls = t
		options = append(options, client.Secure(t))
	}
	conn, err := client.Connect("nats://"+strings.Join(c.Join, ",nats://"), options...)
	if err != nil { // which of them?
		var why []string
		for _, address := range c.Join {
			if _, _, err := s.probe(ctx, address); err != nil {
				why = append(why, reason(address, err))
			}
		}
		return errors.New(strings.Join(append(why, err.Error()), "; "))
	}
	defer conn.Close()
	return use(s, conn)
}

// storeAnswer is what a server says of its streams.
type storeAnswer struct {
	Server server.ServerInfo `json:"server"`
	Data   server.JSInfo     `json:"data"`
}

func (s *stores) look(ctx context.Context, c *client.Conn) (Overview, error) {
	o := Overview{Cluster: s.cluster.name(), Stores: []StoreState{}, Streams: []StreamState{}, Problems: []string{}}
	expected := len(s.others)
	if s.own != "" {
		expected++
	}
	asked := time.Now()
	stats, err := gather[server.ServerStatsMsg](ctx, c, "STATSZ", nil, allOf)
	if err != nil {
		return o, fmt.Errorf("the stores: %w", err)
	}
	took := time.Since(asked)
	for _, m := range stats {
		o.Stores = append(o.Stores, storeState(&m, asked.Add(took/2)))
	}
	answers, err := gather[storeAnswer](ctx, c, "JSZ", server.JSzOptions{Accounts: true, Streams: true, Config: true},
		func(answers []storeAnswer) bool { return len(answers) >= len(stats) })
	if err != nil {
		return o, fmt.Errorf("the stores: %w", err)
	}
	for i := range answers {
		o.add(&answers[i])
	}
	for _, m := range stats {
		if !slices.ContainsFunc(answers, func(a storeAnswer) bool { return a.Server.Name == m.Server.Name }) {
			o.Problems = append(o.Problems, fmt.Sprintf("the store %s hasn't said in a second what it keeps: it isn't known", m.Server.Name))
		}
	}
	o.doubt()
	o.place(append(slices.Clone(s.others), s.own))
	slices.SortFunc(o.Stores, func(a, b StoreState) int { return strings.Compare(a.Address+a.Name, b.Address+b.Name) })
	slices.SortFunc(o.Streams, func(a, b StreamState) int { return strings.Compare(a.Name, b.Name) })
	o.judge(max(expected, len(o.Stores))) // a node may join only some
	return o, nil
}

func storeState(m *server.ServerStatsMsg, now time.Time) StoreState {
	state := StoreState{
		Name: m.Server.Name, Address: m.Server.Metadata[addressKey], Up: true, Version: m.Server.Version,
		Started: m.Stats.Start, Clients: m.Stats.Connections, Skew: m.Server.Time.Sub(now),
	}
	var to []string
	for _, r := range m.Stats.Routes {
		if !slices.Contains(to, r.Name) {
			to = append(to, r.Name)
		}
	}
	state.Routes = len(to)
	return state
}

// add notes what a store says of its streams, and of the others where it leads.
func (o *Overview) add(a *storeAnswer) {
	store := o.store(a.Server.Name)
	store.Streams, store.Bytes = a.Data.Streams, a.Data.Bytes
	switch meta := a.Data.Meta; {
	case meta == nil: // it is alone
		o.Leader = a.Server.Name
	case meta.Leader == a.Server.Name:
		o.Leader = meta.Leader
		for _, peer := range meta.Replicas {
			if known := o.store(peer.Name); !known.Up {
				known.LastSeen = peer.Active
			}
		}
	}
	for _, account := range a.Data.AccountDetails {
		for _, st := range account.Streams {
			if strings.HasPrefix(st.Name, streamPrefix) {
				o.addStream(a.Server.Name, &st)
			}
		}
	}
	o.store(o.Leader).Leader = o.Leader != ""
}

// store is one by its name; one that hasn't answered is added.
func (o *Overview) store(name string) *StoreState {
	i := slices.IndexFunc(o.Stores, func(s StoreState) bool { return s.Name == name })
	if i < 0 && name == "" {
		return &StoreState{}
	}
	if i < 0 {
		i = len(o.Stores)
		o.Stores = append(o.Stores, StoreState{Name: name})
	}
	return &o.Stores[i]
}

// place finds the address of the one store that doesn't answer: it is the one that is left of all addresses.
func (o *Overview) place(addresses []string) {
	away, up := -1, map[string]bool{"": true}
	for i := range o.Stores {
		switch is := &o.Stores[i]; {
		case is.Up:
			up[is.Address] = true
		case away >= 0:
			return
		default:
			away = i
		}
	}
	left := slices.DeleteFunc(addresses, func(a string) bool { return up[a] })
	if away >= 0 && len(left) == 1 {
		o.Stores[away].Address = left[0]
	}
}

// addStream notes what a store says of a stream: who leads it knows best.
func (o *Overview) addStream(by string, st *server.StreamDetail) {
	s := StreamState{Name: st.Name, Messages: st.State.Msgs, Bytes: st.State.Bytes, Replicas: 1, Leader: by, Copies: []CopyState{}}
	if st.Config != nil {
		s.Replicas = st.Config.Replicas
	}
	if st.Cluster != nil {
		s.Leader = st.Cluster.Leader
		for _, peer := range st.Cluster.Replicas {
			s.Copies = append(s.Copies, CopyState{Store: peer.Name, Current: peer.Current, Offline: peer.Offline, Lag: peer.Lag})
		}
	}
	if s.Leader == by {
		s.Copies = append(s.Copies, CopyState{Store: by, Current: true})
	}
	i := slices.IndexFunc(o.Streams, func(other StreamState) bool { return other.Name == s.Name })
	switch {
	case i < 0:
		o.Streams = append(o.Streams, s)
	case s.Leader == by:
		o.Streams[i] = s
	}
}

// doubt takes back what is said of stores that don't answer: leaders count their copies for some seconds after they have
// died, and where they led themselves the others name them until another one is elected. Which copies are whole then isn't known.
func (o *Overview) doubt() {
	up := func(name string) bool {
		return slices.ContainsFunc(o.Stores, func(s StoreState) bool { return s.Name == name && s.Up })
	}
	for i := range o.Streams {
		s := &o.Streams[i]
		if s.Leader != "" && !up(s.Leader) {
			s.Leader = ""
		}
		for j := range s.Copies {
			c := &s.Copies[j]
			away := !up(c.Store)
			c.Offline = c.Offline || away
			c.Current = c.Current && !away && s.Leader != ""
		}
	}
}

// judge says what isn't well, where so many stores are expected.
func (o *Overview) judge(expected int) {
	up := 0
	for _, s := range o.Stores {
		if s.Up {
			up++
			o.Problems = append(o.Problems, skewed(cmp.Or(s.Address, s.Name), s.Skew)...)
			continue
		}
		away := "is away"
		if s.LastSeen > 0 { // a leader that came after it has never heard of it
			away += " since " + s.LastSeen.Round(time.Second).String()
		}
		at := ""
		if s.Address != "" {
			at = " (" + s.Address + ")"
		}
		o.Problems = append(o.Problems, fmt.Sprintf("the store %s%s %s: start it, or remove it if it won't come back", s.Name, at, away))
	}
	if up < expected && len(o.Stores) < expected {
		o.Problems = append(o.Problems, fmt.Sprintf("%d of %d stores are there", up, expected))
	}
	if o.Leader == "" {
		o.Problems = append(o.Problems, errNoLeader.Error())
	}
	if expected > 1 && expected%2 == 0 && up == len(o.Stores) { // else one is being replaced, perhaps
		o.Problems = append(o.Problems, fmt.Sprintf("there are %d stores: one more or one less can lose as many; have 1, 3 or 5", expected))
	}
	fewer := map[string]int{}
	for _, s := range o.Streams {
		want := cmp.Or(ownReplicas(s.Name), replicas(expected))
		switch {
		case s.Leader == "":
			fewer["have no leader, and take nothing"]++
		case len(s.Copies) < s.Replicas || s.Replicas < want && up >= want:
			fewer["have fewer copies than there are stores for"]++
		case slices.ContainsFunc(s.Copies, func(c CopyState) bool { return !c.Current }):
			fewer["have a copy that is behind or away"]++
		}
	}
	for _, what := range slices.Sorted(maps.Keys(fewer)) {
		o.Problems = append(o.Problems, fmt.Sprintf("%d streams of %d %s", fewer[what], len(o.Streams), what))
	}
}

// Remove has the cluster forget a store that won't come back, by its name: streams get another copy elsewhere where
// there are stores for that. A store that is up is refused; so is everything while most stores are away. One that was
// removed and comes back must have an empty folder and another id, and gets ErrRemoved else.
func (c Cluster) Remove(ctx context.Context, store string) error {
	return c.withSystem(ctx, func(s *stores, conn *client.Conn) error {
		o, err := s.look(ctx, conn)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(o.Stores, func(s StoreState) bool { return s.Name == store })
		switch {
		case o.Leader == "":
			return fmt.Errorf("%w; nothing was removed", errNoLeader)
		case i < 0:
			return fmt.Errorf("the cluster has no store %q", store)
		case o.Stores[i].Up:
			return fmt.Errorf("the store %s is up: stop it first", store)
		}
		var unnoted error
		err = c.dropLost(ctx, &o, func(js jetstream.JetStream) (err error) {
			unnoted, err = removeNoted(ctx, conn, js, store, len(o.Stores))
			return err
		})
		if err == nil && unnoted != nil {
			return fmt.Errorf("the store was removed, but the others can't be told: don't start it with its data-dir from before: %w", unnoted)
		}
		return err
	})
}

// peerID is what NATS has in the place of a store's name, where nobody knows that any more.
func peerID(store string) (before, id string, ok bool) {
	return strings.Cut(strings.TrimSuffix(store, ")"), "(peerID: ")
}

func remove(ctx context.Context, conn *client.Conn, store string) error {
	question := server.JSApiMetaServerRemoveRequest{Server: store}
	if _, id, ok := peerID(store); ok {
		question = server.JSApiMetaServerRemoveRequest{Peer: id}
	}
	data, err := json.Marshal(question)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	m, err := conn.RequestWithContext(ctx, server.JSApiRemoveServer, data)
	if err != nil {
		return fmt.Errorf("the stores' leader: %w; look whether the store was removed", err)
	}
	var answer server.JSApiMetaServerRemoveResponse
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return fmt.Errorf("the stores' leader: %s", answer.Error.Description)
	}
	return nil
}
