package e2e

import (
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector takes spans as OTLP's receivers do.
type collector struct {
	*httptest.Server

	mu    sync.Mutex
	spans []*tracepb.Span
	bad   []string // requests that are none
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var data tracepb.TracesData
		if err == nil {
			err = proto.Unmarshal(body, &data)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("X-Team") != "a b" {
			c.bad = append(c.bad, fmt.Sprint(r.Method, " ", r.URL, " ", r.Header, " ", err))
		}
		for _, of := range data.ResourceSpans {
			for _, scope := range of.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(func() {
		c.Close()
		if len(c.bad) > 0 {
			t.Errorf("it was sent %q", c.bad)
		}
	})
	return c
}

// of waits until there are these spans of a trace, by their names, and gives them in that order.
func (c *collector) of(t *testing.T, trace string, names ...string) (all []*tracepb.Span) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		all, got = nil, nil
		c.mu.Lock()
		for _, s := range c.spans {
			if hex.EncodeToString(s.TraceId) == trace {
				all, got = append(all, s), append(got, s.Name)
			}
		}
		c.mu.Unlock()
		slices.Sort(got)
		if slices.Equal(got, slices.Sorted(slices.Values(names))) {
			slices.SortFunc(all, func(a, b *tracepb.Span) int { return slices.Index(names, a.Name) - slices.Index(names, b.Name) })
			return all
		}
	}
	t.Fatalf("the trace %s has the spans %q, want %q", trace, got, names)
	return nil
}

// env is what has a server send its spans here.
func (c *collector) env() string {
	return "OTEL_EXPORTER_OTLP_ENDPOINT=" + c.URL + " OTEL_EXPORTER_OTLP_HEADERS=X-Team=a%20b OTEL_BSP_SCHEDULE_DELAY=50 exec \"$@\""
}

func attributeOf(s *tracepb.Span, key string) int64 {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetIntValue()
		}
	}
	return -1
}

// below fails unless each span hangs under the one before it.
func below(t *testing.T, parent string, spans ...*tracepb.Span) {
	t.Helper()
	for _, s := range spans {
		if got := hex.EncodeToString(s.ParentSpanId); got != parent {
			t.Errorf("%s is under %s, want %s", s.Name, got, parent)
		}
		if s.EndTimeUnixNano < s.StartTimeUnixNano {
			t.Errorf("%s ends before it begins", s.Name)
		}
		parent = hex.EncodeToString(s.SpanId)
	}
}

// publishUnder publishes by the API under a span of the caller's.
func (s *server) publishUnder(t *testing.T, traceparent, body string) {
	t.Helper()
	req, err := http.NewRequest("POST", s.http("/api/v1/publish"), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+backendKey)
	req.Header.Set("Content-Type", "application/json")
	if traceparent != "" {
		req.Header.Set("Traceparent", traceparent)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("publish: %s", res.Status)
	}
}

// joined is a member of a room who is in.
func joined(t *testing.T, s *server, room string) {
	t.Helper()
	c := dialRaw(t, s, "/ws", text(`{"msg_type":"join_room","id":1,"room":"`+room+`"}`))
	c.welcomed()
	c.message("joined")
}

const callersSpan = "00f067aa0ba902b7"

// A publish is followed from the caller's span to the webhook, which bears it; one whose caller isn't sampled is not.
func TestAPublishIsTraced(t *testing.T) {
	t.Parallel()
	c := startCollector(t)
	parents := make(chan string, 100)
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { parents <- r.Header.Get("Traceparent") }))
	t.Cleanup(backend.Close)
	s := under(t, c.env(), "--api-key", backendKey, "--webhook-url", backend.URL, "--webhook-secret", hookSecret, "--webhook-events", "message.published")
	for range 2 {
		joined(t, s, "r")
	}
	unsampled, sampled := strings.Repeat("1", 32), "4bf92f3577b34da6a3ce929d0e0e4736"
	s.publishUnder(t, "00-"+unsampled+"-"+callersSpan+"-00", `{"room":"r","content":1}`)
	s.publishUnder(t, "00-"+sampled+"-"+callersSpan+"-01", `{"room":"r","content":2}`)
	all := c.of(t, sampled, "API publish", "hub publish", "fan-out", "webhook")
	call, publish, fanOut, hook := all[0], all[1], all[2], all[3]
	below(t, callersSpan, call, publish, fanOut)
	below(t, hex.EncodeToString(publish.SpanId), hook)
	if n := attributeOf(fanOut, "hubbub.members"); n != 2 {
		t.Errorf("the fan-out has %d members", n)
	}
	if status := attributeOf(call, "http.response.status_code"); status != http.StatusOK {
		t.Errorf("the call has the status %d", status)
	}
	got := <-parents
	for got == "" { // of what isn't traced
		got = <-parents
	}
	if want := "00-" + sampled + "-" + hex.EncodeToString(hook.SpanId) + "-01"; got != want {
		t.Errorf("the webhook bears %q, want %q", got, want)
	}
	c.of(t, unsampled)
}

// With a folder one trace has the room's log and the webhook.
func TestAPublishIsTracedByLogAndWebhook(t *testing.T) {
	t.Parallel()
	c := startCollector(t)
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(backend.Close)
	s := under(t, c.env(), "--data-dir", t.TempDir(), "--api-key", backendKey, "--webhook-url", backend.URL, "--webhook-secret", hookSecret, "--webhook-events", "message.published")
	joined(t, s, "r")
	trace := strings.Repeat("c", 32)
	s.publishUnder(t, "00-"+trace+"-"+callersSpan+"-01", `{"room":"r","content":1}`)
	all := c.of(t, trace, "API publish", "hub publish", "broker append", "fan-out", "webhook")
	below(t, callersSpan, all[:2]...)
	for _, span := range all[2:] {
		below(t, hex.EncodeToString(all[1].SpanId), span)
	}
}

// Of two nodes over NATS both have their spans of one trace: by the room's log, and where it has none by its topic.
func TestAPublishIsTracedOverNodes(t *testing.T) {
	t.Parallel()
	c := startCollector(t)
	_, port, _ := net.SplitHostPort(freeAddr(t))
	startNATS(t, port)
	flags := []string{"--nats", "nats://127.0.0.1:" + port, "--cluster-secret", "0123456789abcdef", "--api-key", backendKey,
		"--config", configFile(t, "rooms: [{match: \"live\", history: off}]\n")}
	one, two := under(t, c.env(), flags...), under(t, c.env(), flags...)
	becomes(t, one, "hubbub_peers", 1)
	becomes(t, two, "hubbub_peers", 1)
	for _, room := range []string{"kept", "live"} {
		for range 2 {
			joined(t, one, room)
		}
		joined(t, two, room)
	}
	for room, trace := range map[string]string{"kept": strings.Repeat("a", 32), "live": strings.Repeat("b", 32)} {
		one.publishUnder(t, "00-"+trace+"-"+callersSpan+"-01", `{"content":1,"room":"`+room+`"}`)
		names := []string{"API publish", "hub publish", "fan-out", "fan-out"}
		if room == "kept" {
			names = append(names, "broker append")
		}
		all := c.of(t, trace, names...)
		below(t, callersSpan, all[:2]...)
		var members []int64
		for _, s := range all[2:] {
			below(t, hex.EncodeToString(all[1].SpanId), s)
			if s.Name == "fan-out" {
				members = append(members, attributeOf(s, "hubbub.members"))
			}
		}
		if slices.Sort(members); !slices.Equal(members, []int64{1, 2}) {
			t.Errorf("%s: the fan-outs have %v members", room, members)
		}
	}
}

// A collector that takes connections and never answers holds up nobody, and neither does one that is down.
func TestNobodyWaitsForTheCollector(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for name, addr := range map[string]string{"silent": silent.Addr().String(), "down": nobodyListens(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := under(t, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+addr+" OTEL_EXPORTER_OTLP_TIMEOUT=600000 OTEL_BSP_EXPORT_TIMEOUT=600000 "+
				"OTEL_BSP_SCHEDULE_DELAY=50 OTEL_BSP_MAX_QUEUE_SIZE=64 OTEL_BSP_MAX_EXPORT_BATCH_SIZE=64 exec \"$@\"", "--api-key", backendKey)
			for range 300 { // more than the queue takes
				s.publishUnder(t, "", `{"room":"r","content":1}`)
			}
			if scrape(t, s)["go_goroutines"] > 300 {
				t.Error("goroutines wait for the collector")
			}
			if status := s.stop(t, syscall.SIGTERM); status != 0 {
				t.Errorf("it ends with %d", status)
			}
		})
	}
}

func TestTracesNeedGoodVariables(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ env, want string }{
		{"OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318", "OTEL_EXPORTER_OTLP_ENDPOINT"},
		{"OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "http/protobuf"},
		{"OTEL_TRACES_EXPORTER=zipkin", "otlp and none"},
		{"OTEL_EXPORTER_OTLP_TIMEOUT=soon", "milliseconds"},
		{"OTEL_EXPORTER_OTLP_TRACES_HEADERS=secret", "NAME=VALUE"},
	} {
		env := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", c.env}
		out, status := hubbub(t, env, "serve", "--listen", "127.0.0.1:0")
		if status != 2 || !strings.Contains(out, c.want) {
			t.Errorf("%s: status %d, %s", c.env, status, out)
		}
	}
}
