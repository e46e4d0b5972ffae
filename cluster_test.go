package hubbub_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"example.com/hubbub"
	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/rawtest"
)

// secretOfTests is what the nodes of tests have in common.
const secretOfTests = "a secret of sixteen bytes or more"

// nextButGaps is what comes next but gaps of chats: a node that comes can't know what was said before.
func nextButGaps(c *rawtest.Client) map[string]any {
	for {
		if m := c.NextJSON(); m["msg_type"] != "gap" || m["room"] != nil {
			return m
		}
	}
}

// Two servers with brokers of the application's own have one log for each room.
func TestTwoServersWithABrokerOfOnesOwn(t *testing.T) {
	memory := brokertest.NewMemory()
	var nodes []*rawtest.Server
	for range 2 {
		nodes = append(nodes, rawtest.Start(t, hubbub.Config{Broker: memory.Broker(), Cluster: hubbub.Cluster{Secret: secretOfTests}}))
	}
	c := rawtest.Dial(t, nodes[1], "/ws")
	c.NextJSON() // the welcome
	c.Text(`{"msg_type":"join_room","room":"r","id":1}`)
	joined := nextButGaps(c)
	at, err := nodes[0].Publish(t.Context(), hubbub.Publication{Room: "r", Content: 1})
	if err != nil || at.Epoch != joined["epoch"] {
		t.Fatalf("published at %+v, %v; the member has %v", at, err, joined)
	}
	if m := nextButGaps(c); m["content"] != float64(1) || m["offset"] != float64(at.Offset) {
		t.Errorf("got %v, want what was published on the other node at %+v", m, at)
	}
}

// A node whose rooms have other policies than those of the nodes that are there doesn't start, and says which.
func TestANodeWithOtherPoliciesIsRefused(t *testing.T) {
	memory := brokertest.NewMemory()
	rooms := func(match string) hubbub.Config {
		return hubbub.Config{
			Broker: memory.Broker(), Cluster: hubbub.Cluster{Secret: secretOfTests},
			Rooms: []hubbub.RoomPolicy{{Match: "a"}, {Match: match, Presence: "full"}},
		}
	}
	for range 2 {
		first := rooms("b.*")
		first.NodeName = "first"
		rawtest.Start(t, first)
	}
	_, err := hubbub.New(rooms("c.*"))
	if err == nil || !strings.Contains(err.Error(), "first") || !strings.Contains(err.Error(), `rooms[1] (match "c.*") is another one there`) {
		t.Errorf("with another rule: %v", err)
	}
	more := rooms("b.*")
	more.Rooms = append(more.Rooms, hubbub.RoomPolicy{Match: "d"})
	if _, err := hubbub.New(more); err == nil || !strings.Contains(err.Error(), `rooms[2] (match "d") isn't there`) {
		t.Errorf("with one rule more: %v", err)
	}
	more = rooms("b.*")
	more.Rooms = more.Rooms[:1]
	if _, err := hubbub.New(more); err == nil || !strings.Contains(err.Error(), "it has more rules than this node, which has 1") {
		t.Errorf("with one rule less: %v", err)
	}
}

// Where the node that is there has no rules at all, the first of this one is named.
func TestANodeWithPoliciesBesideOneWithout(t *testing.T) {
	memory := brokertest.NewMemory()
	cfg := hubbub.Config{Broker: memory.Broker(), Cluster: hubbub.Cluster{Secret: secretOfTests}}
	rawtest.Start(t, cfg)
	cfg.Broker, cfg.Rooms = memory.Broker(), []hubbub.RoomPolicy{{Match: "a"}}
	if _, err := hubbub.New(cfg); err == nil || !strings.Contains(err.Error(), `rooms[0] (match "a") isn't there`) {
		t.Errorf("with a rule: %v", err)
	}
}

// holding is a broker that holds those up who ask another node how many connections a user has.
type holding struct {
	broker.Broker
	hold atomic.Pointer[func()]
}

func (b *holding) Call(to broker.NodeID, body []byte, done func([]byte, error)) {
	const callSeats = 108 // of internal/hub
	if hold := b.hold.Load(); hold != nil && body[0] == callSeats {
		(*hold)()
	}
	b.Broker.Call(to, body, done)
}

// While other nodes, of which one hangs, are asked how many connections users have, those come in of whom nobody is asked.
func TestWhoAsksOtherNodesHoldsNoTurn(t *testing.T) {
	memory := brokertest.NewMemory()
	cfg := func(b broker.Broker) hubbub.Config {
		return hubbub.Config{
			Broker: b, Cluster: hubbub.Cluster{Secret: secretOfTests}, Workers: 1, JWT: hubbub.JWT{Key: jwtSecret}, Anonymous: true,
			Limits: hubbub.Limits{User: hubbub.UserLimits{Connections: 3}},
		}
	}
	b := &holding{Broker: memory.Broker()}
	s := rawtest.Start(t, cfg(b))
	other := rawtest.Start(t, cfg(memory.Broker()))
	for _, n := range []*rawtest.Server{s, other} {
		rawtest.Eventually(t, "the node is ready", func() bool { return isReady(n) })
	}
	const turns = 4 // of one worker
	var waiting atomic.Int32
	anonymousIsIn := make(chan struct{})
	hold := func() {
		waiting.Add(1)
		<-anonymousIsIn
	}
	b.hold.Store(&hold)
	var named sync.WaitGroup
	for i := range turns {
		named.Go(func() {
			c := rawtest.Dial(t, s, "/ws?token="+aToken(t, jwt.MapClaims{"sub": fmt.Sprint("user ", i)}))
			if m := c.NextJSON(); m["msg_type"] != "welcome" {
				t.Errorf("got %v", m)
			}
		})
	}
	rawtest.Eventually(t, "all of them wait for the other node", func() bool { return waiting.Load() >= turns })
	if m := rawtest.Dial(t, s, "/ws").NextJSON(); m["msg_type"] != "welcome" {
		t.Errorf("got %v", m)
	}
	b.hold.Store(nil)
	close(anonymousIsIn)
	named.Wait()
}

// A node that is cut off says so to load balancers, and goes on for those who come all the same.
func TestANodeThatIsCutOffIsNotReady(t *testing.T) {
	memory := brokertest.NewMemory()
	b := memory.Broker()
	cluster := hubbub.Cluster{Secret: secretOfTests}
	s := rawtest.Start(t, hubbub.Config{Broker: b, Cluster: cluster})
	rawtest.Start(t, hubbub.Config{Broker: memory.Broker(), Cluster: cluster})
	ready := func(status int, says string) {
		t.Helper()
		for end := time.Now().Add(rawtest.Patience); ; time.Sleep(time.Millisecond) {
			answer, err := http.Get("http://" + s.Addr + "/readyz")
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if answer.StatusCode == status && strings.Contains(string(body), says) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("/readyz says %d %s, want %d %s", answer.StatusCode, body, status, says)
			}
		}
	}
	ready(http.StatusOK, "ready")
	memory.Cut(b, true)
	ready(http.StatusServiceUnavailable, "cut off")
	c := rawtest.Dial(t, s, "/ws")
	if m := c.NextJSON(); m["msg_type"] != "welcome" {
		t.Errorf("got %v", m)
	}
	memory.Cut(b, false)
	ready(http.StatusOK, "ready")
}

// A node that has stores isn't alone: where it hears of nobody these are busy. It waits for them, to know whether it fits, and
// who has the sessions for which clients come; after ten seconds it begins without.
func TestANodeWaitsForOthersThatMustBeThere(t *testing.T) {
	joining := hubbub.Cluster{Secret: secretOfTests, Join: []string{freePair(t)}}
	alone := hubbub.Cluster{Secret: secretOfTests, Listen: freePair(t)}
	for _, test := range []struct {
		name  string
		cfg   hubbub.Config
		hears time.Duration // after which it hears of another one; 0 for never
		meets time.Duration // after which it has met all that it waits for
	}{
		{"stores that answer late", hubbub.Config{Cluster: joining}, 5 * time.Second, 5 * time.Second},
		{"stores that don't answer", hubbub.Config{Cluster: joining}, 0, 10 * time.Second},
		{"a store that may be alone", hubbub.Config{Cluster: alone, DataDir: t.TempDir()}, 0, 2500 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := rawtest.Start(t, test.cfg).Server
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				hear, met := hubbub.Meet(s)
				hear()
				if test.hears != 0 {
					time.AfterFunc(test.hears, func() {
						hear(broker.Peer{ID: broker.NodeID{1}, Beat: []byte(`{"id":"01","started":9000000000000}`)})
					})
				}
				if err := <-met; err != nil || time.Since(began) != test.meets {
					t.Errorf("it has met them after %v: %v", time.Since(began), err)
				}
			})
		})
	}
}

// A store that starts when most of the others are gone, as after a power cut, says so: at once in /readyz, and in its figures once
// it has had the time to come in.
func TestAStoreThatNeverComesInIsCutOff(t *testing.T) {
	t.Parallel()
	own := freePair(t)
	s := rawtest.Start(t, hubbub.Config{DataDir: t.TempDir(), Cluster: hubbub.Cluster{Secret: secretOfTests, Listen: own, Join: []string{own, freePair(t), freePair(t)}}})
	scraped(t, s, map[string]float64{"cut_off": 0})
	scraped(t, s, map[string]float64{"cut_off": 1})
}

func TestSettingsOfClustersThatCantBe(t *testing.T) {
	type cluster = hubbub.Cluster
	store := func(change func(c *hubbub.Config)) hubbub.Config {
		c := hubbub.Config{DataDir: "data", Cluster: cluster{Secret: secretOfTests, Listen: "a:7422", Join: []string{"a:7422", "b:7422", "c:7422"}}}
		change(&c)
		return c
	}
	copies := func(n int) []hubbub.RoomPolicy {
		return []hubbub.RoomPolicy{{Match: "a*", History: &hubbub.History{Replicas: n}}}
	}
	for _, test := range []struct {
		cfg  hubbub.Config
		want string // "" for none
	}{
		{store(func(c *hubbub.Config) {}), ""},
		{store(func(c *hubbub.Config) { c.Cluster.Join = nil }), ""},
		{store(func(c *hubbub.Config) { c.Cluster.Join, c.Cluster.Replicas = c.Cluster.Join[1:], 3 }), ""},
		{store(func(c *hubbub.Config) { c.DataDir = "" }), "cluster-listen a:7422: a store needs data-dir"},
		{store(func(c *hubbub.Config) { c.Cluster.Secret = "" }), "cluster-secret: it is missing"},
		{store(func(c *hubbub.Config) { c.Cluster.Secret = "fifteen letters" }), "cluster-secret has 15 bytes"},
		{store(func(c *hubbub.Config) { c.Cluster.Listen = "7422" }), `cluster-listen "7422"`},
		{store(func(c *hubbub.Config) { c.Cluster.Listen = ":7422" }), "set cluster-advertise"},
		{store(func(c *hubbub.Config) { c.Cluster.Listen, c.Cluster.Advertise = ":7422", "a" }), ""},
		{store(func(c *hubbub.Config) { c.Cluster.Join = c.Cluster.Join[:1] }), "join a:7422: it names this store alone"},
		{store(func(c *hubbub.Config) { c.Cluster.Join = c.Cluster.Join[1:2] }), "join b:7422: two stores"},
		{store(func(c *hubbub.Config) { c.Cluster.Join[1] = "b" }), `join "b"`},
		{store(func(c *hubbub.Config) { c.Cluster.Join = []string{"a:7422", "a:7423", "a:7425"} }), "join a:7423: the store a:7422 has one of its ports"},
		{store(func(c *hubbub.Config) { c.Cluster.Join = []string{"A:7423", "b:7422"} }), "cluster-listen a:7422: the store A:7423 has one of its ports"},
		{store(func(c *hubbub.Config) { c.Cluster.Join = []string{"a:7422", "a:7424", "b:7423"} }), ""},
		{store(func(c *hubbub.Config) { c.Cluster.Listen = "10.0.0.1:7422" }), "join a:7422,b:7422,c:7422: it doesn't name this store, 10.0.0.1:7422, which would be one too many"},
		{store(func(c *hubbub.Config) {
			c.Cluster.TLSCA, c.Cluster.TLSCert, c.Cluster.TLSKey = "/no/ca", "/no/cert", "/no/key"
		}), "cluster-tls-ca: open /no/ca"},
		{store(func(c *hubbub.Config) { c.Cluster.Replicas = 5 }), "replicas 5: there are 3 stores"},
		{store(func(c *hubbub.Config) { c.Cluster.Replicas = 2 }), "replicas 2: it must be 1, 3 or 5"},
		{store(func(c *hubbub.Config) { c.Rooms = copies(3) }), ""},
		{store(func(c *hubbub.Config) { c.Cluster.Replicas, c.Rooms = 1, copies(3) }), ""},
		{store(func(c *hubbub.Config) { c.Rooms = copies(5) }), `rooms[0].history.replicas 5: there are 3 stores, by cluster-listen and join (match "a*")`},
		{store(func(c *hubbub.Config) { c.Rooms = copies(2) }), "rooms[0].history.replicas 2: it must be 1, 3 or 5"},
		{store(func(c *hubbub.Config) { c.Cluster.TLSCert = "x.pem" }), "cluster-tls-ca"},
		{store(func(c *hubbub.Config) { c.Cluster.Name = "a b" }), `cluster-name "a b"`},
		{store(func(c *hubbub.Config) { c.NATS.URLs = []string{"nats://n:4222"} }), "cluster-listen a:7422: a store keeps the logs itself"},
		{store(func(c *hubbub.Config) { c.Broker = brokertest.NewMemory().Broker() }), "Broker: it takes the place"},
		{store(func(c *hubbub.Config) { c.MaxMessageBytes = 7 << 20; c.SendQueueBytes = 8 << 20 }), "max-message-bytes 7340032"},
		{hubbub.Config{Cluster: cluster{Join: []string{"a:7422"}, Secret: secretOfTests}}, ""},
		{hubbub.Config{Cluster: cluster{Join: []string{"a:7422"}}}, "cluster-secret: it is missing"},
		{hubbub.Config{Cluster: cluster{Join: []string{"a:7422"}, Secret: secretOfTests}, NATS: hubbub.NATS{URLs: []string{"nats://n"}}}, "join a:7422: the nodes meet at its stores, or at nats"},
		{hubbub.Config{NATS: hubbub.NATS{URLs: []string{"nats://n:4222", "tls://m"}}}, ""},
		{hubbub.Config{NATS: hubbub.NATS{URLs: []string{"http://me:word@n"}}}, "nats http://...@n: an address is wanted"},
		{hubbub.Config{NATS: hubbub.NATS{URLs: []string{"nats://a-token@n/path"}}}, "nats nats://...@n/path: an address is wanted"},
		{hubbub.Config{NATS: hubbub.NATS{URLs: []string{"nats://me:fifteen letters@n:x"}}}, "nats (not shown"},
		{hubbub.Config{NATS: hubbub.NATS{URLs: []string{"nats://me:word@n:99999"}}}, "nats n:99999: its port isn't between 1 and 65535"},
		{hubbub.Config{Cluster: cluster{Join: []string{"a:7423", "a:7422"}, Secret: secretOfTests}}, "join a:7422: the store a:7423 has one of its ports"},
		{hubbub.Config{NATS: hubbub.NATS{URLs: []string{"nats://n:4222"}, Creds: "/no/creds", CA: "/no/ca"}}, "nats-creds: open /no/creds"},
		{hubbub.Config{NATS: hubbub.NATS{URLs: []string{"nats://n:4222"}, Creds: "cluster_test.go"}}, "nats-creds cluster_test.go has no credentials"},
		{hubbub.Config{NATS: hubbub.NATS{URLs: []string{"nats://n:4222"}, CA: "/no/ca"}}, "nats-ca: open /no/ca"},
		{hubbub.Config{NATS: hubbub.NATS{URLs: []string{"nats://n:4222"}, CA: "cluster_test.go"}}, "nats-ca cluster_test.go has no certificate in PEM"},
		{hubbub.Config{NATS: hubbub.NATS{Creds: "file"}}, "nats-creds file: it needs nats"},
		{hubbub.Config{NATS: hubbub.NATS{CA: "file"}}, "nats-ca file: it needs nats"},
		{hubbub.Config{Cluster: cluster{Advertise: "a"}}, "cluster-advertise a: it needs cluster-listen"},
		{hubbub.Config{Cluster: cluster{TLSKey: "x"}}, "cluster-tls-key x: it needs cluster-listen or join"},
		{hubbub.Config{Cluster: cluster{Replicas: 3}}, "replicas 3: there are no stores"},
		{hubbub.Config{Rooms: copies(3)}, `rooms[0].history.replicas 3: there are no stores; set cluster-listen, join or nats (match "a*")`},
		{hubbub.Config{Rooms: copies(-1)}, "rooms[0].history.replicas -1: it must be 1, 3 or 5"},
		{hubbub.Config{Rooms: copies(1), DataDir: "data"}, ""},
		{hubbub.Config{Rooms: copies(5), NATS: hubbub.NATS{URLs: []string{"nats://n:4222"}}}, ""},
		{hubbub.Config{Rooms: copies(3), Broker: brokertest.NewMemory().Broker(), Cluster: cluster{Secret: secretOfTests}}, ""},
		{hubbub.Config{Cluster: cluster{Secret: "fifteen letters"}}, "cluster-secret has 15 bytes"},
		{hubbub.Config{Broker: brokertest.NewMemory().Broker()}, "cluster-secret: it is missing"},
	} {
		err := test.cfg.Validate()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: %v, want %q", test.cfg.Cluster, err, test.want)
		}
		if strings.Contains(fmt.Sprint(err), "fifteen letters") || strings.Contains(fmt.Sprint(err), "me:word") {
			t.Errorf("a secret is in the error: %v", err)
		}
	}
}

// The application's direct message of 900 KB, which the network takes, moves over it with the parked session that it waits for.
func TestALargeDirectMessageMovesOverNATS(t *testing.T) {
	t.Parallel()
	url := startNATS(t, true)
	var nodes []*rawtest.Server
	for range 2 {
		s := rawtest.Start(t, hubbub.Config{NATS: hubbub.NATS{URLs: []string{url}}})
		rawtest.Eventually(t, "the node is ready", func() bool { return isReady(s) })
		nodes = append(nodes, s)
	}
	c := rawtest.Dial(t, nodes[1], "/ws")
	welcome := c.NextJSON()
	c.CloseNow()
	rawtest.Eventually(t, "the session is parked", func() bool { return nodes[1].Info().Parked == 1 })
	p := hubbub.Publication{Client: welcome["client_id"].(string), Content: strings.Repeat("z", 900_000)}
	if _, err := nodes[1].Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	c = rawtest.Dial(t, nodes[0], "/ws?resume="+welcome["resume_token"].(string))
	if m := c.NextJSON(); m["resumed"] != true {
		t.Fatal(m)
	}
	c.Text(`{"msg_type":"resume","rooms":{},"id":1}`)
	for m := c.NextJSON(); m["msg_type"] != "direct_message"; m = c.NextJSON() {
		if m["msg_type"] != "resumed" {
			t.Fatalf("before the message: %v", m)
		}
	}
}
