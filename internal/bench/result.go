package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Result is what a run found. In JSON times are milliseconds or seconds, as their names say, and memory is bytes.
type Result struct {
	Mode        Mode    `json:"mode"`
	URL         string  `json:"url"`
	Connections int     `json:"connections"`
	Rooms       int     `json:"rooms"`
	Members     int     `json:"members"`
	Publishers  int     `json:"publishers"`
	Window      int     `json:"window"`
	Rate        float64 `json:"rate"`
	Size        int     `json:"payload_bytes"`
	Compression bool    `json:"compression"`
	Concurrency int     `json:"concurrency"`

	// Ended is "finished", "interrupted", or why the run ended early.
	Ended    string  `json:"ended"`
	Duration float64 `json:"duration_s"` // that was measured

	Handshakes          *Handshakes `json:"handshakes,omitempty"`
	Published           int64       `json:"published"` // in the measured time, as Delivered
	Delivered           int64       `json:"delivered"`
	PublishesPerSecond  float64     `json:"publishes_per_s"`
	DeliveriesPerSecond float64     `json:"deliveries_per_s"`
	ReceivedBytes       int64       `json:"received_bytes"` // of frames with their headers, as compressed
	Latency             *Latency    `json:"latency_ms,omitempty"`

	Faults        Faults    `json:"faults"`
	Server        *Server   `json:"server,omitempty"`
	ServerUnknown string    `json:"server_unknown,omitempty"` // why there is no Server
	Generator     Generator `json:"generator"`
}

// Handshakes are the connections that were opened.
type Handshakes struct {
	Opened    int64   `json:"opened"`
	PerSecond float64 `json:"per_s"`
	Latency   Latency `json:"latency_ms"` // TCP, TLS and upgrade
}

// Latency is a distribution, in milliseconds.
type Latency struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
}

// Faults is what went wrong, over the whole run, the warm-up included.
type Faults struct {
	Lost       int64          `json:"lost"`         // deliveries that never came
	Doubled    int64          `json:"doubled"`      // deliveries that came again
	OutOfOrder int64          `json:"out_of_order"` // came after a later one of the same publisher
	Crossed    int64          `json:"crossed"`      // came to two members of a room in different orders
	Damaged    int64          `json:"damaged"`      // with another payload than was sent
	Stray      int64          `json:"stray"`        // to somebody outside of the room, or to the publisher itself
	Errors     int64          `json:"errors"`       // the server's error messages
	Broken     map[string]int `json:"broken"`       // connections that ended, by why
	Failed     map[string]int `json:"failed"`       // connections that did not open, by why
	First      string         `json:"first,omitempty"`
}

// Server is what the server used, when it runs on this machine.
type Server struct {
	PIDs            []int   `json:"pids"`
	CPUSeconds      float64 `json:"cpu_s"`                 // in the measured time
	CPUEach         float64 `json:"cpu_us_each"`           // microseconds for a delivery; for Connect a handshake
	MemoryBefore    int64   `json:"rss_before"`            // before the connects
	MemoryConnected int64   `json:"rss_connected"`         // when they had settled
	MemoryEnd       int64   `json:"rss_end"`               // after the load, or the time of Idle
	EachConnected   float64 `json:"rss_each_connected"`    // MemoryConnected less MemoryBefore, for each connection
	EachEnd         float64 `json:"rss_each_end"`          // MemoryEnd less MemoryBefore, for each connection
	HeapBefore      int64   `json:"heap_before,omitempty"` // of Go, where /metrics tells
	HeapEnd         int64   `json:"heap_end,omitempty"`
}

func (s *Server) perConnection(n int64) {
	if n > 0 {
		s.EachConnected = float64(s.MemoryConnected-s.MemoryBefore) / float64(n)
		s.EachEnd = float64(s.MemoryEnd-s.MemoryBefore) / float64(n)
	}
}

func newResult(o *Options, u *url.URL) *Result {
	return &Result{
		Mode: o.Mode, URL: u.String(), Connections: o.Conns, Rooms: o.Rooms, Members: o.Members, Publishers: o.Publishers,
		Window: o.Window, Rate: o.Rate, Size: o.Size, Compression: o.Compression, Concurrency: o.Concurrency,
	}
}

// milliseconds has digits down to a microsecond.
func milliseconds(ns int64) float64 { return math.Round(float64(ns)/1e3) / 1e3 }

func newLatency(h *hdrhistogram.Histogram) *Latency {
	at := func(q float64) float64 { return milliseconds(h.ValueAtQuantile(q)) }
	return &Latency{Count: h.TotalCount(), Mean: milliseconds(int64(h.Mean())), P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: milliseconds(h.Max())}
}

func newHandshakes(h *hdrhistogram.Histogram, span int64) *Handshakes {
	return &Handshakes{Opened: h.TotalCount(), PerSecond: perSecond(h.TotalCount(), span), Latency: *newLatency(h)}
}

func perSecond(n, span int64) float64 {
	if span <= 0 {
		return 0
	}
	return math.Round(10*float64(n)/time.Duration(span).Seconds()) / 10
}

// finish works out what follows from the samples. each is what processor time is divided by: deliveries, or handshakes.
func (r *runner) finish(p *pacer, each int64) {
	res, before, after := r.result, r.before, r.after
	span := after.at - before.at
	res.Duration = time.Duration(span).Seconds()
	res.PublishesPerSecond, res.DeliveriesPerSecond = perSecond(res.Published, span), perSecond(res.Delivered, span)
	if s := res.Server; s != nil && span > 0 {
		if before.server < 0 || after.server < 0 {
			res.Server, res.ServerUnknown = nil, fmt.Sprintf("process %d is gone", s.PIDs[0])
		} else if s.CPUSeconds = (after.server - before.server).Seconds(); each > 0 {
			s.CPUEach = s.CPUSeconds * 1e6 / float64(each)
		}
	}
	res.Generator = r.newGenerator(p)
}

// ended says how the run ended: by ctx, or by err.
func (r *Result) ended(ctx context.Context, err error) {
	switch {
	case err == nil:
		r.Ended = "finished"
	case ctx.Err() != nil:
		r.Ended = "interrupted"
	default:
		r.Ended = err.Error()
	}
}

// Err names what went wrong and how often; nil: nothing did.
func (r *Result) Err() error {
	f := &r.Faults
	var parts []string
	for _, c := range []struct {
		n    int64
		what string
	}{
		{f.Lost, "lost"}, {f.Doubled, "doubled"}, {f.OutOfOrder, "out of order"}, {f.Crossed, "in another order than others got them"},
		{f.Damaged, "damaged"}, {f.Stray, "delivered to the wrong connection"},
	} {
		if c.n > 0 {
			parts = append(parts, plural(c.n, "message")+" "+c.what)
		}
	}
	if f.Errors > 0 {
		parts = append(parts, plural(f.Errors, "error message"))
	}
	parts = append(parts, reasons("broke", f.Broken), reasons("did not open", f.Failed))
	if r.Ended != "finished" && r.Ended != "interrupted" {
		parts = append(parts, r.Ended)
	}
	if r.Published > 0 && r.Delivered == 0 && r.Latency.Count == 0 && r.Ended == "finished" {
		parts = append(parts, "not one message came with its payload: does the template of a publish fit the server?")
	}
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	if len(parts) == 0 {
		return nil
	}
	if f.First != "" {
		parts = append(parts, "the first: "+f.First)
	}
	return errors.New(strings.Join(parts, "; "))
}

// reasons counts connections by why.
func reasons(what string, m map[string]int) string {
	total := 0
	var each []string
	for _, why := range slices.Sorted(maps.Keys(m)) {
		total += m[why]
		each = append(each, fmt.Sprintf("%s: %s", why, group(int64(m[why]))))
	}
	if total == 0 {
		return ""
	}
	return plural(int64(total), "connection") + " " + what + " (" + strings.Join(each, ", ") + ")"
}

func plural(n int64, word string) string {
	if n != 1 {
		word += "s"
	}
	return group(n) + " " + word
}

// add adds what was wrong with messages in a part of the run.
func (f *Faults) add(g Faults) {
	f.Lost += g.Lost
	f.Doubled += g.Doubled
	f.OutOfOrder += g.OutOfOrder
	f.Crossed += g.Crossed
}
