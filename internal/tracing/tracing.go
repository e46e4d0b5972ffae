// Package tracing makes the spans of OpenTelemetry that follow a publish from the API to the webhook. Where nobody wants
// them the Tracer is nil, its callers compare it with nil and do nothing else.
//
// A span that is not sampled has no parent to give: what comes behind it makes none.
package tracing

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Tracer makes spans. Any goroutine, and under locks: the processors of its provider must not block.
type Tracer struct{ tracer trace.Tracer }

// New is nil where there is no provider.
func New(p trace.TracerProvider) *Tracer {
	if p == nil {
		return nil
	}
	return &Tracer{p.Tracer("example.com/hubbub")}
}

// ParentBytes is how long a parent is: a traceparent of W3C Trace Context, version 00.
const ParentBytes = 55

var (
	w3c    propagation.TraceContext
	header = "Traceparent"
)

// Request begins the span of a request that has come, under the parent that its headers name.
func (t *Tracer) Request(r *http.Request, name string) (context.Context, trace.Span) {
	ctx := w3c.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	return t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
}

// Start begins a span under that of ctx.
func (t *Tracer) Start(ctx context.Context, name string) (context.Context, trace.Span) {
	return t.tracer.Start(ctx, name)
}

// Under begins a span under a parent.
func (t *Tracer) Under(parent, name string, kind trace.SpanKind, of ...attribute.KeyValue) trace.Span {
	ctx := w3c.Extract(context.Background(), propagation.MapCarrier{"traceparent": parent})
	_, span := t.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(of...))
	return span
}

// Parent is what those below a span need of it; nil where it isn't sampled.
func Parent(span trace.Span) *string {
	if !span.SpanContext().IsSampled() {
		return nil
	}
	carrier := propagation.MapCarrier{}
	w3c.Inject(trace.ContextWithSpan(context.Background(), span), carrier)
	parent := carrier["traceparent"]
	return &parent
}

// Ask puts a parent into the headers of a request.
func Ask(h http.Header, parent string) { h.Set(header, parent) }

// End ends a span, which has failed if there is an error.
func End(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
