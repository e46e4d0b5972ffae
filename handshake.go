package hubbub

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"example.com/hubbub/internal/front"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/wire"
)

// refusal is an HTTP answer to a request that is not served.
type refusal struct {
	status int
	detail string
	header [2]string // one more header, or empty
	flag   string    // the setting that would allow it, as on the command line
	warn   bool      // an operator has to mend it, though no setting does
	result upgradeResult
	code   string        // in the answer's body; "" for none
	after  time.Duration // when it may be tried again; 0 where nobody knows
	close  int           // the code of the Close that says the same to who asked for that, see asksForClose; 0 for none
}

// upgrade checks the opening handshake, finds out who asks, and gives the connection to the loop, with the handler that
// admit gives for it. All of it goes by set: a part of the next settings beside these may let in whom neither would.
func (s *Server) upgrade(set *settings, w http.ResponseWriter, r *http.Request, admit admits) {
	ignoreBody(w, r)
	r = s.asked(set, r)
	deflate, answer, no := s.shakeHands(set, w, r)
	if no != nil {
		s.refuse(w, r, *no)
		return
	}
	u, no := s.inTurn(set, r)
	if no != nil {
		s.refuse(w, r, *no)
		return
	}
	defer u.end()
	h, no := s.letIn(set, r, admit)
	if h == nil {
		s.refuse(w, r, *no)
		return
	}
	u.admitted(h)
	if late := takeTurn(r, true); late != nil { // anew, where the application was asked, which may take long
		s.refuse(w, r, *late)
		return
	}
	nc, first, err := takeOver(w)
	if err != nil {
		s.refuse(w, r, *noHijack(w, err))
		return
	}
	if err := u.adopt(nc, deflate, answer, first); err != nil {
		s.turnAway(nc, r, err)
		return
	}
	if no != nil {
		s.note(r, *no)
		return
	}
	s.tally.upgrades[upgradeAccepted].Add(1)
	s.quiet.Connected()
}

// turnAway answers a request whose connection the loop didn't take, where net/http has no say any more.
func (s *Server) turnAway(nc net.Conn, r *http.Request, err error) {
	result, detail := upgradeFailed, noDescriptor
	if errors.Is(err, loop.ErrStopped) {
		result, detail = upgradeStopping, "the server is stopping"
	} else {
		s.refused[result].Log(s.log, slog.LevelWarn, "cannot take a connection over", "remote", r.RemoteAddr, "err", err)
	}
	s.tally.upgrades[result].Add(1)
	nc.SetWriteDeadline(time.Now().Add(time.Second))
	io.WriteString(nc, tooBusy(detail))
	nc.Close()
}

// place is one for a connection under every limit, from reserve until the loop has the connection.
type place struct {
	s       *Server
	r       *http.Request
	key     netip.Addr // of the address, for ips.Leave where it is counted
	counted bool
	remote  string       // the client's address, where it may be another than the socket's; else empty
	h       loop.Handler // once it is admitted; it gives the address's place back
	taken   bool         // by the loop, which calls the handler's Closed
}

// admitted says for whom the place is.
func (p *place) admitted(h loop.Handler) {
	p.h = h
	if p.counted {
		p.h = &counted{h, p.s.ips, p.key}
	}
	if p.remote != "" {
		p.h = &behindProxy{p.h, p.remote}
	}
}

// adopt gives the connection to the loop; its turn ends when a worker has it.
func (p *place) adopt(nc net.Conn, d wire.Deflate, answer, first []byte) error {
	r := p.r
	err := p.s.loop.AdoptThen(nc, p.h, d, answer, first, func() { front.EndTurn(r) })
	p.taken = err == nil
	return err
}

// end gives back what was taken for an upgrade that came to nothing, also by a panic of somebody's ResponseWriter. Who
// was admitted is gone again.
func (p *place) end() {
	defer p.s.hub.UpgradeEnds()
	if !p.taken { // else the worker ends both
		defer front.EndTurn(p.r)
		p.leave()
	}
}

// leave ends what never began. The connection is counted until all else is given back, as that of a worker is: whoever
// sees that it is gone finds its address's place free.
func (p *place) leave() {
	defer p.s.loop.Release()
	if p.h == nil {
		p.leaveIP()
	} else {
		p.h.Closed(nil, loop.Ending{Code: wire.CloseAbnormal})
	}
}

// leaveIP gives the address's place back.
func (p *place) leaveIP() {
	if p.counted {
		p.s.ips.Leave(p.key)
	}
}

// counted is a connection's handler that gives its address's place back at the end.
type counted struct {
	loop.Handler
	ips *front.PerIP
	key netip.Addr
}

func (c *counted) Closed(conn *loop.Conn, e loop.Ending) {
	defer c.ips.Leave(c.key)
	c.Handler.Closed(conn, e)
}

// shakeHands is all of the opening handshake that needs no place for the connection: what was agreed on, and the answer
// that says so.
func (s *Server) shakeHands(set *settings, w http.ResponseWriter, r *http.Request) (d wire.Deflate, answer []byte, no *refusal) {
	if isUpgrade(r) || r.Method != http.MethodGet {
		if no := set.checkOrigin(r); no != nil {
			return d, nil, no
		}
	}
	// By a POST the page at / learns why it can't connect: browsers tell it nothing of an upgrade, and send no Origin
	// with a GET of its own.
	if r.Method == http.MethodPost {
		if no := s.mayConnect(set, r); no != nil {
			return d, nil, no
		}
		if s.ips.Full(r.RemoteAddr) {
			return d, nil, set.tooManyOfOne()
		}
	}
	if no := checkHandshake(r); no != nil {
		return d, nil, no
	}
	if no := canHijack(w); no != nil {
		return d, nil, no
	}
	d, extensions, err := set.negotiate(r)
	if err != nil {
		return d, nil, &refusal{status: http.StatusBadRequest, detail: "the header Sec-WebSocket-Extensions is malformed", result: upgradeHandshake}
	}
	return d, switching(w.Header(), r.Header.Get("Sec-WebSocket-Key"), s.subprotocol(set, r), extensions), nil
}

// checkOrigin says why the page that asks may not connect; nil: it may.
func (set *settings) checkOrigin(r *http.Request) *refusal {
	why, pattern := set.origins.Refuse(r)
	if why == "" && set.JWT.Cookie != "" && len(r.Header["Origin"]) == 0 && len(r.CookiesNamed(set.JWT.Cookie)) > 0 {
		why = "with the cookie that carries a token the header Origin is needed; other programs than browsers show their token in another way"
	}
	if why == "" {
		return nil
	}
	no := &refusal{status: http.StatusForbidden, detail: why, result: upgradeOrigin, warn: true}
	if pattern != "" {
		no.flag = "--allowed-origins=" + pattern
	}
	return no
}

// switching is the answer 101. What middleware has set, such as a cookie, goes with it.
func switching(set http.Header, key, subprotocol, extensions string) []byte {
	b := append(make([]byte, 0, 320), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	b = append(b, wire.Accept(key)...)
	if subprotocol != "" {
		b = append(append(b, "\r\nSec-WebSocket-Protocol: "...), subprotocol...)
	}
	if extensions != "" {
		b = append(append(b, "\r\nSec-WebSocket-Extensions: "...), extensions...)
	}
	b = append(b, "\r\n"...)
	if len(set) > 0 {
		others := http.Header{}
		for name, values := range set {
			if !ofHandshake(name) {
				others[name] = values
			}
		}
		var lines bytes.Buffer
		others.Write(&lines) // leaves out what is no name, and line breaks in values
		b = append(b, lines.Bytes()...)
	}
	return append(b, "\r\n"...)
}

// ofHandshake says of a header whether the handshake alone sets it, or an answer without a body can't have it.
func ofHandshake(name string) bool {
	switch name = http.CanonicalHeaderKey(name); name {
	case "Connection", "Upgrade", "Keep-Alive", "Content-Length", "Transfer-Encoding", "Trailer":
		return true
	}
	return strings.HasPrefix(name, "Sec-Websocket-")
}

// canHijack looks, before anybody is asked or counted, whether the connection can be had at all.
func canHijack(w http.ResponseWriter) *refusal {
	for below := w; ; {
		switch t := below.(type) {
		case http.Hijacker, *front.Upgrading:
			return nil
		case interface{ Unwrap() http.ResponseWriter }:
			below = t.Unwrap()
		default:
			return noHijack(below, errors.New("it has neither the method Hijack of http.Hijacker nor Unwrap() http.ResponseWriter, and must have one of them"))
		}
	}
}

// noHijack is a fault of the program that Hubbub is a part of.
func noHijack(w http.ResponseWriter, err error) *refusal {
	return &refusal{status: http.StatusInternalServerError, result: upgradeFailed, detail: fmt.Sprintf("the connection can't be taken out of the http.ResponseWriter of type %T: %v", w, err)}
}

// subprotocol is the first that the client offers and the server has, or none. It has the protocol's own name too, for
// those who offer their token beside it, and where tokens are wanted for those who offer none.
func (s *Server) subprotocol(set *settings, r *http.Request) string {
	offers := r.Header["Sec-Websocket-Protocol"]
	own := set.identifies() || len(offeredTokens(r)) > 0
	for offer := range offered(r) {
		if own && offer == ownSubprotocol || slices.Contains(set.Subprotocols, offer) {
			return offer
		}
	}
	if len(offers) > 0 { // not which: some programs send a secret that way
		s.log.Debug("a client offers subprotocols, and the server has none of them: browsers and some libraries then close the connection",
			"setting", "--subprotocols", "remote", r.RemoteAddr)
	}
	return ""
}

// reserve takes a place for a connection, or says which limit has none.
func (s *Server) reserve(set *settings, r *http.Request) (p *place, no *refusal) {
	s.hub.UpgradeBegins() // before it looks whether the server stops: Shutdown waits for those who don't see that yet
	defer func() {
		if no != nil {
			s.hub.UpgradeEnds()
		}
	}()
	if no := s.closedToAll(set); no != nil {
		return nil, no
	}
	if no := s.connects(set, r); no != nil {
		return nil, no
	}
	p = &place{s: s, r: r}
	var ok bool
	if p.key, p.counted, ok = s.ips.Take(r.RemoteAddr); !ok {
		return nil, set.tooManyOfOne()
	}
	if !s.loop.Reserve(set.MaxConnections) {
		p.leaveIP()
		return nil, set.tooMany()
	}
	if len(set.proxies) > 0 {
		p.remote = r.RemoteAddr
	}
	return p, nil
}

// closedToAll says why every upgrade is refused just now, whoever asks and however few there are.
func (s *Server) closedToAll(set *settings) *refusal {
	if s.stopping.Load() {
		return &refusal{status: http.StatusServiceUnavailable, detail: "the server is stopping", result: upgradeStopping}
	}
	if why, out := s.links.trouble(); out {
		return &refusal{status: http.StatusServiceUnavailable, detail: why, result: upgradeNotIn}
	}
	if s.loop.Overloaded() {
		return full("the server is overloaded", upgradeOverloaded, "--max-buffered-bytes", set.MaxBufferedBytes)
	}
	return nil
}

func (c *Config) tooManyOfOne() *refusal {
	no := full("too many connections from this address", upgradePerIP, "--max-connections-per-ip", int64(c.MaxConnectionsPerIP))
	no.status = http.StatusTooManyRequests
	return no
}

func full(detail string, why upgradeResult, flag string, limit int64) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, detail: detail, result: why, flag: fmt.Sprintf("%s above %d", flag, limit)}
}

// ignoreBody answers at once and closes where a request has a body: nothing here reads one, and net/http would wait for
// it, for ever, before it sends the answer.
func ignoreBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
		http.NewResponseController(w).SetReadDeadline(time.Now())
	}
}

const noDescriptor = "the server has no descriptor left for this connection"

// tooBusy is what is said where net/http has no say any more, or not yet.
func tooBusy(detail string) string {
	body := problemBody(http.StatusServiceUnavailable, "", detail)
	return fmt.Sprintf("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: %d\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", retryAfter(), problemType, len(body), body)
}

// retryAfter is spread, or all would come back at once.
func retryAfter() int { return 1 + rand.IntN(5) }

// negotiate says which extensions the connection has, and the header that answers so; an empty one is left out.
func (c *Config) negotiate(r *http.Request) (wire.Deflate, string, error) {
	offers, err := wire.ParseExtensions(r.Header["Sec-Websocket-Extensions"])
	if err != nil || c.Compression == compressionOff {
		return wire.Deflate{}, "", err
	}
	d, answer := wire.AcceptDeflate(offers, c.Compression == compressionContext)
	return d, answer, nil
}

// checkHandshake holds a request against RFC 6455 4.2.1.
func checkHandshake(r *http.Request) *refusal {
	bad := func(detail string) *refusal {
		return &refusal{status: http.StatusBadRequest, detail: detail, result: upgradeHandshake}
	}
	if r.Method != http.MethodGet {
		return &refusal{status: http.StatusMethodNotAllowed, detail: "a WebSocket begins with GET", result: upgradeMethod, header: [2]string{"Allow", "GET"}}
	}
	if !isUpgrade(r) {
		no := &refusal{status: http.StatusUpgradeRequired, detail: "this is a WebSocket", result: upgradeMissing, header: [2]string{"Upgrade", "websocket"}}
		return no.byProxy(r, "the header Upgrade is missing")
	}
	if !r.ProtoAtLeast(1, 1) {
		return bad("a WebSocket needs HTTP/1.1").byProxy(r, "it came by "+r.Proto)
	}
	if !hasToken(r.Header["Connection"], "upgrade") {
		return bad(`the header Connection lacks "Upgrade"`).byProxy(r, "the headers Upgrade and Sec-WebSocket-Key are there")
	}
	switch v := r.Header["Sec-Websocket-Version"]; {
	case len(v) != 1:
		return bad("there must be one header Sec-WebSocket-Version")
	case strings.TrimSpace(v[0]) != "13":
		return &refusal{status: http.StatusUpgradeRequired, detail: "the version must be 13", result: upgradeVersion, header: [2]string{"Sec-WebSocket-Version", "13"}}
	}
	key := r.Header["Sec-Websocket-Key"]
	if len(key) != 1 {
		return bad("there must be one header Sec-WebSocket-Key")
	}
	// RFC 6455 4.2.1 5: "a base64-encoded value that, when decoded, is 16 bytes in length".
	if raw, err := base64.StdEncoding.DecodeString(key[0]); err != nil || len(raw) != 16 {
		return bad("the header Sec-WebSocket-Key is not 16 bytes in base64")
	}
	if r.ContentLength > 0 || len(r.TransferEncoding) > 0 {
		return bad("an upgrade has no body") // its bytes would be read as frames
	}
	return nil
}

// byProxy adds to a refusal what is wrong on the way, where the request was a WebSocket's once: only these have a
// Sec-WebSocket-Key.
func (no *refusal) byProxy(r *http.Request, why string) *refusal {
	if hasKey(r) {
		no.warn = true
		no.detail += "; " + why + ", and the request has a Sec-WebSocket-Key: a proxy in between probably speaks HTTP/1.0 to this server, or drops the headers Upgrade and Connection. " +
			`It must pass them on: in nginx "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"`
	}
	return no
}

// isUpgrade says whether the request wants a WebSocket.
func isUpgrade(r *http.Request) bool { return hasToken(r.Header["Upgrade"], "websocket") }

func hasKey(r *http.Request) bool { return len(r.Header["Sec-Websocket-Key"]) > 0 }

// hasToken looks for one item in header lines that are lists, letter case aside.
func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(item), token) {
				return true
			}
		}
	}
	return false
}

// note counts a refusal and logs it. A browser shows nothing of it, so the log says what would allow it.
func (s *Server) note(r *http.Request, no refusal) {
	if no.result != noUpgrade {
		s.tally.upgrades[no.result].Add(1)
	}
	attrs := []any{"status", no.status, "why", no.detail, "remote", r.RemoteAddr, "path", r.URL.Path} // and not the query, which may have a token
	if no.flag != "" {
		attrs = append(attrs, "would_allow", no.flag)
	}
	line := &s.refused[no.result]
	switch {
	case no.status == http.StatusInternalServerError:
		line.Log(s.log, slog.LevelError, "upgrade failed", attrs...)
	case no.warn || no.flag != "":
		line.Log(s.log, slog.LevelWarn, "upgrade refused", attrs...)
	case no.code != "":
		line.Log(s.log, slog.LevelInfo, "upgrade refused", attrs...)
	default:
		s.log.Debug("request refused", attrs...)
	}
}

// refuse notes a refusal, answers with a problem (RFC 9457) and closes the connection.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, no refusal) {
	s.note(r, no)
	h := w.Header()
	h.Set("Connection", "close")
	if no.header[0] != "" {
		h.Set(no.header[0], no.header[1])
	}
	if no.status == http.StatusUpgradeRequired {
		h.Add("Connection", "Upgrade") // RFC 9110 7.8: the header Upgrade goes with this option
		h.Set("Upgrade", "websocket")
	}
	if no.status == http.StatusServiceUnavailable || no.status == http.StatusTooManyRequests {
		h.Set("Retry-After", retryAfterAt(no.after))
	}
	problem(w, no.status, no.code, no.detail)
}

const problemType = "application/problem+json"

func problem(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("Content-Type", problemType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(problemBody(status, code, detail))
}

func problemBody(status int, code, detail string) []byte {
	b, _ := json.Marshal(struct { // texts and a number can't fail
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Code   string `json:"code,omitempty"`
	}{"about:blank", http.StatusText(status), status, detail, code})
	return append(b, '\n')
}
