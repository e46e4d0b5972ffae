package front

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
)

// PerIP counts the connections of each address, while there is a limit: those that came before aren't known.
type PerIP struct {
	limit atomic.Int64 // 0: nothing is counted, and nobody refused

	mu    sync.Mutex
	conns map[netip.Addr]int // guarded by mu
}

// NewPerIP lets each address have that many, or with 0 any number.
func NewPerIP(limit int) *PerIP {
	p := &PerIP{conns: map[netip.Addr]int{}}
	p.Limit(limit)
	return p
}

// Limit lets each address have that many from now on; who has more keeps them. Any goroutine.
func (p *PerIP) Limit(limit int) { p.limit.Store(int64(limit)) }

// ipKey is the address itself, or the /64 of an IPv6 one: a single customer has as many addresses as that.
func ipKey(remote netip.AddrPort) netip.Addr {
	a := remote.Addr().Unmap().WithZone("")
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().Addr()
	}
	return a
}

// Address is the one that counts for what net/http writes into a Request's RemoteAddr; what is no address is none.
func Address(remote string) (none netip.Addr) {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return none
	}
	return ipKey(ap)
}

// Take counts one more connection of the address that net/http writes into a Request's RemoteAddr, unless it has its
// fill. What is no address counts as one. Where there is no limit nothing is counted, and counted is false.
func (p *PerIP) Take(remote string) (key netip.Addr, counted, ok bool) {
	limit := int(p.limit.Load())
	if limit == 0 {
		return key, false, true
	}
	ap, _ := netip.ParseAddrPort(remote)
	key = ipKey(ap)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[key] >= limit {
		return key, false, false
	}
	p.conns[key]++
	return key, true, true
}

// Full says whether an address has its fill.
func (p *PerIP) Full(remote string) bool {
	key, counted, ok := p.Take(remote)
	if counted {
		p.Leave(key)
	}
	return !ok
}

// Leave gives back what Take took.
func (p *PerIP) Leave(key netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[key]--; p.conns[key] <= 0 {
		delete(p.conns, key)
	}
}

// Unsettled names the addresses that still have connections.
func (p *PerIP) Unsettled() (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr, n := range p.conns {
		all = append(all, fmt.Sprintf("connections of %s: %d", addr, n))
	}
	return all
}
