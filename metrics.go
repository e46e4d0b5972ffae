package hubbub

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/metrics"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// Metrics is what /metrics serves, at any path that a mux gives it: Hubbub's figures, the Go runtime's and the
// process's, for Prometheus. It has a registry of its own.
func (s *Server) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			s.refuse(w, r, refusal{status: http.StatusMethodNotAllowed, detail: "read it with GET or HEAD", header: [2]string{"Allow", "GET, HEAD"}})
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		s.aside(w, r, s.scrapes, s.scrape.ServeHTTP)
	})
}

const (
	// scrapeWait is how long a scrape waits for the workers. One that is busy for longer is shown as it was last seen;
	// the depth of its mailbox is always that of now.
	scrapeWait = 500 * time.Millisecond
	// maxScrapes is how many scrapes may ask the workers at once: anyone who reaches the port can ask. The others wait
	// for them, but not for those who read their answer slowly.
	maxScrapes = 4
)

func (s *Server) newScrape() http.Handler {
	places := make(chan struct{}, maxScrapes)
	return promhttp.HandlerFor(metrics.Registry(func() metrics.Snapshot {
		places <- struct{}{}
		defer func() { <-places }()
		return s.snapshot()
	}), promhttp.HandlerOpts{})
}

// upgradeResult is what became of a request for a WebSocket.
type upgradeResult int

// The first is none: the request asked for something else.
const (
	noUpgrade upgradeResult = iota
	upgradeAccepted
	upgradeMethod
	upgradeMissing
	upgradeVersion
	upgradeHandshake
	upgradeOrigin
	upgradeUnauthorized
	upgradeUnidentified
	upgradeStopping
	upgradeNotIn
	upgradeConnections
	upgradeOverloaded
	upgradePerIP
	upgradePerUser
	upgradeRateLimited
	upgradeBackend
	upgradeStorm
	upgradeFailed
	upgradeResults // how many there are
)

var upgradeNames = [upgradeResults]string{
	upgradeAccepted:     "accepted",
	upgradeMethod:       "bad_method",
	upgradeMissing:      "no_upgrade",
	upgradeVersion:      "bad_version",
	upgradeHandshake:    "bad_handshake",
	upgradeOrigin:       "origin",
	upgradeUnauthorized: "unauthorized",
	upgradeUnidentified: "unidentified",
	upgradeStopping:     "stopping",
	upgradeNotIn:        "not_in_cluster",
	upgradeConnections:  "max_connections",
	upgradeOverloaded:   "overloaded",
	upgradePerIP:        "max_connections_per_ip",
	upgradePerUser:      "user_connections",
	upgradeRateLimited:  "rate_limited",
	upgradeStorm:        "storm",
	upgradeBackend:      "backend",
	upgradeFailed:       "failed",
}

// tally is what the Server counts itself, and the workers' counts as they were last seen.
type tally struct {
	upgrades [upgradeResults]atomic.Int64

	mu      sync.Mutex
	workers []workerTally // by index; guarded by mu
}

type workerTally struct {
	loop.Counts
	errors  hub.Errors
	dropped hub.Dropped
	denied  hub.Denied
}

// snapshot asks every worker for its counts; they are plain numbers that nobody else may read.
func (s *Server) snapshot() metrics.Snapshot {
	all := s.loop.Workers()
	depth := make([]int, len(all))
	for i, w := range all { // before the questions, which would count
		depth[i] = w.Depth()
	}
	s.loop.Inspect(scrapeWait, func(w *loop.Worker) {
		now := workerTally{w.Counts(), s.hub.Errors(w), s.hub.Dropped(w), s.hub.Denied(w)}
		s.tally.mu.Lock()
		defer s.tally.mu.Unlock()
		s.tally.workers[w.Index()] = now
	})
	snap := metrics.Snapshot{
		Connections: s.Connections(),
		Rooms:       s.RoomCount(),

		MaxConnections:   s.cfg().MaxConnections,
		MaxBufferedBytes: s.cfg().MaxBufferedBytes,

		Dropped:      map[string]int64{},
		Closed:       map[string]int64{closedOther: 0},
		Errors:       map[string]int64{},
		Denied:       map[string]int64{},
		Upgrades:     map[string]int64{},
		Panics:       s.loop.Panics.Load(),
		HistoryBytes: s.hub.Kept(hub.KeptHistory) + s.hub.Kept(hub.KeptRooms),
		Kept:         map[string]int64{},
		Parked:       s.hub.ParkedSessions(),
		MailboxDepth: depth,
		APICalls:     map[[2]string]int64{},
		Turns:        metrics.Histogram{Counts: make([]int64, len(loop.TurnBounds)+1)},
	}
	snap.ReloadFailed, snap.Loaded = s.reloads.failed.Load(), time.UnixMilli(s.reloads.loaded.Load())
	snap.Webhooks = metrics.Webhooks(s.cfg().webhooks.Figures())
	snap.Links = s.links.figures()
	// What has not happened yet is there too, as 0: a rate needs a value before the first.
	for _, code := range closeCodes {
		snap.Closed[strconv.Itoa(code)] = 0
	}
	for r := upgradeAccepted; r < upgradeResults; r++ {
		snap.Upgrades[upgradeNames[r]] = s.tally.upgrades[r].Load()
	}
	calls, unauthorized, tails := s.api.Counts()
	for _, c := range calls {
		snap.APICalls[[2]string{c.Call, strconv.Itoa(c.Status)}] = c.Count
	}
	snap.APIUnauthorized, snap.APITails = unauthorized, tails
	for k := range hub.Kinds() {
		snap.Kept[k.String()] = s.hub.Kept(k)
		snap.BufferedBytes += s.hub.Kept(k)
	}
	snap.BufferedBytes -= snap.HistoryBytes
	s.questionsTo(&snap)
	s.hub.Refusals(func(limit, by string, n int64) {
		snap.Limited = append(snap.Limited, metrics.Limited{Limit: limit, By: by, Times: n})
	})
	for _, most := range loop.TurnBounds {
		snap.Turns.Bounds = append(snap.Turns.Bounds, float64(most)/1e9)
	}
	s.tally.mu.Lock()
	defer s.tally.mu.Unlock()
	for i := range s.tally.workers {
		s.tally.workers[i].addTo(&snap)
	}
	return snap
}

// closeCodes are those that a connection can end with today. A Close of the client's with any other code than the usual
// ones is closedOther.
var closeCodes = []int{
	wire.CloseNormal, wire.CloseGoingAway, wire.CloseProtocolError, wire.CloseNoStatus, wire.CloseAbnormal, wire.CloseInvalidData,
	wire.ClosePolicy, wire.CloseTooBig, wire.CloseInternal, wire.CloseTryLater,
	protocol.CloseSlowConsumer, protocol.CloseTakenOver, protocol.CloseNoSignOfLife, protocol.CloseTokenExpired, protocol.CloseKicked, protocol.CloseRefused, protocol.CloseForbidden,
}

const closedOther = "other"

func (w *workerTally) addTo(snap *metrics.Snapshot) {
	snap.MessagesReceived += w.MessagesReceived
	snap.MessagesSent += w.MessagesSent
	snap.BytesReceived += w.BytesReceived
	snap.BytesSent += w.BytesSent
	snap.BufferedBytes += w.Unsent + w.HalfReceived
	snap.Dropped[hub.Disconnect.String()] += w.MessagesDropped
	for policy, n := range w.dropped {
		snap.Dropped[hub.SlowConsumer(policy).String()] += n
	}
	for code, n := range w.Closed {
		name := closedOther
		if code != 0 {
			name = strconv.Itoa(code)
		}
		snap.Closed[name] += n
	}
	for code := protocol.BadJSON; code <= protocol.Internal; code++ {
		snap.Errors[code.String()] += w.errors[code]
	}
	w.denied.Each(func(verb string, n int64) { snap.Denied[verb] += n })
	for i, n := range w.Turns {
		snap.Turns.Counts[i] += n
	}
	snap.Turns.Sum += float64(w.TurnNanos) / 1e9
}
