package nats

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// others are the addresses of the other stores.
func (s *Store) others() (others []string) {
	own, _ := s.Address()
	for _, address := range s.Join {
		if address != own && !slices.Contains(others, address) {
			others = append(others, address)
		}
	}
	return others
}

// clustered says whether there are other stores.
func (e *embedded) clustered() bool { return e.store != nil && len(e.store.others()) > 0 }

// addressKey is where a server's metadata have its address.
const addressKey = "hubbub-address"

// options are the server's. A server changes them, so each has its own.
func (e *embedded) options() (*server.Options, error) {
	o := &server.Options{
		ServerName: "hubbub",
		DontListen: true,
		JetStream:  true,
		StoreDir:   e.dir,
		MaxPayload: maxPayload,
		NoSigs:     true,
		// How long what was acknowledged may be in the system's hands alone. With each message it would cost a disk's
		// turn.
		SyncInterval: time.Second,
	}
	if e.store == nil {
		return o, nil
	}
	address, err := e.store.Address()
	if err != nil {
		return nil, err
	}
	host, port, err := split("cluster-listen", e.store.Listen)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = server.DEFAULT_HOST
	}
	// Where there are but these two accounts, and its configuration says nothing of authorization, a server lets everybody in
	// who shows nothing: only this says something.
	if err := o.ProcessConfigString("authorization {}"); err != nil {
		return nil, err
	}
	o.ServerName, o.Metadata = e.store.ID, map[string]string{addressKey: address}
	o.DontListen, o.Host, o.Port, o.ClientAdvertise = false, host, port, address
	nodes, _ := e.store.user(forNodes)
	stores, _ := e.store.user(forStores)
	system := server.NewAccount(server.DEFAULT_SYSTEM_ACCOUNT)
	o.SystemAccount, o.Accounts = system.Name, []*server.Account{system}
	o.Nkeys = []*server.NkeyUser{{Nkey: nodes}, {Nkey: stores, Account: system}}
	o.TLSConfig, o.TLSVerify = e.tls.Clone(), e.tls != nil
	// Who has so much to do that it doesn't answer for so long is left to reconnect.
	o.TLSTimeout, o.AuthTimeout = handshake.Seconds(), handshake.Seconds()
	o.PingInterval, o.MaxPingsOut = 10*time.Second, 3
	o.LameDuckGracePeriod, o.LameDuckDuration = 10*time.Millisecond, time.Second
	if !e.clustered() {
		return o, nil
	}
	if e.brings() {
		o.Metadata[bringsKey] = "yes"
	}
	c := &o.Cluster
	c.Name, c.Host, c.Port, c.Advertise = e.store.name(), host, port+1, above(address)
	c.Username, c.Password = "hubbub", e.store.routePassword()
	c.TLSConfig = e.tls.Clone()
	c.TLSTimeout, c.AuthTimeout = handshake.Seconds(), handshake.Seconds()
	c.PingInterval, c.MaxPingsOut = 5*time.Second, 3
	// With its own among them: each store counts on as many as there are, so that no two groups can form.
	for _, other := range append(e.store.others(), address) {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats", User: url.UserPassword(c.Username, c.Password), Host: above(other)})
	}
	return o, nil
}

// running is the server; nil while it starts anew, and once it has stopped.
func (e *embedded) running() *server.Server {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.s
}

const handshake = 10 * time.Second

// above is the address whose port is one above.
func above(address string) string {
	host, p, _ := net.SplitHostPort(address)
	port, _ := strconv.Atoi(p)
	return net.JoinHostPort(host, strconv.Itoa(port+1))
}

// handOver has the other stores lead what this one leads, and then sends the nodes that are connected to it to them. It
// takes 2 s or so, and 10 at most. e.mu is held.
func (e *embedded) handOver() {
	ended := make(chan struct{})
	go func(s *server.Server) {
		defer close(ended)
		s.LameDuckShutdown()
	}(e.s)
	select {
	case <-ended:
	case <-time.After(handshake):
	}
}

// sick says whether the server has stopped to write some of its files, for good: its disk was full, or has failed.
// e.mu is held.
func (e *embedded) sick() bool {
	if e.s == nil || !e.s.JetStreamEnabled() {
		return true
	}
	health := e.s.Healthz(&server.HealthzOptions{Details: true})
	return slices.ContainsFunc(health.Errors, func(err server.HealthzError) bool { return strings.Contains(err.Error, "write error") })
}

// health is an error where the store's copies aren't whole.
func (e *embedded) health() error {
	s := e.running()
	if s == nil {
		return errors.New("this store's server is down")
	}
	health := s.Healthz(&server.HealthzOptions{Details: true})
	if len(health.Errors) == 0 {
		return nil
	}
	return fmt.Errorf("this store catches up with the others: %d things are to do, the first: %s", len(health.Errors), health.Errors[0].Error)
}

// clusterFile is a file in the folder of a store that says which cluster's it is, and whether other stores are there.
const clusterFile = "cluster"

// take says that the folder is a cluster's, "" for that of a node that is alone, and refuses one that is another's.
// What a store that was alone has in it isn't taken over by servers that form a cluster, which would even delete it:
// that is moved aside.
func (e *embedded) take(cluster string, clustered bool) error {
	path := filepath.Join(e.dir, clusterFile)
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	was, with, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	wasClustered := with == "with others" || e.hasPeers()
	switch {
	case was != "" && cluster != "" && was != cluster:
		return fmt.Errorf("it is a store's of the cluster %q, and this one is %q: give it the folder of this cluster, or an empty one", was, cluster)
	case wasClustered && !clustered:
		err := fmt.Errorf("it is a store's of the cluster %q, which has others, and no join names them: alone it would begin "+
			"a second history beside theirs (to have it do so nevertheless, begin with an empty folder)", cmp.Or(was, cluster))
		if e.brings() {
			err = fmt.Errorf("%w; the cluster never took over what it had when it was alone: to go back to that, remove %s, and give %s its name", err, e.dir, e.aside())
		}
		return err
	case clustered && !wasClustered:
		if err := e.moveAside(); err != nil {
			return err
		}
	}
	if cluster == "" {
		return nil // it may become a cluster's first
	}
	text := cluster + " alone\n"
	if clustered {
		text = cluster + " with others\n"
	}
	if string(b) == text {
		return nil
	}
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o600)
}

// hasPeers says whether servers that form a cluster have the folder, by what they keep of each other. A power cut may leave
// clusterFile empty, or undone; what the cluster has must not be taken for a lone node's then.
func (e *embedded) hasPeers() bool {
	_, err := os.Stat(filepath.Join(e.dir, server.JetStreamStoreDir, server.DEFAULT_SYSTEM_ACCOUNT, "_js_", "_meta_"))
	return err == nil
}

// aside is the folder that has what the store had when it was alone.
func (e *embedded) aside() string { return e.dir + ".alone" }

func (e *embedded) moveAside() error {
	files := filepath.Join(e.dir, server.JetStreamStoreDir)
	if _, err := os.Stat(files); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := os.Stat(e.aside()); err == nil {
		return fmt.Errorf("it has the history of a node that was alone, and so has %s: remove the one that isn't needed", e.aside())
	}
	if err := os.MkdirAll(e.aside(), 0o700); err != nil {
		return err
	}
	return os.Rename(files, filepath.Join(e.aside(), server.JetStreamStoreDir))
}
