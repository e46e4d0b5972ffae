package api

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
)

// trace begins the span of a call, under that of its caller, and gives what ends it behind the answer.
func (a *API) trace(c *call, to *route) (end func()) {
	ctx, span := a.Tracer.Request(c.r, "API "+to.name)
	span.SetAttributes(attribute.String("http.request.method", to.method), attribute.String("hubbub.call", to.name))
	c.r = c.r.WithContext(ctx)
	return func() {
		span.SetAttributes(attribute.Int("http.response.status_code", c.status))
		if c.status >= 500 {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}
