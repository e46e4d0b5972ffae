package outbox

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"example.com/hubbub/internal/tracing"
)

// maxTraces is how many events that wait may be traced. Their parents are in memory alone: behind a restart an event is
// told without its trace.
const maxTraces = 4096

// trace remembers the parent of an event until it is sent. Where too many wait it forgets all.
func (o *Outbox) trace(stamp uint64, parent string) {
	if o.cfg.Tracer == nil {
		return
	}
	if o.traces == nil || len(o.traces) >= maxTraces {
		o.traces = map[uint64]string{}
	}
	o.traces[stamp] = parent
}

// spans begins one for an attempt to send a batch, in each trace that has events in it.
func (o *Outbox) spans(b *batch) (all []trace.Span) {
	for _, parent := range b.traces {
		all = append(all, o.cfg.Tracer.Under(parent, "webhook", trace.SpanKindClient,
			attribute.Int("hubbub.events", b.events), attribute.Int("hubbub.attempt", b.attempts), attribute.String("hubbub.webhook_id", b.id)))
	}
	return all
}

// parentOf is the traceparent of the first.
func parentOf(spans []trace.Span) string {
	for _, span := range spans {
		if parent := tracing.Parent(span); parent != nil {
			return *parent
		}
	}
	return ""
}

// endAll ends the spans of an attempt.
func endAll(spans []trace.Span, a answer) {
	for _, span := range spans {
		span.SetAttributes(attribute.Int("http.response.status_code", a.status))
		tracing.End(span, a.err)
	}
}
