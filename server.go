package hubbub

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub/internal/api"
	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/console"
	"example.com/hubbub/internal/datadir"
	"example.com/hubbub/internal/front"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/protocol/room"
	"example.com/hubbub/internal/sparselog"
	"example.com/hubbub/internal/tracing"
	"example.com/hubbub/js"
)

// Server is the whole of Hubbub as an http.Handler: the room protocol at /ws (and at / when the request is an upgrade),
// the echo at /echo, a page to try it at /, the JavaScript client at /hubbub.js, the backend's API at /api/v1, and
// /healthz, /readyz and /metrics. Below a path of a mux it needs
// http.StripPrefix, or Config.BasePath. What a middleware has set in a ResponseWriter's Header, such as a cookie, goes
// with the answer 101 too; a ResponseWriter of its own must have Hijack or Unwrap (http.ResponseController). Its
// methods may be called from any goroutine, a Handler's too. Serve, ListenAndServe and Shutdown block; Join, Remove,
// Disconnect, DisconnectUser and Client wait for a client's worker.
type Server struct {
	// Static after New.
	log       *slog.Logger
	loop      *loop.Loop
	hub       *hub.Hub
	page      http.Handler
	operators http.Handler // the console
	module    http.Handler // of JavaScript
	ips       *front.PerIP
	clash     sparselog.Log // of headers that contradict each other
	unasked   sparselog.Log // clients for whom Connect gave no answer
	authing   chan struct{} // a place for each call of Config.Authenticate
	unsure    sparselog.Log // clients for whom it gave no answer
	probes    front.Lane
	scrapes   front.Lane
	readers   front.Lane // of the page
	scrape    http.Handler
	api       *api.API
	calls     http.Handler // of the API, on the public paths
	node      string       // what this server is called

	dataDir *datadir.Dir // nil without one

	links       *links // nil where rooms are in memory, and there are no other nodes
	tokenSecret string // that nodes have in common who were not given one
	started     time.Time

	tally   tally
	sampler sampler
	tracer  *tracing.Tracer // nil where nothing is traced

	settings atomic.Pointer[settings] // see cfg
	reloads  reloads

	draining atomic.Bool   // not ready any more
	delayed  chan struct{} // closed when it has been so for Config.ShutdownDelay
	stopping atomic.Bool   // no upgrade any more
	quiet    front.Quiet

	refused [upgradeResults]sparselog.Log // a kind of line for each reason

	mu        sync.Mutex
	listening map[*http.Server]bool // guarded by mu, as is what follows
	gates     []*front.Gate         // of all that ever listened
}

// ErrUnsettled is what Shutdown returns when all has ended and an account of the server, which the error names, isn't
// back at zero: a fault of Hubbub's own, to be reported.
var ErrUnsettled = errors.New("accounts are not back at zero")

// ErrHooksRunning is what Shutdown returns when hooks or Handlers still run, and how many.
var ErrHooksRunning = errors.New("hooks still run")

// ErrStoreRunning is what Shutdown returns when the store of Config.DataDir doesn't end. What it has acknowledged is on the
// disk; the folder is free when the process has ended.
var ErrStoreRunning = errors.New("the store does not end")

// New starts a Server's workers; Shutdown ends them. The error names every setting that can't be used.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("hubbub: %w", err)
	}
	written := cfg
	set := newSettings(cfg.withDefaults())
	set.written = written
	cfg = set.Config
	s := &Server{
		log: cfg.Logger, page: console.Handler(), operators: console.ForOperators(), module: js.Handler(), listening: map[*http.Server]bool{}, delayed: make(chan struct{}),
		started: time.Now(), tracer: tracing.New(cfg.TracerProvider), probes: front.NewLane(), scrapes: front.NewLane(), readers: front.NewLane(),
		ips: front.NewPerIP(cfg.MaxConnectionsPerIP), authing: make(chan struct{}, cfg.MaxHookCalls),
	}
	s.settings.Store(set)
	s.reloads.told(nil)
	if err := s.startIdentifying(set); err != nil {
		return nil, fmt.Errorf("hubbub: %w", err)
	}
	err := s.openLinks()
	if err == nil {
		set.webhooks, err = s.openWebhooks(&cfg)
	}
	if err != nil {
		s.closeLinks()
		s.stopIdentifying()
		return nil, fmt.Errorf("hubbub: %w", err)
	}
	set.questions = cfg.newQuestions(s.node, nil)
	s.hub = hub.New(s.hubConfig(set))
	s.api = s.newAPI()
	s.calls = s.api.Handler(cfg.BasePath)
	l, err := loop.New(s.loopConfig(&cfg))
	if err != nil {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		s.closeWebhooks(now)
		s.closeLinks()
		s.stopIdentifying()
		return nil, fmt.Errorf("hubbub: %w", err)
	}
	s.loop = l
	s.hub.Start(l)
	s.tally.workers = make([]workerTally, len(l.Workers()))
	s.scrape = s.newScrape()
	s.startSampling()
	if err := s.startLinks(); err != nil {
		return nil, fmt.Errorf("hubbub: %w", errors.Join(err, s.Shutdown(context.Background())))
	}
	return s, nil
}

// hubConfig is what the hub gets, of New or of a reload.
func (s *Server) hubConfig(set *settings) hub.Config {
	cfg := &set.Config
	policies, _ := cfg.policies() // Validate has looked
	slow, _ := hub.ParseSlowConsumer(cfg.SlowConsumer)
	chat, _ := hub.ParseOutsider(cfg.Chat)
	direct, _ := hub.ParseOutsider(cfg.Direct)
	h := hub.Config{
		Dialects:          []func() protocol.Dialect{func() protocol.Dialect { return new(room.Dialect) }},
		Tracer:            s.tracer,
		Epoch:             rand.Text()[:12] + ".",
		MaxRoomsPerClient: cfg.MaxRoomsPerClient,
		MaxMessageBytes:   cfg.MaxMessageBytes,
		MaxBufferedBytes:  cfg.MaxBufferedBytes,
		PingInterval:      cfg.PingInterval,
		PongTimeout:       cfg.PongTimeout,
		DedupWindow:       cfg.DedupWindow,
		ResumeWindow:      max(0, cfg.ResumeWindow),
		Policies:          policies,
		SlowConsumer:      slow,
		Chat:              chat,
		Direct:            direct,
		Hooks:             s.hubHooks(set),
		Leeway:            max(0, cfg.JWT.Leeway),
		HookTimeout:       cfg.HookTimeout + cfg.Questions.Timeout,
		HookLimit:         cfg.MaxHookCalls,
		Limits:            cfg.hubLimits(),
		Log:               cfg.Logger,
	}
	h.TokenKey = tokenKey(cmp.Or(cfg.Cluster.Secret, s.tokenSecret))
	set.tellWebhooks(&h)
	if s.links != nil {
		h.Broker, h.Alone, h.Beat = s.links, s.links.alone, s.beat
	}
	return h
}

func (s *Server) loopConfig(cfg *Config) loop.Config {
	return loop.Config{
		Workers:          cfg.Workers,
		IO:               loop.IO(cfg.IO),
		MaxMessageBytes:  cfg.MaxMessageBytes,
		SendQueueBytes:   cfg.SendQueueBytes,
		SendQueueAge:     cfg.SendQueueAge,
		MaxBufferedBytes: cfg.MaxBufferedBytes,
		Relieve:          s.hub.Relieve,
		PingInterval:     cfg.PingInterval,
		PongTimeout:      cfg.PongTimeout,
		Log:              cfg.Logger,
	}
}

// ServeHTTP answers a request, or takes its connection over.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.serveBy(s.cfg(), w, r) }

// serveBy is ServeHTTP; an upgrade goes by set from its first look at the request to its end.
func (s *Server) serveBy(set *settings, w http.ResponseWriter, r *http.Request) {
	r = s.asked(set, r)
	path := s.pathOf(r)
	if isAPI(path) && !s.cfg().AdminApart {
		s.calls.ServeHTTP(w, r)
		return
	}
	ignoreBody(w, r)
	switch path {
	case "/ws":
		s.upgrade(set, w, r, s.admit)
	case "/echo":
		s.upgrade(set, w, r, echo)
	case "/healthz":
		s.aside(w, r, s.probes, s.health)
	case "/readyz":
		s.aside(w, r, s.probes, s.ready)
	case "/metrics":
		if s.cfg().AdminApart {
			s.nothing(w, r)
			return
		}
		s.Metrics().ServeHTTP(w, r)
	case "/":
		if isUpgrade(r) || hasKey(r) {
			s.upgrade(set, w, r, s.admit)
			return
		}
		s.aside(w, r, s.readers, s.console)
	case "/hubbub.js":
		s.aside(w, r, s.readers, s.script)
	default:
		if console.Has(path) {
			s.publicConsole(w, r, path)
			return
		}
		if strings.HasPrefix(path, console.Below) && s.cfg().Page != pageOff {
			s.aside(w, r, s.readers, s.pageFile)
			return
		}
		s.nothing(w, r)
	}
}

// pathOf is the path below Config.BasePath, empty where the request's is elsewhere. http.StripPrefix with a final slash
// takes the first slash of the rest away.
func (s *Server) pathOf(r *http.Request) string {
	rest, ok := strings.CutPrefix(r.URL.Path, s.cfg().BasePath)
	switch {
	case !ok:
		return ""
	case rest == "", s.cfg().BasePath == "" && rest[0] != '/':
		return "/" + rest
	}
	return rest
}

// console shows the page, at an address that ends in a slash: its WebSocket is beside it.
func (s *Server) console(w http.ResponseWriter, r *http.Request) {
	if s.cfg().Page == pageOff {
		detail := "there is no page here; the WebSocket is at %[1]s/ws, the JavaScript client at %[1]s/hubbub.js, and whether the server is ready at %[1]s/readyz"
		s.refuse(w, r, refusal{status: http.StatusNotFound, detail: fmt.Sprintf(detail, s.cfg().BasePath)})
		return
	}
	asked, query, _ := strings.Cut(r.RequestURI, "?")
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	if reads && strings.HasPrefix(asked, "/") && !strings.HasSuffix(asked, "/") {
		to := "./" + asked[strings.LastIndexByte(asked, '/')+1:] + "/" // whatever a mux has taken off before it
		if query != "" {
			to += "?" + query
		}
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	show(s.page, w, r, "/")
}

// pageFile gives the page what it loads.
func (s *Server) pageFile(w http.ResponseWriter, r *http.Request) { show(s.page, w, r, s.pathOf(r)) }

// show has a page serve a path of its own, whatever stands before it here.
func show(page http.Handler, w http.ResponseWriter, r *http.Request, path string) {
	below := *r
	below.URL = &url.URL{Path: path}
	page.ServeHTTP(w, &below)
}

// script gives pages the JavaScript client.
func (s *Server) script(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		s.refuse(w, r, refusal{status: http.StatusMethodNotAllowed, detail: "read it with GET or HEAD", header: [2]string{"Allow", "GET, HEAD"}})
		return
	}
	s.module.ServeHTTP(w, r)
}

// nothing answers where there is nothing, and says what to set where the path is right but for its beginning.
func (s *Server) nothing(w http.ResponseWriter, r *http.Request) {
	no := refusal{status: http.StatusNotFound, detail: "there is nothing at this path; the WebSocket is at " + s.cfg().BasePath + "/ws", warn: isUpgrade(r)}
	if path := s.pathOf(r); s.cfg().AdminApart && (path == "/metrics" || isAPI(path) || strings.HasPrefix(path+"/", "/debug/pprof/")) {
		no.detail = "this path is on the admin listener (--admin-listen)"
		s.refuse(w, r, no)
		return
	}
	if path := s.pathOf(r); path == "/ws/" || path == "/echo/" {
		no.detail += ". Take away the slash at the end of " + r.URL.Path
		s.refuse(w, r, no)
		return
	}
	for _, known := range []string{"/ws", "/echo", "/healthz", "/readyz", "/metrics", "/hubbub.js", "/"} {
		base, ok := strings.CutSuffix(r.URL.Path, known)
		if !ok || base == "" || checkBasePath(base) != nil {
			continue
		}
		no.detail += fmt.Sprintf(". If the server's paths begin with %[1]s, set --base-path=%[1]s (in Go Config.BasePath, or mount http.StripPrefix(%[1]q, server))", base)
		if no.warn {
			no.flag = "--base-path=" + base
		}
		break
	}
	s.refuse(w, r, no)
}

// WebSocket is the room protocol alone, at any path that a mux gives it.
func (s *Server) WebSocket() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.upgrade(s.cfg(), w, r, s.admit) })
}

// Echo sends every message back, at any path that a mux gives it.
func (s *Server) Echo() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.upgrade(s.cfg(), w, r, echo) })
}

// echo is the handler of connections that want no rooms; no hook is asked.
func echo(*settings, *http.Request, auth.Identity) (loop.Handler, *refusal) { return hub.Echo{}, nil }

func (s *Server) health(w http.ResponseWriter, r *http.Request) { s.status(w, r, "alive") }

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Access-Control-Expose-Headers", "Retry-After")
	why := s.unready()
	if why == nil {
		s.status(w, r, "ready")
		return
	}
	s.refuse(w, r, refusal{status: http.StatusServiceUnavailable, detail: why.detail}) // no upgrade, which would be counted
}

// unready says why new clients should rather be sent elsewhere; those who come all the same may be let in.
func (s *Server) unready() *refusal {
	set := s.cfg()
	if no := s.closedToAll(set); no != nil {
		return no
	}
	trouble, _ := s.links.trouble()
	switch {
	case s.draining.Load(): // and still accepting
		return &refusal{detail: "the server is stopping"}
	case s.loop.Connections() >= set.MaxConnections:
		return set.tooMany()
	case trouble != "":
		return &refusal{detail: trouble}
	}
	return nil
}

func (s *Server) status(w http.ResponseWriter, r *http.Request, text string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		s.refuse(w, r, refusal{status: http.StatusMethodNotAllowed, detail: "read it with GET or HEAD", header: [2]string{"Allow", "GET, HEAD"}})
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	io.WriteString(w, text+"\n")
}

// Connections is how many WebSockets are open, the echo's too.
func (s *Server) Connections() int { return s.loop.Connections() }

// RoomCount is how many rooms have members or history.
func (s *Server) RoomCount() int { return s.hub.Rooms() }

// Info is how much a Server has to do.
type Info struct {
	Connections int // WebSockets, the echo's too
	Clients     int // of the room protocol that are connected
	Parked      int // that have lost their connections, and may come back
	Rooms       int // that have members or history

	Buffered    int64 // bytes that are unsent, half received, or kept
	MaxBuffered int64 // as Config.MaxBufferedBytes
}

// Info is what the Server has just now. It doesn't block.
func (s *Server) Info() Info {
	return Info{
		Connections: s.Connections(), Clients: s.hub.Clients(), Parked: s.hub.ParkedSessions(), Rooms: s.RoomCount(),
		Buffered: s.loop.Buffered(), MaxBuffered: s.cfg().MaxBufferedBytes,
	}
}
