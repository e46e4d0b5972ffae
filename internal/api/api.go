package api

import (
	"context"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/front"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/sparselog"
	"example.com/hubbub/internal/tracing"
)

// Config is what an API is made of.
type Config struct {
	Settings
	Hub        *hub.Hub
	Info       func() Info // what GET /info says of the server
	Nodes      func(context.Context) Nodes
	RemoveNode func(ctx context.Context, store string) error // for good, by its name or address
	Figures    func() Figures
	Samples    func(since int64) Samples // newer than a time in Unix milliseconds
	InForce    func() []Setting
	Why        func(room, user string) []Reason        // of the room's policy, as a user of that name has it; "" for none
	RecentLog  func() []string                         // nil where the program keeps none
	Renew      func(context.Context) (Reloaded, error) // has the server read its settings again; ErrNoReload
	Tracer     *tracing.Tracer                         // nil for none
	Log        *slog.Logger
}

// Settings are what a reload may change.
type Settings struct {
	Keys            auth.APIKeys // none: every call is refused with how to set one
	MaxMessageBytes int          // of a content
}

// maxBody is how long a call's body may be, in bytes.
func (s *Settings) maxBody() int64 { return 1<<20 + int64(s.MaxMessageBytes) }

// API is the whole of /api/v1. Any goroutine.
type API struct {
	// Static after New.
	Config
	calls front.Lane

	inUse atomic.Pointer[Settings]

	counts counts
	noKey  sparselog.Log // calls without a key that counts
}

// Path is what every call's path begins with, below the server's own.
const Path = "/api/v1"

// New is ready at once.
func New(cfg Config) *API {
	a := &API{Config: cfg, calls: front.NewWideLane(), counts: newCounts()}
	a.Reload(cfg.Settings)
	return a
}

// Reload has the calls that come from now on go by other settings.
func (a *API) Reload(s Settings) { a.inUse.Store(&s) }

// now is what calls go by.
func (a *API) now() *Settings { return a.inUse.Load() }

// Off says that every call is refused, since no key is set.
func (a *API) Off() bool { return len(a.now().Keys) == 0 }

// route is a call.
type route struct {
	name   string // in metrics
	method string
	path   []string // segments; what begins with a brace stands for anything
	right  auth.Rights
	query  []string // what a query may have
	body   bool     // it has one, in JSON
	tells  bool     // it has an answer though it needs the right to manage
	do     func(*API, *call) ([]byte, *problem)

	index int // in routes
}

// routes are all calls but the description. Each call of a batch has its right.
var routes = []route{
	post("publish", auth.RightPublish, (*API).publish),
	post("batch", 0, (*API).batch),
	get("rooms", "rooms", (*API).listRooms, "prefix", "contains", "order", "after", "limit"),
	get("room", "rooms/{room}", (*API).room, "user"),
	get("history", "rooms/{room}/history", (*API).history, "since", "before", "limit"),
	manage("delete_history", "DELETE", "rooms/{room}/history", (*API).deleteHistory),
	manage("delete_message", "DELETE", "rooms/{room}/history/{offset}", (*API).deleteMessage, "epoch"),
	get("presence", "rooms/{room}/presence", (*API).presence, "after", "limit"),
	manage("join", "PUT", "rooms/{room}/members/{client}", (*API).join),
	manage("leave", "DELETE", "rooms/{room}/members/{client}", (*API).leave),
	get("clients", "clients", (*API).listClients, "after", "limit", "order"),
	get("client", "clients/{client}", (*API).client),
	manage("disconnect_client", "DELETE", "clients/{client}", (*API).disconnectClient, "code", "reason"),
	get("users", "users", (*API).listUsers, "after", "limit"),
	get("user", "users/{user}", (*API).user),
	manage("disconnect_user", "DELETE", "users/{user}", (*API).disconnectUser, "code", "reason"),
	get("info", "info", (*API).info),
	get("figures", "figures", (*API).figures),
	get("samples", "samples", (*API).samples, "since"),
	get("settings", "settings", (*API).settings),
	get("nodes", "nodes", (*API).nodes),
	manage("remove_node", "DELETE", "nodes/{node}", (*API).removeNode),
	{name: "reload", method: "POST", path: segments("reload"), right: auth.RightManage, tells: true, do: (*API).reload},
	{name: "log", method: "GET", path: segments("log"), right: auth.RightTail, do: (*API).recentLog},
	{name: tailCall, method: "GET", path: segments("tail"), right: auth.RightTail, query: []string{"room", "client", "user", "content"}},
}

// tailCall is answered as long as its caller likes.
const tailCall = "tail"

func init() {
	for i := range routes {
		routes[i].index = i
	}
}

func post(name string, right auth.Rights, do func(*API, *call) ([]byte, *problem)) route {
	return route{name: name, method: "POST", path: segments(name), right: right, body: true, do: do}
}

func get(name, path string, do func(*API, *call) ([]byte, *problem), query ...string) route {
	return route{name: name, method: "GET", path: segments(path), right: auth.RightRead, query: query, do: do}
}

func manage(name, method, path string, do func(*API, *call) ([]byte, *problem), query ...string) route {
	return route{name: name, method: method, path: segments(path), right: auth.RightManage, query: query, do: do}
}

// success is the status of a call that was done.
func (to *route) success() int {
	if to.right == auth.RightManage && !to.tells {
		return http.StatusNoContent
	}
	return http.StatusOK
}

// description needs no key.
var description = route{name: "openapi", method: "GET", path: segments("openapi.yaml")}

func segments(path string) []string { return strings.Split(path, "/") }

// call is one that is being done.
type call struct {
	r     *http.Request
	key   *auth.APIKey
	args  [2]string // what stood for the braces of the path
	query url.Values
	body  []byte // good until the call is answered
	whole bool   // all of it was read

	status int // of the answer
}

// Handler serves the calls whose paths begin with base and Path.
func (a *API) Handler(base string) http.Handler {
	before := strings.Split(strings.Trim(base+Path, "/"), "/")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.serve(w, r, before) })
}

func (a *API) serve(w http.ResponseWriter, r *http.Request, before []string) {
	front.StepAside(w, r)
	c := call{r: r}
	var space [12]string
	to, allow := find(r.Method, c.args[:], below(space[:0], r.URL, before))
	if to == &description {
		if r.ContentLength != 0 { // net/http would wait for it before it answers
			a.refuse(w, &c, nil, bad(noBody))
			return
		}
		a.describe(w)
		return
	}
	if no := a.identify(&c); no != nil {
		a.refuse(w, &c, to, no)
		return
	}
	switch {
	case to == nil && allow != "":
		w.Header().Set("Allow", allow)
		a.refuse(w, &c, nil, &problem{http.StatusMethodNotAllowed, protocol.BadMessage.String(), false, "this path is for " + allow})
	case to == nil:
		a.refuse(w, &c, nil, nothing("there is no such call; GET "+Path+"/openapi.yaml has them all"))
	case c.key.Rights&to.right != to.right:
		a.refuse(w, &c, to, fault(protocol.Forbidden, "this key hasn't got the right "+to.right.String()))
	case to.name == tailCall:
		a.tail(w, &c, to)
	case !a.calls.Enter():
		a.refuse(w, &c, to, tooMuch("too many calls at once"))
	default:
		defer a.calls.Leave()
		front.Keep(r)
		a.answer(w, &c, to)
	}
}

// maxSegments is more than any call's path has.
const maxSegments = 5

// below are the segments of a path behind those of before, as they were before they were escaped; nil where it begins
// otherwise. Only a slash that isn't escaped parts them.
func below(space []string, u *url.URL, before []string) []string {
	rest := strings.TrimPrefix(u.EscapedPath(), "/")
	for more := true; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		part, err := url.PathUnescape(part)
		if err != nil || len(space) > len(before)+maxSegments {
			return nil
		}
		space = append(space, part)
	}
	if len(space) < len(before) || !slices.Equal(space[:len(before)], before) {
		return nil
	}
	return space[len(before):]
}

// find is the call of a path, with what stands for its braces; else which methods the path has.
func find(method string, args []string, path []string) (to *route, allow string) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if method == http.MethodGet && description.matches(path) {
		return &description, ""
	}
	var methods []string
	for i := range routes {
		to := &routes[i]
		if !to.matches(path) {
			continue
		}
		if to.method == method {
			n := 0
			for k, part := range to.path {
				if part[0] == '{' {
					args[n] = path[k]
					n++
				}
			}
			return to, ""
		}
		if methods = append(methods, to.method); to.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	return nil, strings.Join(methods, ", ")
}

func (to *route) matches(path []string) bool {
	if len(path) != len(to.path) {
		return false
	}
	for i, part := range to.path {
		if part != path[i] && part[0] != '{' {
			return false
		}
	}
	return true
}

// identify finds the key of a call.
func (a *API) identify(c *call) *problem {
	if a.Off() {
		return &problem{http.StatusForbidden, apiOff, false, "the API is off while the server has no key: run hubbub key, and start hubbub serve with HUBBUB_API_KEY (or --api-key, or api-keys in its file; in Go Config.APIKeys) set to the key that it prints"}
	}
	sent := c.r.Header["Authorization"]
	why := "the header Authorization is missing; it must be \"Bearer KEY\""
	if len(sent) == 1 {
		c.key = a.keyOf(sent[0])
		why = "the header Authorization has no key that counts; it must be \"Bearer KEY\""
	} else if len(sent) > 1 {
		why = "the header Authorization is there twice"
	}
	if c.key == nil {
		return &problem{http.StatusUnauthorized, unauthorized, false, why}
	}
	return nil
}

// keyOf is the key that a header Authorization names; nil for none.
func (a *API) keyOf(sent string) *auth.APIKey {
	scheme, secret, _ := strings.Cut(sent, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil
	}
	return a.now().Keys.Find(strings.TrimSpace(secret))
}

// answer has a call done that is let in.
func (a *API) answer(w http.ResponseWriter, c *call, to *route) {
	if a.Tracer != nil {
		defer a.trace(c, to)()
	}
	no := a.prepare(c, to)
	if c.body != nil {
		defer freeBody(c.body)
	}
	var out []byte
	if no == nil {
		out, no = to.do(a, c)
	}
	if no != nil {
		a.refuse(w, c, to, no)
		return
	}
	status := to.success()
	h := w.Header()
	if out != nil {
		h["Content-Type"] = jsonType
		h["Cache-Control"] = noStore
	}
	c.status = status
	a.counts.add(to, status)
	front.Answers(w, c.r)
	w.WriteHeader(status)
	w.Write(out)
}

// Header values that no call changes.
var (
	jsonType = []string{"application/json"}
	noStore  = []string{"no-store"}
)

const noBody = "this call has no body"

// prepare reads the query and the body.
func (a *API) prepare(c *call, to *route) (no *problem) {
	if c.query, no = readQuery(c.r.URL.RawQuery, to.query); no != nil {
		return no
	}
	if !to.body {
		if c.r.ContentLength != 0 {
			return bad(noBody)
		}
		return nil
	}
	if no := checkType(c.r.Header); no != nil {
		return no
	}
	return a.readBody(c)
}

// readQuery holds a query to the names that it may have.
func readQuery(raw string, names []string) (url.Values, *problem) {
	if raw == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, bad("the query can't be read: broken escapes, or a semicolon")
	}
	for name, values := range q {
		switch {
		case !slices.Contains(names, name) && names == nil:
			return nil, bad("the query has %s, and this call has none", shown(name))
		case !slices.Contains(names, name):
			return nil, bad("the query has %s, which isn't there; there are %s", shown(name), strings.Join(names, ", "))
		case len(values) > 1:
			return nil, bad("the query has %s twice", name)
		}
	}
	return q, nil
}

// checkType wants JSON, as it is.
func checkType(h http.Header) *problem {
	wrong := func(detail string) *problem {
		return &problem{http.StatusUnsupportedMediaType, protocol.BadMessage.String(), false, detail}
	}
	if coding := h.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return wrong("the header Content-Encoding must not be there")
	}
	sent := h.Get("Content-Type")
	if sent == "application/json" {
		return nil
	}
	kind, params, err := mime.ParseMediaType(sent)
	if charset := params["charset"]; err == nil && kind == "application/json" && (charset == "" || strings.EqualFold(charset, "utf-8")) {
		return nil
	}
	return wrong("the header Content-Type must be application/json")
}

// bodies are buffers of usual sizes.
var bodies = sync.Pool{New: func() any { return new([4 << 10]byte) }}

func freeBody(b []byte) {
	if cap(b) == 4<<10 {
		bodies.Put((*[4 << 10]byte)(b[:4<<10]))
	}
}

// readBody reads the body whole, unless it is too large; of what is sent in chunks that shows only as it comes.
func (a *API) readBody(c *call) *problem {
	most := a.now().maxBody()
	large := "the body is larger than 1 MiB and one message of --max-message-bytes"
	if c.r.ContentLength > most {
		return tooLarge(large)
	}
	c.body = bodies.Get().(*[4 << 10]byte)[:0]
	for {
		if len(c.body) == cap(c.body) {
			grown := append(make([]byte, 0, grownTo(len(c.body), c.r.ContentLength)), c.body...)
			freeBody(c.body)
			c.body = grown
		}
		n, err := c.r.Body.Read(c.body[len(c.body):cap(c.body)])
		c.body = c.body[:len(c.body)+n]
		switch {
		case int64(len(c.body)) > most:
			return tooLarge(large)
		case err == io.EOF:
			c.whole = true
			return nil
		case err != nil:
			return fault(protocol.Timeout, "the body didn't come whole in time")
		}
	}
}

// grownTo is how large a buffer becomes that is full: what a client says of its body counts only once half of it has
// come.
func grownTo(full int, told int64) int {
	if told > int64(full) && told <= 2*int64(full) {
		return int(told) + 1 // and a byte, to see the end
	}
	return 2 * full
}

// refuse answers with a problem.
func (a *API) refuse(w http.ResponseWriter, c *call, to *route, no *problem) {
	c.status = no.status
	a.counts.add(to, no.status)
	front.Answers(w, c.r)
	h := w.Header()
	if c.r.ContentLength != 0 && !c.whole {
		h.Set("Connection", "close")
		http.NewResponseController(w).EnableFullDuplex() // or net/http would read on before it answers
		defer c.discard(w)
	}
	if no.status == http.StatusUnauthorized {
		h["Www-Authenticate"] = bearer
		a.counts.unauthorized.Add(1)
		a.noKey.Log(a.Log, slog.LevelWarn, "an API call has no key that counts", "remote", c.r.RemoteAddr)
	}
	if no.status == http.StatusTooManyRequests || no.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", retryAfter())
	}
	h["Content-Type"] = problemType
	h["Cache-Control"] = noStore
	w.WriteHeader(no.status)
	w.Write(no.appendBody(nil))
}

// discard reads what a client still sends though it was answered, for a short while: closed at once, its system would
// throw the answer away.
func (c *call) discard(w http.ResponseWriter) {
	conn := http.NewResponseController(w)
	conn.SetReadDeadline(time.Now().Add(discardFor))
	most := int64(discardBytes)
	if c.key != nil {
		most = discardOfKnown
	}
	if conn.Flush() == nil && c.r.Header.Get("Expect") == "" {
		io.CopyN(io.Discard, c.r.Body, most)
	}
	conn.SetReadDeadline(time.Now()) // net/http would read on
}

const (
	discardFor     = 500 * time.Millisecond
	discardBytes   = 256 << 10
	discardOfKnown = 8 << 20 // of who has a key
)

var (
	problemType = []string{"application/problem+json"}
	bearer      = []string{"Bearer"}
)
