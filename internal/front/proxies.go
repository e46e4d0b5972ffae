package front

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Proxies are those who may say for whom they speak: ranges of addresses, and the zero Prefix for whoever connects by a
// Unix socket. Nobody else's headers are looked at.
type Proxies []netip.Prefix

const proxySocket = "unix"

// ParseProxy takes an address, a range of them (CIDR) or "unix", and says of everything else what to write.
func ParseProxy(text string) (netip.Prefix, error) {
	text = strings.TrimSpace(text)
	if text == proxySocket {
		return netip.Prefix{}, nil
	}
	addr, bits, isRange := strings.Cut(text, "/")
	a, err := netip.ParseAddr(addr)
	switch {
	case err != nil:
		if ap, err := netip.ParseAddrPort(addr); err == nil {
			return netip.Prefix{}, fmt.Errorf("a port is no part of it: write %s", ap.Addr())
		}
		return netip.Prefix{}, errors.New("it is no address: write 10.0.0.1, 10.0.0.0/8, 2001:db8::/32, or unix for whoever connects by a Unix socket")
	case a.Zone() != "":
		return netip.Prefix{}, fmt.Errorf("a zone is no part of it: write %s", a.WithZone(""))
	case a.Is4In6():
		return netip.Prefix{}, fmt.Errorf("it is an IPv4 address within IPv6: write %s", a.Unmap())
	case !isRange:
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	n, err := strconv.Atoi(bits)
	switch {
	case err != nil || n < 0 || n > a.BitLen():
		return netip.Prefix{}, fmt.Errorf("%q is no number of bits from 1 to %d", bits, a.BitLen())
	case n == 0:
		return netip.Prefix{}, errors.New("it is everyone, clients too, who could then make up their addresses: name the proxies' own")
	}
	p := netip.PrefixFrom(a, n)
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("the range begins elsewhere: write %s", p.Masked())
	}
	return p, nil
}

// Trusts says whether an address is a proxy's.
func (all Proxies) Trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(a) })
}

// trustsPeer says whether a request came straight from a proxy. Behind a Unix socket there may be an address too, told
// by the PROXY protocol: then that counts.
func (all Proxies) trustsPeer(r *http.Request) bool {
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return all.Trusts(peer.Addr())
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && local.Network() == "unix" && r.RemoteAddr != unknownAddress && slices.Contains(all, netip.Prefix{})
}

// Asked gives a request as its client has sent it, where it came from a proxy that is trusted: its RemoteAddr is that of
// Client, and ForwardedHost looks at its headers. clash is Client's. Of what Asked gave it changes nothing.
func (all Proxies) Asked(r *http.Request) (asked *http.Request, clash bool) {
	if len(all) == 0 || viaProxy(r) || !all.trustsPeer(r) {
		return r, false
	}
	asked = r.WithContext(context.WithValue(r.Context(), viaProxyKey{}, true))
	asked.RemoteAddr, clash = all.Client(r)
	return asked, clash
}

type viaProxyKey struct{}

// viaProxy says whether Asked has changed a request.
func viaProxy(r *http.Request) bool { return r.Context().Value(viaProxyKey{}) != nil }

// ForwardedHost is the host that the client asked for, where a proxy that is trusted has put another into Host and says
// so in X-Forwarded-Host: in one line with one name, because of several nobody can tell which the client has sent.
func ForwardedHost(r *http.Request) string {
	if h := r.Header["X-Forwarded-Host"]; viaProxy(r) && len(h) == 1 && !strings.Contains(h[0], ",") {
		return strings.TrimSpace(h[0])
	}
	return ""
}

// maxHops is how many proxies may stand behind one another; of a longer way nobody needs the end.
const maxHops = 32

// Client is the address of who asks, by a proxy that is trusted or else by itself, in the form of RemoteAddr; its port is 0 where the proxies don't tell it. Each
// proxy writes whom it got the request from to the right of what it got, so the headers Forwarded (RFC 7239) and
// X-Forwarded-For are read from the right, past proxies that are trusted, and what stands further left, which the
// client may have made up, is never looked at. Where an entry is no address, the proxy that wrote it doesn't know: then
// it counts as the client itself.
//
// Where a proxy passes on one of the headers as it came and writes the other, nobody can tell which. So both must say
// the same; clash says that they don't: then the proxy that asks counts as the client.
func (all Proxies) Client(r *http.Request) (remote string, clash bool) {
	standard, usual := r.Header["Forwarded"], r.Header["X-Forwarded-For"]
	if len(standard)+len(usual) == 0 || !all.trustsPeer(r) {
		return r.RemoteAddr, false
	}
	var found netip.AddrPort
	switch {
	case len(usual) == 0:
		found = all.follow(standard, forwardedFor)
	case len(standard) == 0:
		found = all.follow(usual, parseNode)
	default:
		found = all.follow(usual, parseNode)
		clash = found.Addr() != all.follow(standard, forwardedFor).Addr()
	}
	if clash || !found.IsValid() {
		return r.RemoteAddr, clash
	}
	return found.String(), false
}

// follow reads the entries of a header, all its lines together, from the right. It gives the first address that is no
// proxy's, or the last one before what is none.
func (all Proxies) follow(lines []string, parse func(entry string) (netip.AddrPort, bool)) (found netip.AddrPort) {
	hops := 0
	for entry := range fromTheRight(lines) {
		node, ok := parse(entry)
		if !ok {
			return found
		}
		found = node
		if hops++; hops == maxHops || !all.Trusts(node.Addr()) {
			return found
		}
	}
	return found
}

// fromTheRight gives the entries of lists, the last first. Empty ones are given too: a proxy may have meant to say
// something there.
func fromTheRight(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range slices.Backward(lines) {
			for at := len(line); at >= 0; {
				line = line[:at]
				at = strings.LastIndexByte(line, ',')
				if !yield(line[at+1:]) {
					return
				}
			}
		}
	}
}

// forwardedFor finds whom an element of the header Forwarded was sent for. No name or address has a comma, a semicolon,
// a quote or a backslash in it. So an element with such a thing in quotes is none, and quotes that a client has sent
// can't take in what a proxy wrote behind them.
func forwardedFor(element string) (node netip.AddrPort, ok bool) {
	for pair := range strings.SplitSeq(element, ";") {
		if pair = strings.Trim(pair, " \t"); pair == "" {
			continue
		}
		name, value, is := strings.Cut(pair, "=")
		if inner, quoted := strings.CutPrefix(value, `"`); quoted {
			value, is = strings.CutSuffix(inner, `"`)
		}
		if !is || strings.ContainsAny(value, `"\`) {
			return node, false
		}
		if !strings.EqualFold(name, "for") {
			continue
		}
		if ok { // twice
			return node, false
		}
		if node, ok = parseNode(value); !ok {
			return node, false
		}
	}
	return node, ok
}

// maxNode is longer than any address with brackets, zone and port.
const maxNode = 96

// parseNode takes an address, with or without a port, and IPv6 with or without brackets. Obfuscated names, "unknown"
// and all else are none. A zone means something to the proxy alone.
func parseNode(text string) (node netip.AddrPort, ok bool) {
	text = strings.Trim(text, " \t")
	if len(text) > maxNode {
		return node, false
	}
	host, port := text, ""
	if inner, bracket := strings.CutPrefix(text, "["); bracket {
		if host, port, bracket = strings.Cut(inner, "]"); !bracket || !strings.Contains(host, ":") {
			return node, false
		}
	} else if strings.Count(text, ":") == 1 {
		colon := strings.IndexByte(text, ':')
		host, port = text[:colon], text[colon:]
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return node, false
	}
	n, ok := parsePort(port)
	return netip.AddrPortFrom(a.Unmap().WithZone(""), n), ok
}

// parsePort takes none, ":" and a number, and ":" and an obfuscated one (RFC 7239 6.2), which is as good as none.
func parsePort(text string) (port uint16, ok bool) {
	if text == "" {
		return 0, true
	}
	digits, colon := strings.CutPrefix(text, ":")
	if !colon || digits == "" {
		return 0, false
	}
	if digits[0] == '_' {
		return 0, true
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	return uint16(n), err == nil
}
