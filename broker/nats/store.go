package nats

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"
)

// MinSecret is how many bytes a cluster's secret has at least.
const MinSecret = 16

// Cluster is what a node knows of the stores of its cluster: nodes that keep the logs of rooms, and that all nodes meet
// at. But for Join all nodes have the same.
type Cluster struct {
	Name   string   // "" is "hubbub"; a part of a NATS subject
	Secret string   // at least MinSecret bytes; who doesn't have it is refused
	Join   []string // host:port of the stores, as they advertise themselves; a store's own may be left out or in
	TLS    *TLS     // between nodes; nil for none
}

// TLS names PEM files. Both sides of each connection between nodes show the certificate, which must be signed by the
// CA, for servers and clients alike, and name each host that Join or Advertise names.
type TLS struct {
	CA, Cert, Key string
}

// Store is a node that keeps logs, with a NATS server in its process.
type Store struct {
	Cluster
	Dir    string // of the logs; this store's alone
	ID     string // of this store, whatever address it has: the same as long as Dir is, and no other store's. 1 to 64 of A-Z, a-z, 0-9, - and _
	Listen string // host:port or :port for nodes and stores that join; stores meet at the port above, too
	// Advertise is host:port, or a host that has Listen's port, by which the others find this store; "" for Listen,
	// which must have a host then.
	Advertise string
}

// Address is host:port by which other nodes find this store.
func (s *Store) Address() (string, error) {
	host, port, err := split("cluster-listen", s.Listen)
	if err != nil {
		return "", err
	}
	switch {
	case s.Advertise == "":
	case strings.Contains(strings.Trim(s.Advertise, "[]"), ":") && !isIP(s.Advertise):
		if host, port, err = split("cluster-advertise", s.Advertise); err != nil {
			return "", err
		}
	default:
		host = strings.Trim(s.Advertise, "[]")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return "", fmt.Errorf("cluster-listen %q says no address by which other nodes find this one: set cluster-advertise", s.Listen)
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

func isIP(s string) bool { return net.ParseIP(strings.Trim(s, "[]")) != nil }

// split takes an address apart whose port, and the one above, may be a port of ours.
func split(what, address string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil || port < 1 || port > 65534 {
		return "", 0, fmt.Errorf("%s %q isn't host:port with a port from 1 to 65534", what, address)
	}
	return host, port, nil
}

// Check says all that is wrong with the settings, and with the files of TLS, each in the words of its flag.
func (c *Cluster) Check() error {
	var errs []error
	if len(c.Secret) < MinSecret {
		errs = append(errs, fmt.Errorf("cluster-secret has %d bytes; it must have %d or more", len(c.Secret), MinSecret))
	}
	if c.Name != "" && !isName(c.Name) {
		errs = append(errs, fmt.Errorf("cluster-name %q isn't 1 to 64 of A-Z, a-z, 0-9, - and _", c.Name))
	}
	for i, address := range c.Join {
		host, _, err := split("join", address)
		if err == nil && host == "" {
			err = fmt.Errorf("join %q names no host", address)
		}
		errs = append(errs, err, portsApart("join", address, c.Join[:i]))
	}
	if t := c.TLS; t != nil {
		if t.CA == "" || t.Cert == "" || t.Key == "" {
			errs = append(errs, errors.New("cluster-tls-ca, cluster-tls-cert and cluster-tls-key go together: set all three, or none"))
		} else if _, err := t.config(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// portsApart is an error where a store and another one would listen at one port of their host: each takes its own and the one
// above.
func portsApart(what, address string, others []string) error {
	host, port, err := split(what, address)
	if err != nil {
		return nil // it is said
	}
	for _, other := range others {
		h, p, err := split(what, other)
		if err == nil && strings.EqualFold(h, host) && (p == port+1 || p == port-1) {
			return fmt.Errorf("%s %s: the store %s has one of its ports: each takes the one above its own, too; have them two apart", what, address, other)
		}
	}
	return nil
}

// Check says all that is wrong with the settings, each in the words of its flag. It doesn't look at Dir and ID.
func (s *Store) Check() error {
	errs := []error{s.Cluster.Check()}
	own, err := s.Address()
	if err != nil {
		errs = append(errs, err)
	} else if !slices.Contains(s.Join, own) {
		errs = append(errs, portsApart("cluster-listen", own, s.Join))
	}
	return errors.Join(errs...)
}

func isName(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// replicas is of how many stores each keeps a stream, where Config doesn't say so.
func replicas(stores int) int {
	switch {
	case stores >= 5:
		return 5
	case stores >= 3:
		return 3
	default:
		return max(1, stores)
	}
}

// StartStore runs a store. It waits until what is in Dir has been read, but not for the other stores: Ready says when
// the broker can serve, and until then what needs them fails with broker.ErrUnavailable. It fails where Dir belongs to
// another cluster, where the store can't listen, where settings are wrong (Check), and with ErrRemoved, as Run does where
// the others come later. With Config.Replicas 0 all stores keep all streams, or five of them do.
func StartStore(s Store, cfg Config) (*Broker, error) {
	err := s.Check()
	if err == nil && !isName(s.ID) {
		err = fmt.Errorf("the store's id %q isn't 1 to 64 of A-Z, a-z, 0-9, - and _", s.ID)
	}
	if err != nil {
		return nil, err
	}
	e := &embedded{dir: s.Dir, log: cfg.Logger, store: &s}
	if s.TLS != nil {
		if e.tls, err = s.TLS.config(); err != nil {
			return nil, err
		}
	}
	if err = e.take(s.name(), e.clustered()); err == nil {
		err = e.removed()
	}
	if err == nil {
		err = e.start()
	}
	if err != nil {
		return nil, fmt.Errorf("the store in %s: %w", s.Dir, err)
	}
	if cfg.Replicas == 0 {
		cfg.Replicas = replicas(1 + len(s.others()))
	}
	b := newBroker(e, cfg)
	own, _ := s.Address()
	b.stores = &stores{b: b, cluster: s.Cluster, own: own, others: s.others(), tls: e.tls, why: errNotYet, catchUp: errNotYet}
	// A machine that is so busy that its own server doesn't answer in time is no reason not to start.
	later := client.RetryOnFailedConnect(true)
	if b.stores.system, err = client.Connect(client.DefaultURL, client.InProcessServer(e), s.login(forStores), later, client.MaxReconnects(-1),
		client.Timeout(2*apiTimeout), client.ReconnectWait(100*time.Millisecond), client.IgnoreAuthErrorAbort(),
		client.Name("hubbub, looks at stores")); err != nil {
		b.Close()
		return nil, err
	}
	return b.member(client.DefaultURL, client.InProcessServer(e), later) // the URL isn't used then
}

// Join connects to stores, of which none has to be there yet: Ready says when the broker can serve, and until then what
// needs them fails with broker.ErrUnavailable.
func Join(c Cluster, cfg Config) (*Broker, error) {
	err := c.Check()
	if len(c.Join) == 0 {
		err = errors.Join(err, errors.New("join names no store"))
	}
	if err != nil {
		return nil, err
	}
	b := newBroker(nil, cfg)
	b.stores = &stores{b: b, cluster: c, others: c.Join, why: errNotYet}
	if c.TLS != nil {
		if b.stores.tls, err = c.TLS.config(); err != nil {
			return nil, err
		}
	}
	// A store that is silent, as a machine that is off, holds up the start of the node for this long, at each connection.
	options := []client.Option{client.RetryOnFailedConnect(true), client.Timeout(apiTimeout)}
	if b.stores.tls != nil {
		options = append(options, client.Secure(b.stores.tls))
	}
	return b.member("nats://"+strings.Join(c.Join, ",nats://"), options...)
}

// member connects a broker to its stores, and has them followed until it ends.
func (b *Broker) member(url string, options ...client.Option) (*Broker, error) {
	b, err := b.connected(url, append(options, b.stores.cluster.login(forNodes), client.IgnoreAuthErrorAbort())...)
	if err != nil {
		return nil, err
	}
	if b.server != nil {
		if err := b.stores.answer(); err != nil {
			b.Close()
			return nil, err
		}
	}
	b.work.Go(b.stores.follow)
	if b.server != nil && b.server.clustered() {
		b.work.Go(b.stores.watchDeaths)
	}
	return b, nil
}

// Ready is nil once the broker can serve: it has reached the stores, most of them know each other, and where it is a
// store it has caught up with what it missed before it was started. Else it says what is missing, in words for the
// operator; so it does when the stores are lost again. It is always nil for brokers of Start and Dial. Any goroutine;
// it doesn't wait.
func (b *Broker) Ready() error {
	if b.stores == nil {
		return nil
	}
	return b.stores.Ready()
}
