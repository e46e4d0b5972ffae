package hub

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"example.com/hubbub/internal/history"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/tracing"
)

// What the application publishes has spans where Config.Tracer is set and the one above is sampled: one of the hub's, and
// below it one until the log has it, where that lies elsewhere, and on each node one of the fan-out. The message knows the
// hub's span, and so does its record.

// publishTraced is publishAnywhere with a span.
func (h *Hub) publishTraced(ctx context.Context, p *Publication) (at history.Position, duplicate bool, err error) {
	ctx, span := h.cfg().Tracer.Start(ctx, "hub publish")
	defer func() { tracing.End(span, err) }()
	traced := *p
	if traced.trace = tracing.Parent(span); traced.trace != nil {
		span.SetAttributes(attribute.String("hubbub.room", p.Room), attribute.Int("hubbub.content_bytes", len(p.Content)))
	}
	at, duplicate, err = h.publishAnywhere(ctx, &traced)
	if traced.trace != nil && err == nil {
		span.SetAttributes(attribute.Int64("hubbub.offset", int64(at.Offset)), attribute.Bool("hubbub.duplicate", duplicate))
	}
	return at, duplicate, err
}

// traceFanOut begins the span of a message's way to the workers, and gives what ends it. r.mu is held.
func (h *Hub) traceFanOut(r *room, m *protocol.Message) (end func()) {
	if h.cfg().Tracer == nil {
		return func() {} // another node's traces
	}
	span := h.cfg().Tracer.Under(*m.Trace, "fan-out", trace.SpanKindInternal, attribute.Int("hubbub.members", r.members),
		attribute.Int("hubbub.mailboxes", len(r.locals)), attribute.Int64("hubbub.offset", int64(m.Offset)))
	return func() { span.End() }
}

// traceAppend begins the span that lasts until a log has the message, which ends when done is called.
func (h *Hub) traceAppend(m *protocol.Message, done func(history.Position, bool, error)) func(history.Position, bool, error) {
	if h.cfg().Tracer == nil {
		return done
	}
	span := h.cfg().Tracer.Under(*m.Trace, "broker append", trace.SpanKindProducer)
	return func(at history.Position, duplicate bool, err error) {
		tracing.End(span, err)
		done(at, duplicate, err)
	}
}
