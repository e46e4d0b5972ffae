package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/coreos/go-systemd/v22/daemon"

	"example.com/hubbub"
)

type serveCmd struct {
	Config              configFile    `placeholder:"FILE" help:"YAML file of settings, by the names of the flags."`
	Listen              string        `default:":8080" placeholder:"ADDR" help:"Address for HTTP and WebSockets: :8080, 127.0.0.1:8080, or unix:PATH for a Unix socket (${default})."`
	AdminListen         string        `placeholder:"ADDR" help:"Address for the API, /metrics and /debug/pprof, which the public one hasn't got then; :9000 is this machine's alone."`
	APIKey              secret        `name:"api-key" placeholder:"KEY" help:"A key of the API with every right; better in the environment, since all on the machine see the command line. hubbub key makes one."`
	Workers             int           `default:"0" placeholder:"N" help:"Event-loop workers (0: one for each processor that Go uses)."`
	MaxConnections      int           `default:"0" placeholder:"N" help:"Open WebSockets; above it an upgrade gets 503 (0: the limit of open files less max(64, a 32nd), and less where it is low and the logs of rooms are in --data-dir)."`
	MaxConnectionsPerIP int           `name:"max-connections-per-ip" default:"0" placeholder:"N" help:"Of these from one address, or one /64 of IPv6; above it 429 (0: no limit)."`
	MaxRoomsPerClient   int           `default:"1000" placeholder:"N" help:"Rooms that one client may be in (${default})."`
	MaxMessageBytes     size          `default:"64KiB" placeholder:"SIZE" help:"A client's largest message, such as 65536 or 64KiB; a larger one closes the connection with 1009 (${default})."`
	MaxBufferedBytes    size          `default:"0" placeholder:"SIZE" help:"Unsent and half received bytes of all clients together; above it the largest debtors are closed with 1013 (0: a quarter of the memory)."`
	SendQueueBytes      size          `default:"1MiB" placeholder:"SIZE" help:"Unsent bytes that make a client a slow consumer (${default})."`
	SendQueueAge        time.Duration `default:"30s" placeholder:"TIME" help:"Age of the oldest unsent message that makes a client a slow consumer (${default})."`
	SlowConsumer        string        `default:"disconnect" placeholder:"POLICY" help:"What happens to a slow consumer in rooms whose policy doesn't say: disconnect, drop-oldest, latest or latest-by-key (${default})."`
	Chat                string        `default:"" placeholder:"WHO" help:"Who may send chats: anyone, users, granted or server (empty: anyone, but users where a way of identifying clients is set)."`
	Direct              string        `default:"" placeholder:"WHO" help:"Who may send direct messages; as chat."`
	DedupWindow         time.Duration `default:"2m" placeholder:"TIME" help:"How long a publish_id is remembered: the same one again is acknowledged and not delivered (${default})."`
	ResumeWindow        time.Duration `default:"30s" placeholder:"TIME" help:"How long the session of a lost connection is kept for its client to resume; 0s: not at all (${default})."`
	PingInterval        time.Duration `default:"25s" placeholder:"TIME" help:"How often clients are pinged (${default})."`
	PongTimeout         time.Duration `default:"10s" placeholder:"TIME" help:"A client that was silent for ping-interval and this is closed with 4002 (${default})."`
	HandshakeTimeout    time.Duration `default:"10s" placeholder:"TIME" help:"How long the head of a request may take (${default})."`
	ShutdownDelay       time.Duration `default:"0s" placeholder:"TIME" help:"After SIGTERM: how long connections are still accepted while /readyz says 503 already (${default})."`
	ShutdownTimeout     time.Duration `default:"30s" placeholder:"TIME" help:"How long clients may take to go after that (${default})."`
	AllowedOrigins      []string      `placeholder:"PATTERN" help:"Origins whose pages may connect beside the server's own, such as https://*.example.com or http://localhost:*; opened files and desktop shells are null or file://, and no star lets them in."`
	TrustedProxies      []string      `placeholder:"CIDR" help:"Proxies whose X-Forwarded-For or Forwarded is believed: addresses, ranges such as 10.0.0.0/8, or unix for whoever connects by a Unix socket."`
	ProxyProtocol       string        `default:"off" enum:"on,off" placeholder:"on|off" help:"on: connections from --trusted-proxies begin with a header of the PROXY protocol, version 1 or 2 (${default})."`
	Subprotocols        []string      `placeholder:"NAME" help:"Values of Sec-WebSocket-Protocol to agree to; the first that a client offers is chosen."`
	BasePath            string        `placeholder:"PATH" help:"What all paths begin with, such as /live for /live/ws, where a proxy passes it on."`
	WebhookURL          secret        `name:"webhook-url" placeholder:"URL" help:"Where the backend is told what happens, by signed requests: who connects, joins, leaves and goes."`
	WebhookSecret       secrets       `placeholder:"SECRET" help:"What signs webhooks and questions: whsec_ and base64 of 24 to 64 bytes; two of them while you change from one to the next. Better in the environment, since all on the machine see the command line."`
	WebhookEvents       []string      `placeholder:"EVENT" help:"What is told, such as room.occupied,room.vacated (all but message.published)."`
	WebhookRooms        []string      `placeholder:"PATTERN" help:"The rooms whose messages are told, where --webhook-events has message.published (all)."`
	HookURL             secret        `name:"hook-url" placeholder:"URL" help:"Where the backend is asked, by one signed request each, what --hook-events names; without an answer it is no. It needs --webhook-secret."`
	HookEvents          []string      `placeholder:"KIND" help:"What it is asked: connect (who is this client, may it come in), join, publish (may it), request (what a client asks of it)."`
	DataDir             string        `placeholder:"DIR" help:"A folder for what shall outlive the process: the history of rooms, where this node keeps it, and the webhooks that wait. Without it both are in memory."`
	NodeName            string        `placeholder:"NAME" help:"What this server is called in webhooks, by the API and among other nodes (an id that is kept in --data-dir, or made up)."`
	clusterFlags        `embed:""`
	JWTKey              secret        `name:"jwt-key" placeholder:"KEY" help:"Checks the tokens that say who clients are: a secret of 32 bytes or more, or @FILE with a secret or a public key, PEM. Without this and jwt-jwks the server is open to all."`
	JWTJWKS             secret        `name:"jwt-jwks" placeholder:"URL" help:"The same by a provider's keys, which are fetched from there when a token names a new one; needs jwt-audience."`
	JWTIssuer           string        `name:"jwt-issuer" placeholder:"TEXT" help:"What a token's claim iss must be."`
	JWTAudience         string        `name:"jwt-audience" placeholder:"TEXT" help:"What a token's claim aud must have."`
	JWTLeeway           time.Duration `name:"jwt-leeway" default:"10s" placeholder:"TIME" help:"How much the clocks of those who make tokens may be wrong, 0s to 1m (${default})."`
	JWTCookie           string        `name:"jwt-cookie" placeholder:"NAME" help:"Cookie that may carry the token, beside the query, the header Authorization and the subprotocol."`
	Anonymous           string        `default:"off" enum:"on,off" placeholder:"MODE" help:"on: who shows no token is let in too, without a name (${default})."`
	TLSCert             string        `name:"tls-cert" placeholder:"FILE" help:"Certificate, PEM, with its chain; read again when it changes."`
	TLSKey              string        `name:"tls-key" placeholder:"FILE" help:"Its key, PEM."`
	Page                string        `default:"on" enum:"on,off" placeholder:"on|off" help:"off: no page at / on which everybody may try the server, and no console beside it (${default})."`
	Compression         string        `default:"on" placeholder:"MODE" help:"permessage-deflate: on, off, or context, which keeps context takeover and its memory (${default})."`
	IO                  string        `name:"io" default:"auto" placeholder:"KIND" help:"auto, epoll (Linux), uring (epoll, and io_uring for writes) or pump (portable)."`
	LogLevel            string        `default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"debug, info, warn or error (${default})."`
	LogFormat           string        `default:"text" enum:"text,json" placeholder:"FORMAT" help:"text or json (${default})."`

	file    *file    // what --config named, or nil
	unknown []string // variables of the environment that do nothing
}

// Help is shown by hubbub serve --help.
func (serveCmd) Help() string {
	return "Each flag may be an environment variable as well, HUBBUB_LISTEN for --listen, and a line of the file that --config names, \"listen: :8080\": the flag counts first, then the environment, then the file. hubbub config prints what they come to. SIGHUP reads the file again. SIGTERM or SIGINT tells every client to come back later and stops; a second one stops at once."
}

// resumeWindow is the setting as hubbub.Config has it, where 0 is the default.
func (c *serveCmd) resumeWindow() time.Duration {
	if c.ResumeWindow == 0 {
		return -1
	}
	return c.ResumeWindow
}

// jwtLeeway is the setting as hubbub.Config has it, where 0 is the default.
func (c *serveCmd) jwtLeeway() time.Duration {
	if c.JWTLeeway == 0 {
		return -1
	}
	return c.JWTLeeway
}

// Run serves until a signal comes.
func (c *serveCmd) Run(ctx *kong.Context) error {
	var level slog.LevelVar
	recent := &logTail{to: os.Stderr}
	log := c.loggerTo(recent, &level)
	slog.SetDefault(log)
	cfg, secure, err := c.prepare(ctx, log)
	if err != nil {
		return err
	}
	for _, name := range c.unknown {
		log.Warn("a variable of the environment is no setting, and does nothing; hubbub config lists all", "name", name)
	}
	limitMemory(log)
	handed, err := inherited()
	if err != nil {
		return usageError{err}
	}
	l, err := listenOn(handed.listen, c.Listen, secure)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", c.Listen, err)
	}
	admin, err := c.admin(log, handed.admin)
	if err != nil {
		l.Close()
		return fmt.Errorf("--admin-listen %s: %w", c.AdminListen, err)
	}
	provider, err := traces(log, os.Getenv)
	if err != nil {
		l.Close()
		return usageError{err}
	}
	defer flush(provider)
	again := &reloader{args: ctx.Args, level: &level, log: log, traces: provider, apart: admin != nil, now: c, shown: c.settingsOf(ctx, cfg), recent: recent}
	again.fill(&cfg)
	again.mu.Lock() // a reload that is asked for meanwhile waits
	srv, err := hubbub.New(cfg)
	again.srv = srv
	again.mu.Unlock()
	if err != nil {
		l.Close()
		return err
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	watched, unwatch := context.WithCancel(context.Background())
	defer unwatch()
	again.onSignal(watched, srv) // before anybody can know that the server runs

	log.Info("hubbub listens", append(c.where(l.Addr(), secure != nil), c.machine()...)...)
	served := make(chan error, 2)
	go func() { served <- srv.Serve(l) }()
	if admin != nil {
		log.Info("the admin listener has the API and /metrics", "admin-listen", admin.Addr().String())
		go func() { served <- srv.ServeAdmin(admin, withPprof(srv.AdminHandler())) }()
	}
	go watch(watched, log, srv.Alive)
	tellSystemd(log, daemon.SdNotifyReady) // it listens; a node that waits for its cluster says so at /readyz

	select {
	case err := <-served: // the listener failed, or the node can't be one of its cluster
		ctx, cancel := context.WithTimeout(context.Background(), c.ShutdownTimeout)
		defer cancel()
		return errors.Join(err, srv.Shutdown(ctx))
	case sig := <-signals:
		log.Info("stopping; once more stops at once", "signal", sig, "connections", srv.Connections())
	}
	c = again.settings()
	tellSystemd(log, stopTakes(c.ShutdownDelay+c.ShutdownTimeout))
	passOneSignal(signals)
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), c.ShutdownDelay+c.ShutdownTimeout)
		defer cancel()
		stopped <- srv.Shutdown(ctx)
	}()
	select {
	case err := <-stopped:
		if errors.Is(err, context.DeadlineExceeded) {
			log.Warn("some clients did not go and were cut off", "after", c.ShutdownTimeout)
		}
		if errors.Is(err, hubbub.ErrUnsettled) || errors.Is(err, hubbub.ErrStoreRunning) {
			return err
		}
	case <-signals:
		return errors.New("stopped at once by a second signal")
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	log.Info("stopped")
	return nil
}

// sameSignal is how far apart two signals are that one cause has sent. Who stops a whole group of processes sends them
// to each process and to the group, as timeout(1) does, or passes on a Control-C that the terminal has sent to all
// already.
const sameSignal = 20 * time.Millisecond

// passOneSignal takes what comes together with the first signal.
func passOneSignal(signals <-chan os.Signal) {
	select {
	case <-signals:
	case <-time.After(sameSignal):
	}
}

// prepare makes of the settings what the server is given. hubbub config calls it too, so it fails where serve would,
// but for what only trying tells: whether an address is free.
func (c *serveCmd) prepare(ctx *kong.Context, log *slog.Logger) (cfg hubbub.Config, secure *tls.Config, err error) {
	cfg = c.config(log)
	errs := []error{c.noZeros(), cfg.Validate()}
	if _, _, err := hubbub.ListenAddress(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen %s: %w", c.Listen, err))
	}
	if _, _, err := hubbub.ListenAddress(adminAddress(c.AdminListen)); c.AdminListen != "" && err != nil {
		errs = append(errs, fmt.Errorf("admin-listen %s: %w", c.AdminListen, err))
	}
	errs = append(errs, c.collisions()...)
	if _, err := c.apiKeys(); err != nil {
		errs = append(errs, err)
	}
	if strings.HasPrefix(c.Listen, "unix:") && c.MaxConnectionsPerIP > 0 && !slices.Contains(c.TrustedProxies, "unix") {
		errs = append(errs, fmt.Errorf("max-connections-per-ip %d: it can't be counted at a Unix socket, whose clients have no addresses, unless a proxy tells them and --trusted-proxies has unix", c.MaxConnectionsPerIP))
	}
	if c.JWTLeeway < 0 {
		errs = append(errs, fmt.Errorf("jwt-leeway %s: less than 0s", c.JWTLeeway))
	}
	if strings.HasPrefix(c.Listen, "unix:") && cfg.Limits.Address != (hubbub.AddressLimits{}) && !slices.Contains(c.TrustedProxies, "unix") {
		errs = append(errs, errors.New("limits.address: it can't be counted at a Unix socket, whose clients have no addresses, unless a proxy tells them and --trusted-proxies has unix"))
	}
	secure, err = c.secure(log)
	if err := errors.Join(append(errs, err)...); err != nil {
		return cfg, nil, usageError{locate(ctx, c, err)}
	}
	c.warn(log, cfg.Effective())
	return cfg, secure, nil
}

// warn says which settings may not do what they are there for.
func (c *serveCmd) warn(log *slog.Logger, cfg hubbub.Config) {
	if most := (hubbub.Config{}).Effective().MaxConnections; c.MaxConnections > most {
		log.Warn("max-connections is more than the limit of open files leaves room for: beyond it clients are turned away by the system", "max-connections", c.MaxConnections, "room_for", most)
	}
	if n := cfg.MaxMessageBytes; n < 1<<10 { // a name of 255 bytes may be twice as long in JSON
		log.Warn("max-message-bytes is less than 1 KiB: a client can't come back to a room of the longest name", "max-message-bytes", n)
	}
	if nobodys := namesOrGrants(cfg); len(nobodys) > 0 && c.JWTKey == "" && c.JWTJWKS == "" && !slices.Contains(c.HookEvents, "connect") {
		log.Warn("no client has a name, or is granted anything: what only such may do nobody may; set --jwt-key, --jwt-jwks, or --hook-url with the event connect", "settings", strings.Join(nobodys, ", "))
	}
	if slices.Contains(c.TrustedProxies, "unix") && !strings.HasPrefix(c.Listen, "unix:") && os.Getenv("LISTEN_FDS") == "" {
		log.Warn("trusted-proxies has unix, and --listen is no Unix socket: it stands for nobody, unless systemd listens at one in its place", "listen", c.Listen)
	}
}

// namesOrGrants are the settings by which clients may do a thing that have a name, or are granted it.
func namesOrGrants(cfg hubbub.Config) (all []string) {
	add := func(setting, who string) {
		if who == "users" || who == "granted" {
			all = append(all, setting+" "+who)
		}
	}
	add("chat", cfg.Chat)
	add("direct", cfg.Direct)
	for i, r := range cfg.Rooms {
		if strings.Contains(r.Match, "${user}") {
			all = append(all, ruleName(i)+".match "+r.Match)
			continue
		}
		add(ruleName(i)+".join", r.Join)
		add(ruleName(i)+".read", r.Read)
		add(ruleName(i)+".publish", r.Publish)
	}
	return all
}

// config is what the library is given.
func (c *serveCmd) config(log *slog.Logger) hubbub.Config {
	var rooms []hubbub.RoomPolicy
	var limits hubbub.Limits
	keys, _ := c.apiKeys() // prepare says what is wrong
	if c.file != nil {
		rooms, limits = c.file.rooms, c.file.limits
	}
	return hubbub.Config{
		Workers:             c.Workers,
		MaxConnections:      c.MaxConnections,
		MaxConnectionsPerIP: c.MaxConnectionsPerIP,
		MaxRoomsPerClient:   c.MaxRoomsPerClient,
		MaxMessageBytes:     int(c.MaxMessageBytes),
		MaxBufferedBytes:    int64(c.MaxBufferedBytes),
		SendQueueBytes:      int(c.SendQueueBytes),
		SendQueueAge:        c.SendQueueAge,
		SlowConsumer:        c.SlowConsumer,
		Rooms:               rooms,
		Limits:              limits,
		Chat:                c.Chat,
		Direct:              c.Direct,
		APIKeys:             keys,
		AdminApart:          c.AdminListen != "",
		PingInterval:        c.PingInterval,
		PongTimeout:         c.PongTimeout,
		DedupWindow:         c.DedupWindow,
		ResumeWindow:        c.resumeWindow(),
		HandshakeTimeout:    c.HandshakeTimeout,
		ShutdownDelay:       c.ShutdownDelay,
		AllowedOrigins:      c.AllowedOrigins,
		TrustedProxies:      c.TrustedProxies,
		ProxyProtocol:       c.ProxyProtocol == "on",
		Webhooks:            c.webhooks(),
		DataDir:             c.DataDir,
		NodeName:            c.NodeName,
		Cluster:             c.cluster(),
		NATS:                hubbub.NATS{URLs: c.NATS, Creds: c.NATSCreds, CA: c.NATSCA},
		Subprotocols:        c.Subprotocols,
		BasePath:            c.BasePath,
		Questions:           hubbub.Questions{URL: string(c.HookURL), Events: c.HookEvents, Secrets: c.WebhookSecret},
		JWT: hubbub.JWT{
			Key: string(c.JWTKey), JWKS: string(c.JWTJWKS), Issuer: c.JWTIssuer, Audience: c.JWTAudience, Leeway: c.jwtLeeway(), Cookie: c.JWTCookie,
		},
		Anonymous:   c.Anonymous == "on",
		Page:        c.Page,
		Compression: c.Compression,
		IO:          c.IO,
		Logger:      log,
	}
}

// webhooks are signed as the questions are, whose alone the secrets may be.
func (c *serveCmd) webhooks() hubbub.Webhooks {
	w := hubbub.Webhooks{URL: string(c.WebhookURL), Secrets: c.WebhookSecret, Events: c.WebhookEvents, Rooms: c.WebhookRooms}
	if w.URL == "" && c.HookURL != "" {
		w.Secrets = nil
	}
	return w
}

// secure is nil without --tls-cert and --tls-key.
func (c *serveCmd) secure(log *slog.Logger) (*tls.Config, error) {
	switch {
	case c.TLSCert == "" && c.TLSKey == "":
		return nil, nil
	case c.TLSCert == "":
		return nil, fmt.Errorf("tls-key %s: it needs --tls-cert", c.TLSKey)
	case c.TLSKey == "":
		return nil, fmt.Errorf("tls-cert %s: it needs --tls-key", c.TLSCert)
	}
	secure, err := hubbub.CertificateFiles(c.TLSCert, c.TLSKey, log)
	if err != nil {
		return nil, fmt.Errorf("tls-cert %s: %w", c.TLSCert, errors.Unwrap(err))
	}
	return secure, nil
}

// noZeros refuses what a Config would take for "use the default".
func (c *serveCmd) noZeros() error {
	var errs []error
	for _, setting := range []struct {
		name  string
		value any
	}{
		{"max-rooms-per-client", c.MaxRoomsPerClient},
		{"max-message-bytes", c.MaxMessageBytes},
		{"send-queue-bytes", c.SendQueueBytes},
		{"send-queue-age", c.SendQueueAge},
		{"ping-interval", c.PingInterval},
		{"pong-timeout", c.PongTimeout},
		{"dedup-window", c.DedupWindow},
		{"handshake-timeout", c.HandshakeTimeout},
		{"shutdown-timeout", max(0, c.ShutdownTimeout)}, // which a Config has not got
	} {
		if reflect.ValueOf(setting.value).IsZero() {
			errs = append(errs, fmt.Errorf("%s %v: must be greater", setting.name, setting.value))
		}
	}
	return errors.Join(errs...)
}

// level is that of the log.
func (c *serveCmd) level() (l slog.Level) {
	l.UnmarshalText([]byte(c.LogLevel)) // the flag's enum holds the names
	return l
}

// logger writes to stderr at the level of the settings.
func (c *serveCmd) logger() *slog.Logger { return c.loggerTo(os.Stderr, new(slog.LevelVar)) }

// loggerTo writes at the level, which it sets.
func (c *serveCmd) loggerTo(to io.Writer, level *slog.LevelVar) *slog.Logger {
	level.Set(c.level())
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(to, opts))
	}
	return slog.New(slog.NewTextHandler(to, opts))
}

// where is what to type into a browser on this machine, and into a client; or the Unix socket's file.
func (c *serveCmd) where(a net.Addr, secure bool) []any {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil || a.Network() == "unix" {
		return []any{"socket", a.String()}
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	s := ""
	if secure {
		s = "s"
	}
	at := s + "://" + net.JoinHostPort(host, port) + strings.TrimRight(c.BasePath, "/") + "/"
	if c.Page == "off" {
		return []any{"websocket", "ws" + at + "ws"}
	}
	return []any{"page", "http" + at, "websocket", "ws" + at + "ws"}
}

// machine is what the server makes use of: processors, and the way to read and write where that is chosen.
func (c *serveCmd) machine() []any {
	uses := []any{"processors", runtime.GOMAXPROCS(0)}
	if c.IO != "auto" {
		uses = append(uses, "io", c.IO)
	}
	return uses
}

// size is a number of bytes: 65536, 64KiB, 1MiB, 2GiB.
type size int

func (s *size) UnmarshalText(b []byte) error {
	text, factor := string(b), 1
	for unit, f := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n, ok := strings.CutSuffix(text, unit); ok {
			text, factor = n, f
		}
	}
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < 0 || n > (1<<40)/factor {
		return fmt.Errorf("%q is no size: write 65536, 64KiB or 1MiB", b)
	}
	*s = size(n * factor)
	return nil
}

// String is how a person would write it.
func (s size) String() string {
	for _, u := range []struct {
		name  string
		bytes size
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if s > 0 && s%u.bytes == 0 {
			return strconv.Itoa(int(s/u.bytes)) + u.name
		}
	}
	return strconv.Itoa(int(s))
}
