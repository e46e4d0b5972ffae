package nats

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// Who hasn't got the secret is told nothing at either port of a store, and can't have it do anything; logs bear no secrets.
func TestStrangers(t *testing.T) {
	t.Parallel()
	c := newStores(t, 3)
	c.start(0)
	c.start(1)
	c.until("the two know each other", func() bool { return c.brokers[0].server.running().NumRoutes() > 0 })
	store := &c.configs[0]
	address, _ := store.Address()
	words := map[string]string{
		"subscribes first":   "SUB > 1\r\nPING\r\n",
		"publishes first":    "PUB hb.n1.b 5\r\nhello\r\nPING\r\n",
		"with nothing":       "CONNECT {}\r\nSUB > 1\r\nPING\r\n",
		"with a name":        "CONNECT {\"user\":\"hubbub\",\"pass\":\"hubbub\"}\r\nSUB > 1\r\nPING\r\n",
		"as a route":         "CONNECT {\"name\":\"x\",\"cluster\":\"hubbub\",\"user\":\"hubbub\",\"pass\":\"\"}\r\nRS+ $G >\r\nPING\r\n",
		"news of a route":    "INFO {\"server_id\":\"x\",\"cluster\":\"hubbub\",\"connect_urls\":[\"127.0.0.1:1\"],\"ip\":\"nats-route://127.0.0.1:1/\"}\r\nPING\r\n",
		"as the system":      "CONNECT {\"user\":\"sys\",\"pass\":\"sys\",\"nkey\":\"" + strings.Repeat("U", 56) + "\",\"sig\":\"AAAA\"}\r\nPING\r\n",
		"another protocol":   "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"without an end":     "CONNECT {" + strings.Repeat("\"", 1<<20),
		"more than one says": strings.Repeat("PING\r\n", 1000),
	}
	for what, says := range words {
		for _, at := range []string{address, above(address)} {
			conn, err := net.Dial("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			go func() { _, _ = io.WriteString(conn, says) }()
			heard, _ := io.ReadAll(conn) // until it is closed
			conn.Close()
			if bytes.Contains(heard, []byte("PONG")) || bytes.Contains(heard, []byte("MSG")) {
				t.Errorf("%s, at %s: it is let in: %.400q", what, at, heard)
			}
			for _, secret := range secretsOf(store) {
				if bytes.Contains(heard, []byte(secret)) {
					t.Errorf("%s, at %s: it is told a secret: %q", what, at, heard)
				}
			}
		}
	}
	for _, secret := range secretsOf(store) {
		if strings.Contains(c.log.String(), secret) {
			t.Errorf("the log bears a secret: %s", c.log.String())
		}
	}
}

func secretsOf(s *Store) []string {
	_, nodes := s.user(forNodes)
	seed, _ := nodes.Seed()
	return []string{s.Secret, s.routePassword(), string(seed)}
}
