package hubbub_test

import (
	"context"
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
