package nats

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"sync/atomic"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

func (c *Cluster) name() string {
	if c.Name == "" {
		return "hubbub"
	}
	return c.Name
}

// derive is what the cluster's secret gives for a purpose. Two clusters that have the same secret have different ones,
// but for routes: there the servers see each other's name, and say so.
func (c *Cluster) derive(purpose string) []byte {
	key, err := hkdf.Key(sha256.New, []byte(c.Secret), nil, "hubbub "+purpose, sha256.Size)
	if err != nil {
		panic(err) // of lengths that can't be had
	}
	return key
}

// What the two users of NATS are for: rooms' logs and what nodes tell each other, or looking at the stores and removing
// them.
const (
	forNodes  = "nodes"
	forStores = "stores"
)

// user is a pair of keys. With it nobody who listens on the network learns the secret, or anything that could be used
// again.
func (c *Cluster) user(purpose string) (public string, keys nkeys.KeyPair) {
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByteUser, c.derive(purpose+" "+c.name()))
	if err == nil {
		keys, err = nkeys.FromSeed(seed)
	}
	if err == nil {
		public, err = keys.PublicKey()
	}
	if err != nil {
		panic(err) // of lengths that can't be had
	}
	return public, keys
}

// login has a client show that it has the secret.
func (c *Cluster) login(purpose string) client.Option {
	public, keys := c.user(purpose)
	return client.Nkey(public, keys.Sign)
}

// routePassword is what servers show each other.
func (c *Cluster) routePassword() string {
	return base64.RawURLEncoding.EncodeToString(c.derive("routes"))
}

// readCA reads the file of a setting, which says who signs.
func readCA(setting, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s %s has no certificate in PEM", setting, file)
	}
	return pool, nil
}

// config reads the files. A certificate that is replaced is read when the next connection is made.
func (t *TLS) config() (*tls.Config, error) {
	pool, err := readCA("cluster-tls-ca", t.CA)
	if err != nil {
		return nil, err
	}
	var last atomic.Pointer[tls.Certificate]
	read := func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err == nil {
			last.Store(&c)
		} else if last.Load() == nil {
			return nil, fmt.Errorf("cluster-tls-cert %s, cluster-tls-key %s: %w", t.Cert, t.Key, err)
		}
		return last.Load(), nil // one of the two files may be replaced just now
	}
	if _, err := read(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		RootCAs:              pool,
		ClientCAs:            pool,
		ClientAuth:           tls.RequireAndVerifyClientCert,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return read() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return read() },
	}, nil
}
