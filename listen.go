package hubbub

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"example.com/hubbub/internal/front"
	"example.com/hubbub/internal/loop"
)

const (
	maxHeadBytes = 32 << 10
	keepAlive    = 30 * time.Second
	// fdsOfOurs are the descriptors that are neither a connection nor a request: files, epolls, the listener.
	fdsOfOurs = 32
)

// ListenAndServe listens on addr and calls Serve.
func (s *Server) ListenAndServe(addr string) error {
	l, err := Listen(addr, nil)
	if err != nil {
		return err
	}
	return s.Serve(l)
}

// ListenAddress gives what Listen calls package net with, and says of an address that it can't use what to write
// instead. It doesn't find out whether somebody else listens there.
func ListenAddress(addr string) (network, address string, err error) {
	return front.ListenAddress(addr)
}

// Listen is net.Listen for TCP, or tls.Listen where secure is not nil, with three differences: TCP's own keep-alive is
// off, which would probe each idle connection every 15 s beside our pings; on Linux a Server takes the connections of a
// TCP listener from the system itself, which is quicker, and finds out within a second when the listener is closed; and a
// Server's workers can take connections over with their TLS, where those of any other TLS listener need two goroutines
// each.
//
// An address "unix:PATH" is a Unix socket. A socket file that nobody listens at any more is replaced; the new one is
// open to the process's user and group, whatever the umask, and removed when the listener is closed.
func Listen(addr string, secure *tls.Config) (net.Listener, error) {
	l, err := front.Listen(addr)
	if err != nil {
		return nil, fmt.Errorf("hubbub: %w", err)
	}
	return withTLS(l, secure), nil
}

// ListenFile is Listen for a socket that listens already, TCP or Unix, such as a parent or systemd hands to a process.
// It takes f over, also where it fails.
func ListenFile(f *os.File, secure *tls.Config) (net.Listener, error) {
	l, err := front.ListenFile(f)
	if err != nil {
		return nil, fmt.Errorf("hubbub: %w", err)
	}
	return withTLS(l, secure), nil
}

func withTLS(l net.Listener, secure *tls.Config) net.Listener {
	if secure == nil {
		return l
	}
	secure = secure.Clone()
	secure.NextProtos = []string{"http/1.1"} // a WebSocket can't be upgraded from HTTP/2 here
	secure.DynamicRecordSizingDisabled = true
	return &tlsListener{l, secure}
}

type tlsListener struct {
	net.Listener
	config *tls.Config
}

func (l *tlsListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return loop.ServerTLS(nc, l.config), nil
}

// CertificateFiles is a TLS configuration whose certificate and key are PEM files. They are read again, within a second
// of the next handshake, when one of them has changed; connections that are open keep theirs. A pair that can't be read
// then is logged and the one before stays in use. A certificate that is expired, or will be within two weeks, or isn't
// valid yet is used, and logged when it is read and once a day.
func CertificateFiles(certFile, keyFile string, log *slog.Logger) (*tls.Config, error) {
	if log == nil {
		log = slog.Default()
	}
	c, err := front.ReadCertificate(certFile, keyFile, log)
	if err != nil {
		return nil, fmt.Errorf("hubbub: %w", err)
	}
	return &tls.Config{GetCertificate: c.Get}, nil
}

// Serve answers what comes in on l until Shutdown; then it returns http.ErrServerClosed. Where the node turns out not to
// belong to its cluster, because the others have other policies of rooms, it returns why; Shutdown is still to be called. Next to http.Serve it bounds
// what connections that are not upgraded yet can cost, in number, in time and in bytes.
func (s *Server) Serve(l net.Listener) error {
	if s.cfg().ProxyProtocol {
		l = s.withProxyHeaders(l)
	}
	return s.serve(l, s)
}

// ServeAdmin is Serve for a listener of the operator's and the backend's own: h is AdminHandler, or what the program has
// put around it. It is closed with the others at the end of Shutdown.
func (s *Server) ServeAdmin(l net.Listener, h http.Handler) error { return s.serve(l, h) }

// serve is Serve for any handler.
func (s *Server) serve(l net.Listener, h http.Handler) error {
	g := front.NewGate(l, s.cfg().descriptors(), front.TurnsPerWorker*s.cfg().Workers, func() string { return tooBusy(noDescriptor) }, s.log)
	if h == http.Handler(s) {
		g.Quick = &front.Quick{
			Upgrade: s.quickUpgrade, Head: s.cfg().HandshakeTimeout, Idle: keepAlive,
			Descriptors: loop.IO(s.cfg().IO) != loop.Pump, ComesBack: s.comesBack,
			Long: func(*http.Request) bool { return s.cfg().identifies() }, // a signature
		}
		if !s.cfg().AdminApart {
			g.Quick.Answer = s.api.Quick(s.cfg().BasePath)
		}
	}
	srv := &http.Server{
		Handler:           g.Handler(h),
		ReadHeaderTimeout: s.cfg().HandshakeTimeout,
		ReadTimeout:       s.cfg().HandshakeTimeout,
		WriteTimeout:      time.Minute, // a hijacked connection has none
		IdleTimeout:       keepAlive,
		MaxHeaderBytes:    maxHeadBytes,
		ConnState:         g.Changed,
		ConnContext:       g.Context,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.mu.Lock()
	if s.stopping.Load() {
		s.mu.Unlock()
		l.Close()
		return http.ErrServerClosed
	}
	s.listening[srv] = true
	s.gates = append(s.gates, g)
	g.Descriptors(s.cfg().descriptors()) // under mu, as a reload does
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listening, srv)
		s.mu.Unlock()
	}()
	defer s.links.closeIfFailed(srv)()
	err := srv.Serve(g)
	if failure := s.links.failedWith(); failure != nil {
		return fmt.Errorf("hubbub: serve: %w", failure)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("hubbub: serve: %w", err)
	}
	return err
}

// descriptors is how many there are for connections that are no WebSockets (yet).
func (c *Config) descriptors() int {
	return openFileLimit() - c.MaxConnections - fdsOfOurs - c.logFiles()
}

// quickUpgrade serves an upgrade without net/http, in less than three quarters of its processor time, where nothing has to
// be waited for that a client which hangs up should end: an answer of the application, a provider's keys, another node.
func (s *Server) quickUpgrade(r *http.Request) http.HandlerFunc {
	path := s.pathOf(r)
	if path != "/ws" && path != "/" && path != "/echo" || !isUpgrade(r) {
		return nil
	}
	set := s.cfg()
	if set.Authenticate != nil || set.JWT.JWKS != "" || set.asksOf(r) != nil || s.hub.AsksNodes() || s.hub.Remote() && first(inQuery(r, "resume")) != "" {
		return nil
	}
	return func(w http.ResponseWriter, r *http.Request) { s.serveBy(set, w, r) }
}

// takeOver has the connection of an upgrade, and what came of it behind the request.
func takeOver(w http.ResponseWriter) (nc net.Conn, first []byte, err error) {
	if quick, ok := w.(*front.Upgrading); ok {
		nc, first = quick.Take()
		return nc, first, nil
	}
	nc, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if n := buffered.Reader.Buffered(); n > 0 {
		peek, _ := buffered.Reader.Peek(n)
		first = slices.Clone(peek)
	}
	return nc, first, nil
}

// aside serves a request in its lane.
func (s *Server) aside(w http.ResponseWriter, r *http.Request, l front.Lane, serve http.HandlerFunc) {
	front.StepAside(w, r)
	if !l.Enter() {
		s.refuse(w, r, refusal{status: http.StatusServiceUnavailable, detail: "too many ask for this at once"})
		return
	}
	defer l.Leave()
	serve(w, r)
}
