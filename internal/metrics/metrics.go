package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Snapshot is every figure at one moment. Totals count from the start of the process and never fall.
type Snapshot struct {
	Connections int
	Rooms       int

	MaxConnections   int // as the settings have it, like MaxBufferedBytes
	MaxBufferedBytes int64

	MessagesReceived, MessagesSent int64
	BytesReceived, BytesSent       int64

	Dropped  map[string]int64 // by policy
	Closed   map[string]int64 // by code
	Errors   map[string]int64 // by code
	Denied   map[string]int64 // by verb
	Upgrades map[string]int64 // by result
	Panics   int64
	Limited  []Limited

	APICalls        map[[2]string]int64 // by call and status
	APIUnauthorized int64
	APITails        int64

	BufferedBytes int64
	HistoryBytes  int64
	Kept          map[string]int64 // by kind, history too
	Parked        int
	MailboxDepth  []int // by worker

	Turns Histogram

	Questions     map[string]map[string]int64 // by kind and result, of the kinds that are asked
	QuestionTimes map[string]Histogram        // by kind

	Webhooks Webhooks
	Links    Links

	ReloadFailed bool      // the last one
	Loaded       time.Time // when the settings that count were taken
}

// Webhooks are the figures of what the application's backend is told.
type Webhooks struct {
	Disk, Memory, Events int64
	Oldest               time.Duration
	Sent, Failed         int64
	Dropped              map[string]int64 // by event
	Stopped, DiskFails   bool
}

// Limited is how often a limit has refused something.
type Limited struct {
	Limit, By string
	Times     int64
}

// Histogram is a distribution of times.
type Histogram struct {
	Bounds []float64 // upper bounds in seconds, rising
	Counts []int64   // for each of Bounds those up to it and above the one before; then those above all
	Sum    float64   // seconds
}

// figure is one metric: how it is described, and what a snapshot has of it.
type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(s *Snapshot, emit func(value float64, labels ...string))
}

func one(name, help string, kind prometheus.ValueType, of func(s *Snapshot) float64) figure {
	return figure{prometheus.NewDesc("hubbub_"+name, help, nil, nil), kind,
		func(s *Snapshot, emit func(float64, ...string)) { emit(of(s)) }}
}

func byLabel(name, label, help string, of func(s *Snapshot) map[string]int64) figure {
	return byLabelOf(prometheus.CounterValue, name, label, help, of)
}

func byLabelOf(kind prometheus.ValueType, name, label, help string, of func(s *Snapshot) map[string]int64) figure {
	return figure{prometheus.NewDesc("hubbub_"+name, help, []string{label}, nil), kind,
		func(s *Snapshot, emit func(float64, ...string)) {
			for value, n := range of(s) {
				emit(float64(n), value)
			}
		}}
}

var figures = []figure{
	one("connections", "Open WebSockets.", prometheus.GaugeValue, func(s *Snapshot) float64 { return float64(s.Connections) }),
	one("max_connections", "How many there may be: --max-connections.", prometheus.GaugeValue, func(s *Snapshot) float64 { return float64(s.MaxConnections) }),
	one("rooms", "Rooms that have members or history.", prometheus.GaugeValue, func(s *Snapshot) float64 { return float64(s.Rooms) }),
	one("parked_sessions", "Sessions whose connection was lost and which may still be resumed.", prometheus.GaugeValue, func(s *Snapshot) float64 { return float64(s.Parked) }),
	one("messages_received_total", "Text and binary messages that clients sent.", prometheus.CounterValue, func(s *Snapshot) float64 { return float64(s.MessagesReceived) }),
	one("messages_sent_total", "Text and binary messages that were written to clients: one for each receiver.", prometheus.CounterValue, func(s *Snapshot) float64 { return float64(s.MessagesSent) }),
	one("received_bytes_total", "Bytes read from WebSockets, frame headers included, TLS not.", prometheus.CounterValue, func(s *Snapshot) float64 { return float64(s.BytesReceived) }),
	one("sent_bytes_total", "Bytes written to WebSockets, frame headers included, TLS not.", prometheus.CounterValue, func(s *Snapshot) float64 { return float64(s.BytesSent) }),
	byLabel("dropped_total", "policy", "Messages that did not reach a client because it was too slow, by the policy that dropped them.", func(s *Snapshot) map[string]int64 { return s.Dropped }),
	byLabel("closed_total", "code", "Connections that ended, by close code.", func(s *Snapshot) map[string]int64 { return s.Closed }),
	byLabel("errors_total", "code", "Error messages sent to clients, by code.", func(s *Snapshot) map[string]int64 { return s.Errors }),
	byLabel("denied_total", "verb", "What policies denied clients: join, read and publish of rooms, chat and direct messages.", func(s *Snapshot) map[string]int64 { return s.Denied }),
	byLabel("upgrades_total", "result", "Requests for a WebSocket, by result: accepted, or why it was refused.", func(s *Snapshot) map[string]int64 { return s.Upgrades }),
	one("buffered_bytes", "Bytes that wait for clients or are half received, and all that is kept for clients but history: with hubbub_history_bytes what --max-buffered-bytes bounds.", prometheus.GaugeValue, func(s *Snapshot) float64 { return float64(s.BufferedBytes) }),
	one("max_buffered_bytes", "What these two may come to together: --max-buffered-bytes.", prometheus.GaugeValue, func(s *Snapshot) float64 { return float64(s.MaxBufferedBytes) }),
	one("history_bytes", "Bytes that rooms keep of their messages, the record of each and of rooms without members included.", prometheus.GaugeValue, func(s *Snapshot) float64 { return float64(s.HistoryBytes) }),
	byLabelOf(prometheus.GaugeValue, "kept_bytes", "kind", "Bytes that are kept for clients, by kind: each client, user and bounded address has a share of all of them together.", func(s *Snapshot) map[string]int64 { return s.Kept }),
	{prometheus.NewDesc("hubbub_mailbox_depth", "Tasks that wait for a worker.", []string{"worker"}, nil), prometheus.GaugeValue,
		func(s *Snapshot, emit func(float64, ...string)) {
			for i, n := range s.MailboxDepth {
				emit(float64(n), strconv.Itoa(i))
			}
		}},
	{prometheus.NewDesc("hubbub_questions_total", "Questions for the application's backend, by kind and by what became of them.", []string{"kind", "result"}, nil), prometheus.CounterValue,
		func(s *Snapshot, emit func(float64, ...string)) {
			for kind, results := range s.Questions {
				for result, n := range results {
					emit(float64(n), kind, result)
				}
			}
		}},
	{prometheus.NewDesc("hubbub_limited_total", "What was refused because a client, a user or an address did too much of it, by limit and by whom.", []string{"limit", "by"}, nil), prometheus.CounterValue,
		func(s *Snapshot, emit func(float64, ...string)) {
			for _, l := range s.Limited {
				emit(float64(l.Times), l.Limit, l.By)
			}
		}},
	{prometheus.NewDesc("hubbub_api_calls_total", "Answers of the HTTP API, by call and status; the call is none where the path is no call.", []string{"call", "status"}, nil), prometheus.CounterValue,
		func(s *Snapshot, emit func(float64, ...string)) {
			for of, n := range s.APICalls {
				emit(float64(n), of[:]...)
			}
		}},
	one("api_unauthorized_total", "Calls of the HTTP API without a key that counts.", prometheus.CounterValue, func(s *Snapshot) float64 { return float64(s.APIUnauthorized) }),
	one("api_tails", "Open tails of the HTTP API.", prometheus.GaugeValue, func(s *Snapshot) float64 { return float64(s.APITails) }),
	byLabelOf(prometheus.GaugeValue, "webhook_outbox_bytes", "where", "Bytes of events that the backend has not taken yet, on the disk and in memory.", func(s *Snapshot) map[string]int64 {
		return map[string]int64{"disk": s.Webhooks.Disk, "memory": s.Webhooks.Memory}
	}),
	one("webhook_outbox_events", "Events that the backend has not taken yet.", prometheus.GaugeValue, func(s *Snapshot) float64 { return float64(s.Webhooks.Events) }),
	one("webhook_oldest_seconds", "Age of the oldest of them; 0 where none waits.", prometheus.GaugeValue, func(s *Snapshot) float64 { return s.Webhooks.Oldest.Seconds() }),
	one("webhook_sent_total", "Events that the backend has taken.", prometheus.CounterValue, func(s *Snapshot) float64 { return float64(s.Webhooks.Sent) }),
	one("webhook_failed_total", "Requests with events that the backend did not take; each is sent again.", prometheus.CounterValue, func(s *Snapshot) float64 { return float64(s.Webhooks.Failed) }),
	byLabel("webhook_dropped_total", "event", "Events that the backend is not told, by name: too many waited, or for too long.", func(s *Snapshot) map[string]int64 { return s.Webhooks.Dropped }),
	one("webhook_stopped", "1 when the backend has answered 410: it is told nothing until a restart.", prometheus.GaugeValue, func(s *Snapshot) float64 { return oneIf(s.Webhooks.Stopped) }),
	one("webhook_disk_failing", "1 while the disk takes no events, and they stay in memory.", prometheus.GaugeValue, func(s *Snapshot) float64 { return oneIf(s.Webhooks.DiskFails) }),
	one("config_last_reload_successful", "1, or 0 where the settings that were read last could not be used.", prometheus.GaugeValue, func(s *Snapshot) float64 { return oneIf(!s.ReloadFailed) }),
	one("config_last_reload_success_timestamp_seconds", "When the settings that count were taken: at the start, or by a reload.", prometheus.GaugeValue, func(s *Snapshot) float64 { return float64(s.Loaded.UnixMilli()) / 1e3 }),
	one("panics_total", "Faults of the program that were caught.", prometheus.CounterValue, func(s *Snapshot) float64 { return float64(s.Panics) }),
}

var questions = prometheus.NewDesc("hubbub_question_seconds", "How long questions took that were put to the application's backend.", []string{"kind"}, nil)

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

var turns = prometheus.NewDesc("hubbub_turn_seconds", "How long the workers' turns took: while one lasts, its worker's other connections wait.", nil, nil)

// collector reads one snapshot a scrape.
type collector struct{ snapshot func() Snapshot }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range figures {
		ch <- f.desc
	}
	ch <- turns
	ch <- questions
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.snapshot()
	for _, f := range figures {
		f.of(&s, func(value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
		})
	}
	ch <- s.Turns.metric(turns)
	for kind, times := range s.QuestionTimes {
		ch <- times.metric(questions, kind)
	}
}

func (h Histogram) metric(desc *prometheus.Desc, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Bounds))
	var n uint64
	for i, c := range h.Counts {
		n += uint64(c)
		if i < len(h.Bounds) {
			buckets[h.Bounds[i]] = n // Prometheus counts all up to the bound
		}
	}
	return prometheus.MustNewConstHistogram(desc, n, h.Sum, buckets, labels...)
}

// Registry has Hubbub's metrics, and those of the Go runtime and the process.
func Registry(snapshot func() Snapshot) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collector{snapshot},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}
