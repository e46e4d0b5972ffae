package hubbub

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"example.com/hubbub/internal/front"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/rate"
)

// Limits are how often a thing may be done, by one client, by all clients of one user, and by all of one address; of
// IPv6 by a /64. What is beyond is not done: a client is told "rate_limited", and when to try again; an upgrade gets
// 429. Who goes on at ten times a limit for 10 s is closed with 1008. The zero value limits nothing and costs nothing.
//
// A client is asked first, then its user, then its address: what its own limit refuses takes nothing from the others.
type Limits struct {
	Client  ClientLimits
	User    UserLimits
	Address AddressLimits
}

// ClientLimits are those of one connection.
type ClientLimits struct {
	Messages Rate // all that it sends, pings of the protocol and mistakes too, but not the WebSocket's own control frames
	Bytes    Rate // of these, after inflation
	Joins    Rate // of rooms that it isn't in; a resumed session's rooms are free, those of a resume that comes too late are not
}

// UserLimits are those of a name, over all its clients. Clients without a name have none.
type UserLimits struct {
	Connections int  // at once
	Connects    Rate // handshakes
	Messages    Rate
	Bytes       Rate
	Joins       Rate
}

// AddressLimits are those of an address: the TCP peer's, or what one of TrustedProxies tells. Where one of them
// is set, what is kept for one address is bounded, too: see Config.MaxBufferedBytes.
type AddressLimits struct {
	Connects Rate
	Messages Rate
	Bytes    Rate
	Joins    Rate
}

// Rate is N things in each Per, evenly, and at most Burst at once. N 0 is no limit.
type Rate struct {
	N     int           // at most 2^30
	Per   time.Duration // whole milliseconds, at most an hour. Default: 1 s
	Burst int           // at most 2^30. Default: N; of Bytes at least MaxMessageBytes, of Joins at least MaxRoomsPerClient
}

// String is "50/s burst 100".
func (r Rate) String() string {
	return fmt.Sprintf("%d/%s burst %d", r.N, perName(r.Per), r.Burst)
}

func perName(per time.Duration) string {
	switch per {
	case time.Second:
		return "s"
	case time.Minute:
		return "m"
	case time.Hour:
		return "h"
	}
	return per.String()
}

// aRate is one of the rates of Limits.
type aRate struct {
	name string // "limits.client.messages"
	rate *Rate
	to   func(*hub.Limits) *rate.Limit
}

// rates are all there are.
func (l *Limits) rates() (all []aRate) {
	add := func(by string, of rate.Kind, r *Rate, to func(*hub.Limits) *rate.Limits) {
		all = append(all, aRate{"limits." + by + "." + of.String(), r, func(h *hub.Limits) *rate.Limit { return &to(h)[of] }})
	}
	client := func(h *hub.Limits) *rate.Limits { return &h.Client }
	add("client", rate.Messages, &l.Client.Messages, client)
	add("client", rate.Bytes, &l.Client.Bytes, client)
	add("client", rate.Joins, &l.Client.Joins, client)
	user := func(h *hub.Limits) *rate.Limits { return &h.User }
	add("user", rate.Connects, &l.User.Connects, user)
	add("user", rate.Messages, &l.User.Messages, user)
	add("user", rate.Bytes, &l.User.Bytes, user)
	add("user", rate.Joins, &l.User.Joins, user)
	address := func(h *hub.Limits) *rate.Limits { return &h.Address }
	add("address", rate.Connects, &l.Address.Connects, address)
	add("address", rate.Messages, &l.Address.Messages, address)
	add("address", rate.Bytes, &l.Address.Bytes, address)
	add("address", rate.Joins, &l.Address.Joins, address)
	return all
}

// limitsWithDefaults fills in what is zero of the rates that are set.
func (c *Config) limitsWithDefaults() {
	for _, r := range c.Limits.rates() {
		if r.rate.N == 0 {
			continue
		}
		if r.rate.Per == 0 {
			r.rate.Per = time.Second
		}
		if r.rate.Burst != 0 {
			continue
		}
		r.rate.Burst = r.rate.N
		switch {
		case strings.HasSuffix(r.name, ".bytes"):
			r.rate.Burst = max(r.rate.N, c.MaxMessageBytes)
		case strings.HasSuffix(r.name, ".joins"):
			r.rate.Burst = max(r.rate.N, c.MaxRoomsPerClient)
		}
	}
}

func (c Config) validateLimits() (bad faults) {
	if n := c.Limits.User.Connections; n < 0 || n > 1<<30 {
		bad.add("limits.user.connections %d: not between 0 and %d", n, 1<<30)
	}
	for _, of := range c.Limits.rates() {
		r := *of.rate
		ms := r.Per.Milliseconds()
		switch {
		case r == (Rate{}):
		case r.N < 1 || r.N > rate.MaxN:
			bad.add("%s %s: %d is not between 1 and %d", of.name, r, r.N, rate.MaxN)
		case ms < 1 || ms > rate.MaxPer || r.Per%time.Millisecond != 0:
			bad.add("%s %s: %s is not between 1ms and 1h, in whole milliseconds", of.name, r, r.Per)
		case r.Burst < 1 || r.Burst > rate.MaxBurst:
			bad.add("%s %s: the burst is not between 1 and %d", of.name, r, rate.MaxBurst)
		case strings.HasSuffix(of.name, ".bytes") && r.Burst < c.MaxMessageBytes:
			bad.add("%s %s: the burst is less than max-message-bytes, %d, so such a message could never be sent", of.name, r, c.MaxMessageBytes)
		}
	}
	return bad
}

// hubLimits is what the hub is given. All is valid, and no default left.
func (c *Config) hubLimits() (h hub.Limits) {
	h.UserConnections = c.Limits.User.Connections
	for _, r := range c.Limits.rates() {
		*r.to(&h) = rate.Limit{N: int64(r.rate.N), Per: r.rate.Per.Milliseconds(), Burst: int64(r.rate.Burst)}
	}
	return h
}

// addressOf is the address that pays for what its clients do and have kept; none where neither is limited, and nobody
// says that it is the client's own: it may be a proxy's, which is everybody's, as is that of a trusted one that says nothing.
func (s *settings) addressOf(r *http.Request) (none netip.Addr) {
	if s.MaxConnectionsPerIP == 0 && s.Limits.Address == (AddressLimits{}) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if len(s.proxies) == 0 || err != nil || s.proxies.Trusts(peer.Addr()) {
			return none
		}
	}
	return front.Address(r.RemoteAddr)
}

// connects counts a request for a WebSocket, or says that there are too many of its address.
func (s *Server) connects(set *settings, r *http.Request) *refusal {
	if set.Limits.Address.Connects.N == 0 {
		return nil
	}
	return s.limited(s.hub.AddressConnects(front.Address(r.RemoteAddr)))
}

// mayConnect is connects for who only asks.
func (s *Server) mayConnect(set *settings, r *http.Request) *refusal {
	if set.Limits.Address.Connects.N == 0 {
		return nil
	}
	return s.limited(s.hub.AddressMayConnect(front.Address(r.RemoteAddr)))
}

// limited is the answer to who connects too often; nil for nil.
func (s *Server) limited(no *hub.Limited) *refusal {
	if no == nil {
		return nil
	}
	result := upgradePerUser
	if no.After > 0 {
		result = upgradeRateLimited
	}
	return &refusal{status: http.StatusTooManyRequests, detail: no.Error(), result: result, flag: "a higher " + no.Setting() + " in the file of --config", after: no.After}
}

// retryAfterAt is the header Retry-After for who may come again then: not before, and spread.
func retryAfterAt(after time.Duration) string {
	return strconv.Itoa(int(after/time.Second) + retryAfter())
}

// tooMany is said where the server is full. Where the limit of open files is what bounds it, that is what has to grow.
func (set *settings) tooMany() *refusal {
	no := full("too many connections", upgradeConnections, "--max-connections", int64(set.MaxConnections))
	if set.MaxConnections < set.defaultMaxConnections() {
		return no
	}
	files := fmt.Sprintf("a limit of open files above %d (LimitNOFILE= in systemd, ulimit -n)", openFileLimit())
	if set.written.MaxConnections != 0 {
		files += ", and then " + no.flag
	}
	no.flag = files
	return no
}
