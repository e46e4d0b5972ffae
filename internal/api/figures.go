package api

// Info is what GET /info says.
type Info struct {
	Version     string `json:"version"`
	Node        string `json:"node"`
	Connections int    `json:"connections"`
	Rooms       int    `json:"rooms"`
	Clients     int    `json:"clients"` // connected and in the room protocol
	Memory      Memory `json:"memory"`

	Nodes []InfoNode `json:"nodes,omitempty"` // of a cluster: what each says of itself, the one that was asked first
}

// InfoNode is a node of a cluster. A client is counted where it is, a room by each node that has members of it.
type InfoNode struct {
	Node        string `json:"node"`
	Version     string `json:"version"`
	Connections int    `json:"connections"`
	Rooms       int    `json:"rooms"`
	Clients     int    `json:"clients"`
}

// Memory is in bytes.
type Memory struct {
	Process     int64 `json:"process"`      // what the Go runtime has of the system
	Buffered    int64 `json:"buffered"`     // what is kept for clients, unsent or half received, history too
	MaxBuffered int64 `json:"max_buffered"` // --max-buffered-bytes
}

func (a *API) info(*call) ([]byte, *problem) { return encode(a.Info()) }

// Figures is what GET /figures says: those of /metrics at one moment, of the node that was asked. Totals count from the
// start of the process and never fall.
type Figures struct {
	Time     int64  `json:"time"` // Unix milliseconds, as Started
	Node     string `json:"node"`
	Version  string `json:"version"`
	Started  int64  `json:"started"`
	NotReady string `json:"not_ready,omitempty"` // why /readyz says 503

	Connections    int `json:"connections"`
	MaxConnections int `json:"max_connections"`
	Clients        int `json:"clients"`
	Parked         int `json:"parked"`
	Rooms          int `json:"rooms"`
	Tails          int `json:"tails"`

	Received      int64 `json:"received"` // messages
	Sent          int64 `json:"sent"`     // one for each receiver
	ReceivedBytes int64 `json:"received_bytes"`
	SentBytes     int64 `json:"sent_bytes"`
	Panics        int64 `json:"panics"`

	Dropped  map[string]int64 `json:"dropped"`  // by policy
	Closed   map[string]int64 `json:"closed"`   // by code
	Errors   map[string]int64 `json:"errors"`   // by code
	Denied   map[string]int64 `json:"denied"`   // by verb
	Limited  map[string]int64 `json:"limited"`  // by limit and by whom
	Upgrades map[string]int64 `json:"upgrades"` // by result

	Memory  FigureMemory `json:"memory"`
	Workers []Worker     `json:"workers"`
}

// FigureMemory is in bytes.
type FigureMemory struct {
	Memory
	History int64 `json:"history"` // of what is buffered
}

// Worker is one of the event loop's.
type Worker struct {
	Connections int   `json:"connections"`
	Waiting     int   `json:"waiting"`     // tasks
	BusyMicros  int64 `json:"busy_micros"` // all its turns together
}

// Samples is what GET /samples says: what the node that was asked has kept of its figures, oldest first.
type Samples struct {
	Node    string   `json:"node"`
	Every   int64    `json:"every_ms"`
	Samples []Sample `json:"samples"`
}

// Sample is a look at the figures. What it counts is since the one before it.
type Sample struct {
	Time int64 `json:"time"` // Unix milliseconds

	Connections int   `json:"connections"`
	Clients     int   `json:"clients"`
	Rooms       int   `json:"rooms"`
	Waiting     int   `json:"waiting"` // tasks, for all workers
	Process     int64 `json:"process"` // bytes, as in Memory
	Buffered    int64 `json:"buffered"`

	Received      int64 `json:"received"`
	Sent          int64 `json:"sent"`
	ReceivedBytes int64 `json:"received_bytes"`
	SentBytes     int64 `json:"sent_bytes"`
	Dropped       int64 `json:"dropped"`
	Errors        int64 `json:"errors"`
	Accepted      int64 `json:"accepted"` // WebSockets
	Refused       int64 `json:"refused"`
	BusyMicros    int64 `json:"busy_micros"` // all workers' turns together
}

// Setting is one of the server's, as it is in force.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	From   string `json:"from"`             // where that is from
	Hidden bool   `json:"hidden,omitempty"` // a secret; Value is empty
}

func (a *API) figures(*call) ([]byte, *problem) { return encode(a.Figures()) }

func (a *API) samples(c *call) ([]byte, *problem) {
	var since int64
	if c.query.Has("since") {
		n, ok := parseOffset(c.query.Get("since"))
		if !ok {
			return nil, bad("since must be a time in Unix milliseconds")
		}
		since = int64(n)
	}
	return encode(a.Samples(since))
}

func (a *API) settings(*call) ([]byte, *problem) {
	return encode(struct {
		Settings []Setting `json:"settings"`
	}{append([]Setting{}, a.InForce()...)})
}
