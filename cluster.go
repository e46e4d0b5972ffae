package hubbub

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
)

// Cluster is what all nodes that belong together have in common.
type Cluster struct {
	// Secret is what nodes know each other by, at least 16 bytes, the same on all. The tokens by which clients resume their
	// sessions are signed by a key that is made of it, so that any node takes them. Default: none; a Broker needs one.
	Secret string
}

// minSecret is how many bytes Cluster.Secret has at least.
const minSecret = 16

func (c Config) validateCluster() (bad faults) {
	switch n := len(c.Cluster.Secret); {
	case n > 0 && n < minSecret:
		bad.add("cluster-secret: it has %d bytes, and must have %d or more", n, minSecret)
	case n == 0 && c.Broker != nil:
		bad.add("cluster-secret: it is missing; nodes with a Broker need one in common, or a session can't be resumed on another node")
	}
	return bad
}

// tokenKey signs the tokens that resume sessions: the same one on all nodes of a cluster, and no other process's.
func (c *Config) tokenKey() (key [32]byte) {
	if c.Cluster.Secret == "" {
		rand.Read(key[:])
		return key
	}
	b, _ := hkdf.Key(sha256.New, []byte(c.Cluster.Secret), nil, "hubbub: tokens that resume sessions", len(key)) // it isn't too long
	copy(key[:], b)
	return key
}
