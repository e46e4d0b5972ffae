package hubbub

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"example.com/hubbub/broker/nats"
)

// Cluster is what a node knows of the others that it belongs to. But for Listen and Advertise all nodes have the same.
type Cluster struct {
	// Name tells clusters apart that use the same NATS servers, or whose stores might reach each other: letters, digits, -
	// and _, at most 64. Default: "hubbub".
	Name string
	// Secret is what nodes know each other by, at least 16 bytes. The tokens by which clients resume their sessions are
	// signed by a key that is made of it, so that any node takes them. Default: none; Listen, Join and Broker need one.
	Secret string
	// Listen makes this node a store: one that keeps the logs of rooms, in DataDir, for all nodes, and at which they meet.
	// It is the address for them, host:port or :port; the port above is for the other stores. Default: this is no store.
	Listen string
	// Advertise is where the other nodes find Listen: host:port, or a host with Listen's port. Default: Listen, which must
	// have a host then.
	Advertise string
	// Join are the addresses of all stores, host:port each; a store's own may be among them. Who is no store itself needs
	// one of them at least. Default: none; a store is the only one.
	Join []string
	// Replicas is how many stores keep each log whose rooms don't say it (History.Replicas): 1, 3 or 5. Default: as many as
	// there are; with NATS 3 where its servers are a cluster.
	Replicas int
	// TLSCert, TLSKey and TLSCA are files, PEM: who this node is to others, and who signs for them. All nodes have them or
	// none. Default: none, and what nodes tell each other can be read on its way.
	TLSCert, TLSKey, TLSCA string
}

// NATS are servers with JetStream that somebody else runs, in the place of stores.
type NATS struct {
	// URLs are servers of one NATS cluster: nats://host:4222 or tls://host:4222, with a user and password where they want
	// one. Default: none.
	URLs []string
	// Creds is a file with the credentials of an account, which must be Hubbub's alone. Default: none.
	Creds string
	// CA is a file, PEM, with who signs for the servers. Default: the system's.
	CA string
}

// role is how a node has to do with others.
type role int

const (
	roleAlone   role = iota // in memory, or with DataDir on disk
	roleBroker              // by Config.Broker
	roleNATS                // by servers that somebody else runs
	roleStore               // keeps the logs for others
	roleJoining             // by stores
)

func (c *Config) role() role {
	switch {
	case c.Broker != nil:
		return roleBroker
	case len(c.NATS.URLs) > 0:
		return roleNATS
	case c.Cluster.Listen != "":
		return roleStore
	case len(c.Cluster.Join) > 0:
		return roleJoining
	}
	return roleAlone
}

// mayBeAlone says whether there may be no other node: those that are stores for this one are nodes, too.
func (c *Config) mayBeAlone() bool {
	r := c.role()
	return r != roleJoining && !(r == roleStore && len(c.stores()) > 1)
}

// keepsLog says whether a log in DataDir is this process's own.
func (c *Config) keepsLog() bool {
	return c.DataDir != "" && (c.role() == roleAlone || c.role() == roleStore)
}

func (c Config) validateCluster() (bad faults) {
	l, r := &c.Cluster, c.role()
	if c.Broker != nil && (len(c.NATS.URLs) > 0 || l.Listen != "" || len(l.Join) > 0) {
		bad.add("Broker: it takes the place of nats, cluster-listen and join; set one alone")
	}
	if len(c.NATS.URLs) > 0 {
		if l.Listen != "" {
			bad.add("cluster-listen %s: a store keeps the logs itself, and nats has them elsewhere; set one alone", l.Listen)
		}
		if len(l.Join) > 0 {
			bad.add("join %s: the nodes meet at its stores, or at nats; set one alone", strings.Join(l.Join, ","))
		}
	}
	switch n := len(l.Secret); {
	case n == 0 && r == roleBroker:
		bad.add("cluster-secret: it is missing; nodes with a Broker need one in common, or a session can't be resumed on another node")
	case n == 0 && (r == roleStore || r == roleJoining):
		bad.add("cluster-secret: it is missing; cluster-listen and join need it, the same on all nodes; hubbub cluster init makes one")
		l.Secret = strings.Repeat("-", nats.MinSecret) // or it is told once more below; c is a copy
	case n > 0 && n < nats.MinSecret && r != roleStore && r != roleJoining:
		bad.add("cluster-secret has %d bytes; it must have %d or more", n, nats.MinSecret)
	}
	switch r {
	case roleStore:
		c.validateStore(&bad)
	case roleJoining:
		n := c.natsCluster()
		joined(&bad, n.Check())
	}
	if l.Advertise != "" && l.Listen == "" {
		bad.add("cluster-advertise %s: it needs cluster-listen: others look for stores alone", l.Advertise)
	}
	c.validateReplicas(&bad)
	c.validateNATS(&bad)
	return bad
}

// joined adds each of the errors that errors.Join has made one.
func joined(bad *faults, err error) {
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		bad.add("%s", strings.TrimSuffix(line, "\n"))
	}
}

func (c *Config) validateStore(bad *faults) {
	if c.DataDir == "" {
		bad.add("cluster-listen %s: a store needs data-dir, where it keeps the logs", c.Cluster.Listen)
	}
	s := nats.Store{Cluster: c.natsCluster(), Listen: c.Cluster.Listen, Advertise: c.Cluster.Advertise}
	joined(bad, s.Check())
	own := c.storeAddress()
	switch n := len(c.stores()); {
	case n == 1 && len(c.Cluster.Join) > 0:
		bad.add("join %s: it names this store alone; name the others, or leave it out where there are none", strings.Join(c.Cluster.Join, ","))
	case n == 2:
		bad.add("join %s: two stores take nothing when either is gone, which is worse than one; have 1, 3 or 5", strings.Join(c.Cluster.Join, ","))
	case n%2 == 0 && own != "" && !slices.Contains(c.Cluster.Join, own):
		bad.add("join %s: it doesn't name this store, %s, which would be one too many; name it there as it calls itself, by cluster-advertise or else cluster-listen", strings.Join(c.Cluster.Join, ","), own)
	}
}

// stores are the addresses of all stores that this one knows of, itself among them.
func (c *Config) stores() []string {
	all := slices.Clone(c.Cluster.Join)
	if own := c.storeAddress(); own != "" {
		all = append(all, own)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (c *Config) validateReplicas(bad *faults) {
	n := c.Cluster.Replicas
	if why := c.badReplicas(n); why != "" {
		bad.add("replicas %d: %s", n, why)
	} else if n != 0 && c.role() == roleBroker {
		bad.add("replicas %d: a Broker of your own decides itself", n)
	}
	for i, r := range c.Rooms[:min(len(c.Rooms), maxRules)] { // more are refused as a whole
		if r.History == nil {
			continue
		}
		if why := c.badReplicas(r.History.Replicas); why != "" {
			bad.add("rooms[%d].history.replicas %d: %s (match %q)", i, r.History.Replicas, why, r.Match)
		}
	}
}

// badReplicas says why there can't be so many; "" where there can.
func (c *Config) badReplicas(n int) string {
	switch r := c.role(); {
	case n == 0: // as many as there are
	case n != 1 && n != 3 && n != 5:
		return "it must be 1, 3 or 5: with an even number no more stores may fail than with one less"
	case n > 1 && r == roleAlone:
		return "there are no stores; set cluster-listen, join or nats"
	case r == roleStore && n > len(c.stores()):
		return fmt.Sprintf("there are %d stores, by cluster-listen and join", len(c.stores()))
	}
	return ""
}

func (c *Config) validateNATS(bad *faults) {
	for _, text := range c.NATS.URLs {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Path != "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			shown := "(not shown: it may have a password)"
			if err == nil {
				if u.User != nil {
					u.User = url.User("...") // a name may be a token
				}
				shown = u.String()
			}
			bad.add("nats %s: an address is wanted such as nats://host:4222 or tls://host:4222", shown)
		} else if n, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || n == 0) {
			bad.add("nats %s: its port isn't between 1 and 65535", u.Host)
		}
	}
	if len(c.NATS.URLs) == 0 && c.NATS.Creds != "" {
		bad.add("nats-creds %s: it needs nats", c.NATS.Creds)
	}
	if len(c.NATS.URLs) == 0 && c.NATS.CA != "" {
		bad.add("nats-ca %s: it needs nats", c.NATS.CA)
	}
	if c.role() == roleNATS {
		joined(bad, (&nats.Config{Creds: c.NATS.Creds, CA: c.NATS.CA}).CheckFiles())
	}
	if l := &c.Cluster; c.role() != roleStore && c.role() != roleJoining {
		for _, f := range [][2]string{{"cluster-tls-cert", l.TLSCert}, {"cluster-tls-key", l.TLSKey}, {"cluster-tls-ca", l.TLSCA}} {
			if f[1] != "" {
				bad.add("%s %s: it needs cluster-listen or join", f[0], f[1])
			}
		}
	}
}

// natsCluster are the settings of a store's cluster as package nats has them.
func (c *Config) natsCluster() nats.Cluster {
	l := &c.Cluster
	n := nats.Cluster{Name: l.Name, Secret: l.Secret, Join: l.Join}
	if l.TLSCert != "" || l.TLSKey != "" || l.TLSCA != "" {
		n.TLS = &nats.TLS{CA: l.TLSCA, Cert: l.TLSCert, Key: l.TLSKey}
	}
	return n
}

// storeAddress is where other nodes find this store.
func (c *Config) storeAddress() string {
	s := nats.Store{Listen: c.Cluster.Listen, Advertise: c.Cluster.Advertise}
	own, _ := s.Address() // Validate has looked
	return own
}

// tokenKey signs the tokens that resume sessions: the same one for each node that has the secret; no other process's
// without one.
func tokenKey(secret string) (key [32]byte) {
	if secret == "" {
		rand.Read(key[:])
		return key
	}
	b, _ := hkdf.Key(sha256.New, []byte(secret), nil, "hubbub: tokens that resume sessions", len(key)) // it isn't too long
	copy(key[:], b)
	return key
}
