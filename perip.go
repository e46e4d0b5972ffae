package hubbub

import (
	"fmt"
	"net/netip"
	"sync"

	"example.com/hubbub/internal/loop"
)

// perIP counts the connections of each address. A nil one counts nothing and refuses nobody.
type perIP struct {
	limit int

	mu    sync.Mutex
	conns map[netip.Addr]int // guarded by mu
}

func newPerIP(limit int) *perIP { return &perIP{limit: limit, conns: map[netip.Addr]int{}} }

// ipKey is the address itself, or the /64 of an IPv6 one: a single customer has as many addresses as that.
func ipKey(remote netip.AddrPort) netip.Addr {
	a := remote.Addr().Unmap().WithZone("")
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().Addr()
	}
	return a
}

// take counts one more connection of the address that net/http writes into a Request's RemoteAddr, unless it has its
// fill. What is no address counts as one.
func (p *perIP) take(remote string) (key netip.Addr, ok bool) {
	if p == nil {
		return key, true
	}
	ap, _ := netip.ParseAddrPort(remote)
	key = ipKey(ap)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[key] >= p.limit {
		return key, false
	}
	p.conns[key]++
	return key, true
}

// share is the address that pays for what is kept for its clients; none without a limit.
func (p *perIP) share(remote string) netip.Addr {
	if p == nil {
		return netip.Addr{}
	}
	ap, _ := netip.ParseAddrPort(remote)
	return ipKey(ap)
}

// full says whether an address has its fill.
func (p *perIP) full(remote string) bool {
	key, ok := p.take(remote)
	if ok {
		p.leave(key)
	}
	return !ok
}

func (p *perIP) leave(key netip.Addr) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[key]--; p.conns[key] <= 0 {
		delete(p.conns, key)
	}
}

// unsettled names the addresses that still have connections.
func (p *perIP) unsettled() (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr, n := range p.conns {
		all = append(all, fmt.Sprintf("connections of %s: %d", addr, n))
	}
	return all
}

// counted is a connection's handler that gives its address's place back at the end.
type counted struct {
	loop.Handler
	ips *perIP
	key netip.Addr
}

func (c *counted) Closed(conn *loop.Conn, e loop.Ending) {
	defer c.ips.leave(c.key)
	c.Handler.Closed(conn, e)
}
