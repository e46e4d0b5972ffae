package hubbub

import (
	"log/slog"
	"net"
	"net/http"

	"example.com/hubbub/internal/front"
	"example.com/hubbub/internal/loop"
)

// asked gives a request with its client's address, where a proxy stands between that is trusted. All that looks at an
// address comes behind it.
func (s *Server) asked(set *settings, r *http.Request) *http.Request {
	asked, clash := set.proxies.Asked(r)
	if clash {
		s.clash.Log(s.log, slog.LevelWarn, "the headers Forwarded and X-Forwarded-For name different clients, so the proxy's own address counts: it must write one of them and take the other away, in nginx by \"proxy_set_header Forwarded '';\"",
			"proxy", r.RemoteAddr, "setting", "--trusted-proxies")
	}
	return asked
}

// withProxyHeaders has the PROXY protocol's header read of each connection before TLS.
func (s *Server) withProxyHeaders(l net.Listener) net.Listener {
	if over, ok := l.(*tlsListener); ok {
		return &tlsListener{s.withProxyHeaders(over.Listener), over.config}
	}
	return front.NewProxyListener(l, func() front.Proxies { return s.cfg().proxies }, s.cfg().HandshakeTimeout, s.log)
}

// behindProxy is a connection's handler whose client has another address than the socket's peer.
type behindProxy struct {
	loop.Handler
	address string
}

// Address is the client's, for the loop's log lines.
func (b *behindProxy) Address() string { return b.address }
