package doctor

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"example.com/hubbub/internal/wsclient"
)

// What is sent to the public address. /echo has no sessions: no hook is asked and no webhook told.
const sentThere = "two requests for a WebSocket: one at /ws that can't succeed (of version 12), one at /echo, with one message that comes back"

// asked is a request for a WebSocket, and what came of it.
type asked struct {
	nc     net.Conn
	r      *bufio.Reader
	answer *http.Response
}

// ask sends a request for a WebSocket at a path below the public address, with more header lines. The caller closes nc.
func (s *Subject) ask(ctx context.Context, u *url.URL, path string, change func(request string) string, lines ...string) (a asked, err error) {
	if a.nc, err = dialApart(ctx, u); err != nil {
		return a, err
	}
	if until, has := ctx.Deadline(); has {
		a.nc.SetDeadline(until)
	}
	known := true // who gets the token
	if u.Scheme == "https" {
		secure := &tls.Config{InsecureSkipVerify: true, ServerName: u.Hostname(), NextProtos: []string{"http/1.1"}} // certificates judges it
		nc := tls.Client(a.nc, secure)
		if err = nc.HandshakeContext(ctx); err != nil {
			nc.Close()
			return a, err
		}
		a.nc, known = nc, trusted(nc.ConnectionState(), u.Hostname())
	}
	if s.Token != "" && known {
		lines = append(lines, "Authorization: Bearer "+s.Token)
	}
	request := change(wsclient.Upgrade(u.Host, strings.TrimRight(u.EscapedPath(), "/")+path, lines...))
	if _, err = io.WriteString(a.nc, request); err == nil {
		a.r = bufio.NewReader(a.nc)
		a.answer, err = http.ReadResponse(a.r, &http.Request{Method: http.MethodGet})
	}
	if err != nil {
		a.nc.Close()
	}
	return a, err
}

// trusted says whether a client that looks would take the certificate for that of the host.
func trusted(state tls.ConnectionState, host string) bool {
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: host, Intermediates: between})
	return err == nil
}

// apart is an address of the loopback that no setting names: a proxy on this machine is known by 127.0.0.1, which a
// server trusts, and so it would believe what we say of ourselves.
var apart = net.IPv4(127, 0, 0, 87)

// dialApart connects to the public address, where that is on this machine from another address than the proxy's own.
func dialApart(ctx context.Context, u *url.URL) (net.Conn, error) {
	var d net.Dialer
	if all, err := net.DefaultResolver.LookupHost(ctx, u.Hostname()); err == nil && len(all) > 0 && isLocal(all[0]) {
		d.LocalAddr = &net.TCPAddr{IP: apart}
		if nc, err := d.DialContext(ctx, "tcp4", hostPort(u)); err == nil {
			return nc, nil
		}
		d.LocalAddr = nil // not every system has it
	}
	return d.DialContext(ctx, "tcp", hostPort(u))
}

func same(request string) string { return request }

func origin(u *url.URL) string { return "Origin: " + u.Scheme + "://" + u.Host }

// publicAddress looks whether a WebSocket comes through whatever stands before the server.
func publicAddress(ctx context.Context, s *Subject) []Finding {
	const name = "public address"
	if s.PublicURL == "" {
		return nil
	}
	u, err := url.Parse(s.PublicURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return []Finding{fault(name, "--public-url https://chat.example.com", "%q is no address of a web site", s.PublicURL)}
	}
	said := func(f Finding) []Finding { f.Sent = sentThere; return []Finding{f} }
	old := func(request string) string {
		return strings.Replace(request, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12", 1)
	}
	a, err := s.ask(ctx, u, "/ws", old, origin(u))
	if err != nil {
		return said(fault(name, "look whether the proxy runs, whether the name leads to it, and what its log says", "no answer to a request for a WebSocket: %v", err))
	}
	a.nc.Close()
	if f := refused(name, a.answer, u); f != nil {
		return said(*f)
	}
	begin := time.Now()
	e, err := s.ask(ctx, u, "/echo", same, origin(u))
	if err != nil {
		return said(fault(name, "look at the proxy's log", "no answer to a request for a WebSocket: %v", err))
	}
	defer e.nc.Close()
	shook := time.Since(begin)
	switch status := e.answer.StatusCode; {
	case status == http.StatusUnauthorized:
		return said(ok(name, "a request for a WebSocket comes through; the server wants a token, and --token has none that is good: so messages weren't tried"))
	case status == http.StatusNotFound:
		return said(ok(name, "a request for a WebSocket at /ws comes through; /echo doesn't, so messages weren't tried"))
	case status != http.StatusSwitchingProtocols:
		return said(fault(name, "the server's log says why: upgrade refused", "the server refuses the WebSocket: %s", e.answer.Status))
	}
	text := []byte("hubbub doctor")
	took, err := e.roundTrip(ctx, text)
	if err != nil {
		return said(fault(name, "the proxy must pass bytes on at once once it has passed 101: in nginx proxy_buffering doesn't matter then, in others switch response buffering off", "the WebSocket opens, and a message doesn't come back: %v", err))
	}
	all := said(ok(name, "a WebSocket opens in %s, and a message is back after %s", shook.Round(time.Millisecond), took.Round(100*time.Microsecond)))
	if s.Idle > 0 {
		all = append(all, e.idle(ctx, s))
	}
	return all
}

// refused is what an answer to the request of an old version says that isn't Hubbub's own to it.
func refused(name string, answer *http.Response, u *url.URL) *Finding {
	const nginx = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"
	f := Finding{Check: name, Level: Fault}
	body, _ := io.ReadAll(io.LimitReader(answer.Body, 16<<10))
	ours := strings.HasPrefix(answer.Header.Get("Content-Type"), "application/problem+json")
	switch status := answer.StatusCode; {
	case status == http.StatusUpgradeRequired && answer.Header.Get("Sec-WebSocket-Version") != "":
		return nil // it has come whole
	case status == http.StatusUpgradeRequired || status == http.StatusBadRequest && ours:
		f.Found, f.Change = "the request arrives at the server without its header Upgrade or Connection: a proxy takes it away", "in nginx: "+nginx+" for other proxies see docs/deploy.md"
	case status == http.StatusForbidden && ours:
		f.Found = fmt.Sprintf("the server refuses pages of %s://%s itself: the header Host doesn't arrive as it was sent, or the page is of another origin", u.Scheme, u.Host)
		f.Change = fmt.Sprintf("in nginx: proxy_set_header Host $http_host; in Apache: ProxyPreserveHost On; or --allowed-origins %s://%s", u.Scheme, u.Host)
	case status == http.StatusUnauthorized:
		return nil // so the server has understood it
	case status == http.StatusNotFound:
		f.Found, f.Change = "there is no /ws at this address", "give --public-url with the path below which the server is, and have the proxy pass it on or take it off: --base-path"
	case status >= 502 && status <= 504:
		f.Found, f.Change = "the proxy doesn't reach the server: "+answer.Status, "look whether the server runs where the proxy sends requests, and whether the proxy may connect there"
	case status >= 300 && status < 400:
		f.Found, f.Change = "it is sent elsewhere, which WebSockets don't follow: "+answer.Header.Get("Location"), "give clients the address to which it is sent"
	default:
		f.Found, f.Change = fmt.Sprintf("what answers is no Hubbub: %s, %q", answer.Status, cut(body, 80)), "look where the proxy sends /ws"
	}
	return &f
}

func cut(b []byte, most int) string { return strings.ToValidUTF8(string(b[:min(len(b), most)]), "") }

// roundTrip sends a message and waits until it is back.
func (a *asked) roundTrip(ctx context.Context, text []byte) (time.Duration, error) {
	begin := time.Now()
	if _, err := a.nc.Write(wsclient.Append(nil, true, wsclient.Text, mask(), text)); err != nil {
		return 0, err
	}
	for {
		f, err := wsclient.Read(a.r, 1<<16)
		switch {
		case err != nil && ctx.Err() != nil:
			return 0, errors.New("its time is up")
		case err != nil:
			return 0, err
		case f.Op == wsclient.Text && string(f.Payload) == string(text):
			return time.Since(begin), nil
		case f.Op == wsclient.Close:
			return 0, errors.New("the server closes it")
		}
	}
}

// idle waits in silence for so long as a proxy may have to end it, but for the answers to the server's pings.
func (a *asked) idle(ctx context.Context, s *Subject) Finding {
	const name = "idle connections"
	begin := time.Now()
	for {
		a.nc.SetDeadline(begin.Add(s.Idle))
		f, err := wsclient.Read(a.r, 1<<16)
		silent := time.Since(begin)
		var late net.Error
		switch {
		case err != nil && errors.As(err, &late) && late.Timeout():
			return ok(name, "after %s it is still open", s.Idle)
		case err != nil:
			return fault(name, fmt.Sprintf("make the proxy's time-outs longer than --ping-interval, which is %s (in nginx proxy_read_timeout 75s), or that shorter", s.PingInterval), "the connection is cut after %s of silence", silent.Round(100*time.Millisecond))
		case f.Op == wsclient.Ping:
			a.nc.Write(wsclient.Append(nil, true, wsclient.Pong, mask(), f.Payload))
		}
		if ctx.Err() != nil {
			return warning(name, "", "it was not looked at to its end")
		}
	}
}

func mask() (m [4]byte) { rand.Read(m[:]); return m }

// forged is an address of a document (RFC 5737): nobody has it.
const forged = "198.51.100.77"

// clientAddresses looks for whom the server takes who comes by the public address: a request is refused for its origin,
// and the server's log has from where it was.
func clientAddresses(ctx context.Context, s *Subject) []Finding {
	const name = "client addresses"
	u, err := url.Parse(s.PublicURL)
	if s.PublicURL == "" || err != nil || s.Key == "" || s.URL == "" {
		return nil
	}
	sent := "requests for a WebSocket at /echo from an origin that isn't there, and with X-Forwarded-For: " + forged + ", which the server refuses and logs"
	remote, own := "", ""
	for ctx.Err() == nil && remote == "" {
		nonce := strings.ToLower(rand.Text())
		a, err := s.ask(ctx, u, "/echo", same, "Origin: https://"+nonce+".doctor.invalid", "X-Forwarded-For: "+forged)
		if err != nil {
			return nil // publicAddress says why
		}
		host, _, _ := net.SplitHostPort(a.nc.LocalAddr().String())
		own = host
		a.nc.Close()
		if s.trusts(own) {
			return []Finding{ok(name, "it can't be seen from here for whom the server takes clients: --trusted-proxies has this machine's address, %s; look from another machine", own)}
		}
		if a.answer.StatusCode != http.StatusForbidden {
			return []Finding{ok(name, "it can't be seen for whom the server takes clients: it doesn't refuse the origin of a stranger (%s)", a.answer.Status)}
		}
		var log struct{ Lines []string }
		if err := s.get(ctx, "/log", &log); err != nil {
			return []Finding{ok(name, "it can't be seen for whom the server takes clients: %v", err)}
		}
		for _, line := range log.Lines {
			if strings.Contains(line, nonce) {
				remote = attribute(line, "remote")
			}
		}
		if remote == "" { // lines of a kind come once a second
			select {
			case <-ctx.Done():
			case <-time.After(1100 * time.Millisecond):
			}
		}
	}
	f := judgeRemote(name, remote, own)
	f.Sent = sent
	return []Finding{f}
}

// trusts says whether an address is one of --trusted-proxies.
func (s *Subject) trusts(address string) bool {
	is, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	for _, text := range s.TrustedProxies {
		if one, err := netip.ParseAddr(text); err == nil && one == is.Unmap() {
			return true
		}
		if all, err := netip.ParsePrefix(text); err == nil && all.Contains(is.Unmap()) {
			return true
		}
	}
	return false
}

// judgeRemote says what it means that the server takes us for remote, whose own address is own.
func judgeRemote(name, remote, own string) Finding {
	addr, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ok(name, "it can't be seen for whom the server takes clients: its log has no line of it (--log-level warn and lower has)")
	}
	switch is := addr.Addr().Unmap(); {
	case is.String() == forged:
		return fault(name, "have the proxy write the header itself: in nginx proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; and take Forwarded away; name in --trusted-proxies proxies alone", "whoever writes X-Forwarded-For is believed: any client may pretend to have any address")
	case is.String() == own:
		return ok(name, "the server knows this machine by its own address, %s", own)
	case is.IsLoopback() || is.IsPrivate():
		return warning(name, fmt.Sprintf("--trusted-proxies %s, where that is your proxy's, and have it send X-Forwarded-For", is), "the server takes this machine for %s, and all other clients that come by that proxy: limits by address count them as one", is)
	default:
		return ok(name, "the server takes this machine for %s", is)
	}
}

// attribute is a value in a line of the log, as text or as JSON.
func attribute(line, key string) string {
	if _, rest, found := strings.Cut(line, " "+key+"="); found {
		value, _, _ := strings.Cut(rest, " ")
		return strings.Trim(value, `"`)
	}
	if _, rest, found := strings.Cut(line, `"`+key+`":"`); found {
		value, _, _ := strings.Cut(rest, `"`)
		return value
	}
	return ""
}
