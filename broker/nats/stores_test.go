package nats

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const testSecret = "a secret of the tests"

// testStores are stores of a cluster, which can be started again.
type testStores struct {
	t       testing.TB
	log     logged
	configs []Store
	brokers []*Broker // nil where one isn't up
	next    int
}

// newStores has settings for stores with folders and ports of their own. None is up. They end with the test.
func newStores(t testing.TB, n int, change ...func(*Store)) *testStores {
	t.Helper()
	c := &testStores{t: t, brokers: make([]*Broker, n)}
	var addresses []string
	for range n {
		addresses = append(addresses, fmt.Sprintf("127.0.0.1:%d", freePair(t)))
	}
	for i, address := range addresses {
		s := Store{Cluster: Cluster{Secret: testSecret, Join: addresses}, Dir: filepath.Join(t.TempDir(), "log"), ID: fmt.Sprint("store", i), Listen: address}
		for _, change := range change {
			change(&s)
		}
		c.configs = append(c.configs, s)
	}
	t.Cleanup(func() {
		for i, b := range c.brokers {
			if b != nil {
				c.kill(i)
			}
		}
		if t.Failed() {
			t.Log(c.log.String())
		}
	})
	return c
}

// freePair is a port that nobody has, as the one above, and which isn't given to who doesn't ask for one.
func freePair(t testing.TB) int {
	t.Helper()
	free := func(port int) bool {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			l.Close()
		}
		return err == nil
	}
	for {
		port := 20000 + 2*mathrand.IntN(6000)
		if free(port) && free(port+1) {
			return port
		}
	}
}

// restart kills stores, all of them before one is started again.
func (c *testStores) restart(which ...int) {
	for _, i := range which {
		c.kill(i)
	}
	c.startAll()
}

// restartAsPlanned does so one after the other, each when the one before has caught up.
func (c *testStores) restartAsPlanned() {
	for i := range c.brokers {
		c.stop(i)
		c.startAll()
	}
}

func (c *testStores) metaLeader() int {
	return max(0, slices.IndexFunc(c.brokers, func(b *Broker) bool { return b.server.running().JetStreamIsLeader() }))
}

// streamLeader leads a stream.
func (c *testStores) streamLeader() int {
	return max(0, slices.IndexFunc(c.brokers, func(b *Broker) bool { return len(b.server.leads()) > 0 }))
}

// leads are the rooms' streams that the store leads.
func (e *embedded) leads() (names []string) {
	s := e.running()
	info, err := s.Jsz(&server.JSzOptions{Accounts: true, Streams: true})
	if err != nil {
		return nil
	}
	for _, account := range info.AccountDetails {
		for _, st := range account.Streams {
			if st.Name != beginning && s.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, st.Name) {
				names = append(names, st.Name)
			}
		}
	}
	return names
}

// stepDown has each stream choose another leader, five times.
func (c *testStores) stepDown() {
	for range 5 {
		for _, b := range c.brokers {
			for _, name := range b.server.leads() {
				if err := b.server.running().JetStreamStepdownStream(server.DEFAULT_GLOBAL_ACCOUNT, name); err != nil {
					c.t.Log(err)
				}
			}
		}
		time.Sleep(100 * time.Millisecond) // publishers go on between
	}
	c.ready()
}

// cut cuts all nodes' connections.
func (c *testStores) cut() {
	for _, b := range c.brokers {
		s := b.server.running()
		connections, err := s.Connz(&server.ConnzOptions{})
		if err != nil {
			c.t.Error(err)
			continue
		}
		for _, conn := range connections.Conns {
			_ = s.DisconnectClientByID(conn.Cid) // it may have gone by itself
		}
	}
}

// forget removes what is stored.
func (c *testStores) forget() {
	c.t.Helper()
	list := c.brokers[0].js.StreamNames(c.t.Context())
	for name := range list.Name() {
		if name == beginning {
			continue
		}
		if err := c.brokers[0].js.DeleteStream(c.t.Context(), name); err != nil {
			c.t.Error(err)
		}
	}
	if err := list.Err(); err != nil {
		c.t.Error(err)
	}
}

// wipe has all start with empty folders.
func (c *testStores) wipe() {
	for i := range c.brokers {
		c.kill(i)
		if err := os.RemoveAll(c.configs[i].Dir); err != nil {
			c.t.Error(err)
		}
	}
	c.startAll()
}

// logged is what was logged.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logged) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

func (c *testStores) config() Config {
	return Config{Logger: slog.New(slog.NewTextHandler(&c.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
}

func (c *testStores) start(i int) {
	c.t.Helper()
	b, err := StartStore(c.configs[i], c.config())
	if err != nil {
		c.t.Fatal(err)
	}
	c.brokers[i] = b
}

// stop ends a store as planned.
func (c *testStores) stop(i int) {
	if b := c.brokers[i]; b != nil {
		b.Close()
		c.brokers[i] = nil
	}
}

// kill ends a store at once: it hands nothing over.
func (c *testStores) kill(i int) {
	b := c.brokers[i]
	b.server.mu.Lock()
	b.server.end()
	b.server.over = true
	b.server.mu.Unlock()
	c.stop(i)
}

// startAll starts those that aren't up, and waits until all can serve and know each other.
func (c *testStores) startAll() {
	c.t.Helper()
	for i, b := range c.brokers {
		if b == nil {
			c.start(i)
		}
	}
	c.ready()
}

func (c *testStores) ready() {
	c.t.Helper()
	for _, b := range c.brokers {
		if b != nil {
			ready(c.t, b)
		}
	}
	c.until("all stores are current", func() bool {
		for _, b := range c.brokers {
			if b != nil && b.server.clustered() && !b.server.running().JetStreamIsCurrent() {
				return false
			}
		}
		return true
	})
}

func ready(t testing.TB, b *Broker) {
	t.Helper()
	for deadline := time.Now().Add(patience); b.Ready() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(b.Ready())
		}
	}
}

func (c *testStores) until(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("never came: %s\n%s", what, c.log.String())
		}
	}
}

func (c *testStores) logs(text string) {
	c.t.Helper()
	c.until(text, func() bool { return strings.Contains(c.log.String(), text) })
}

// join is a node that keeps nothing.
func (c *testStores) join() *Broker {
	c.t.Helper()
	b, err := Join(c.configs[0].Cluster, c.config())
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// testTLS are files of a CA and a certificate for 127.0.0.1.
func testTLS(t testing.TB) *TLS {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sign := func(c, by *x509.Certificate, key, byKey *ecdsa.PrivateKey) []byte {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, byKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	caKey, key := newKey(), newKey()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &TLS{
		CA:   write("ca.pem", "CERTIFICATE", sign(ca, ca, caKey, caKey)),
		Cert: write("node.pem", "CERTIFICATE", sign(leaf, ca, key, caKey)),
		Key:  write("node.key", "PRIVATE KEY", der),
	}
}

// well waits until three stores are there with a copy of each stream, and nothing is wrong.
func (c *testStores) well(n *testNode) {
	c.t.Helper()
	var o Overview
	var err error
	defer func() {
		if c.t.Failed() {
			c.t.Logf("the stores are %+v, %v", o, err)
		}
	}()
	c.until("each stream has three copies", func() bool {
		o, err = n.Look(c.t.Context())
		return err == nil && len(o.Stores) == 3 && len(o.Problems) == 0 && o.Leader != "" && len(o.Streams) > 1 &&
			!slices.ContainsFunc(o.Streams, func(s StreamState) bool { return s.Replicas != 3 || len(s.Copies) != 3 })
	})
}
