package hubbub_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"unsafe"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"example.com/hubbub"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/rawtest"
)

// nowhere takes spans and forgets them.
type nowhere struct{}

func (nowhere) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (nowhere) Shutdown(context.Context) error                             { return nil }

// BenchmarkPublishTraced is a publish of the application's to a room that nobody is in and that has a history: without
// traces, with a sampler that takes none, and with one that takes each.
func BenchmarkPublishTraced(b *testing.B) {
	provider := func(s sdktrace.Sampler) trace.TracerProvider {
		return sdktrace.NewTracerProvider(sdktrace.WithSampler(s), sdktrace.WithBatcher(nowhere{}))
	}
	for _, kind := range []struct {
		name string
		to   trace.TracerProvider
	}{{"off", nil}, {"unsampled", provider(sdktrace.NeverSample())}, {"sampled", provider(sdktrace.AlwaysSample())}} {
		b.Run(kind.name, func(b *testing.B) {
			s := rawtest.Start(b, hubbub.Config{TracerProvider: kind.to})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Server.Publish(b.Context(), hubbub.Publication{Room: "r", Content: 1}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What a message knows of its trace costs no memory where there is none: it lies in a size class of the allocator with
// what was there before.
func TestAMessageIsNoLargerForItsTrace(t *testing.T) {
	if n := unsafe.Sizeof(protocol.Message{}); n > 160 {
		t.Errorf("a message takes %d bytes", n)
	}
}

// Without a TracerProvider a publish allocates 3 times by the library and 30 by the API, the test's own request included:
// a span, a parent or a record of either would be more. It is the least of many runs that counts: under the race detector
// a sync.Pool forgets at random.
func TestTracesThatAreOffAllocateNothing(t *testing.T) {
	allocations := func(to trace.TracerProvider) (library, api float64) {
		cfg, secrets := keyed(t, hubbub.Config{TracerProvider: to})
		s := rawtest.Start(t, cfg)
		least := func(run func()) float64 {
			n := testing.AllocsPerRun(1, run)
			for range 1000 {
				n = min(n, testing.AllocsPerRun(1, run))
			}
			return n
		}
		library = least(func() {
			if _, err := s.Server.Publish(t.Context(), hubbub.Publication{Room: "r", Content: 1}); err != nil {
				t.Fatal(err)
			}
		})
		api = least(func() {
			r := httptest.NewRequest("POST", "/api/v1/publish", strings.NewReader(`{"room":"r","content":1}`))
			r.Header.Set("Authorization", "Bearer "+secrets["all"])
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			if s.Server.ServeHTTP(w, r); w.Code != 200 {
				t.Fatal(w.Code, w.Body)
			}
		})
		return library, api
	}
	if library, api := allocations(nil); library > 3 || api > 30 {
		t.Errorf("%v times by the library, %v by the API", library, api)
	}
	if library, api := allocations(sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))); library <= 3 || api <= 30 {
		t.Errorf("with traces %v and %v: this test finds nothing", library, api)
	}
}
