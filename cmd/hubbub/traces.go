package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"example.com/hubbub/internal/sparselog"
)

// traces is where spans go by the variables that OpenTelemetry has for all programs; nil where no endpoint is set. What
// stands here reads those of the exporter; the SDK itself reads OTEL_TRACES_SAMPLER, OTEL_BSP_… and OTEL_RESOURCE_….
func traces(log *slog.Logger, getenv func(string) string) (trace.TracerProvider, error) {
	e, err := newExporter(getenv)
	if e == nil || err != nil {
		return nil, err
	}
	own := []attribute.KeyValue{attribute.String("service.name", "hubbub")}
	if info, ok := debug.ReadBuildInfo(); ok {
		own = append(own, attribute.String("service.version", info.Main.Version))
	}
	of, err := resource.New(context.Background(), resource.WithAttributes(own...), resource.WithHost(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	var failures sparselog.Log
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		failures.Log(log, slog.LevelWarn, "traces can't be delivered: they are dropped", "error", err)
	}))
	log.Info("publishes are traced", "endpoint", e.shown)
	// Its queue is bounded, and what finds it full is dropped: nobody waits.
	return sdktrace.NewTracerProvider(sdktrace.WithBatcher(e), sdktrace.WithResource(of)), nil
}

// flush delivers what is left, within a few seconds.
func flush(p trace.TracerProvider) {
	if p, is := p.(*sdktrace.TracerProvider); is {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = p.Shutdown(ctx)
	}
}

const exporterVariables = "OTEL_EXPORTER_OTLP_"

// newExporter reads the variables of the OTLP exporter; nil where there is no endpoint, or it is switched off.
func newExporter(getenv func(string) string) (*exporter, error) {
	// Of two variables that for traces counts before that for all.
	variable := func(name string) (value, from string) {
		for _, from := range []string{exporterVariables + "TRACES_" + name, exporterVariables + name} {
			if value := getenv(from); value != "" {
				return value, from
			}
		}
		return "", ""
	}
	endpoint, from := variable("ENDPOINT")
	off := strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true")
	switch which := getenv("OTEL_TRACES_EXPORTER"); {
	case off || endpoint == "" || which == "none":
		return nil, nil
	case which != "" && which != "otlp":
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER=%s: there is otlp and none", which)
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("%s: it must be http://HOST:PORT or https://…", from)
	}
	if from == exporterVariables+"ENDPOINT" {
		u = u.JoinPath("v1", "traces")
	}
	if protocol, from := variable("PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		return nil, fmt.Errorf("%s=%s: there is http/protobuf alone", from, protocol)
	}
	e := &exporter{url: u.String(), shown: u.Scheme + "://" + u.Host, headers: map[string]string{}}
	e.client.Timeout = 10 * time.Second
	if text, from := variable("TIMEOUT"); text != "" {
		ms, err := strconv.Atoi(text)
		if err != nil || ms <= 0 || ms > 600_000 {
			return nil, fmt.Errorf("%s=%s: it must be milliseconds, 1 to 600000", from, text)
		}
		e.client.Timeout = time.Duration(ms) * time.Millisecond
	}
	headers, from := variable("HEADERS")
	for pair := range strings.SplitSeq(headers, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, found := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !found || err != nil { // what it is may be secret
			return nil, fmt.Errorf("%s: it must be NAME=VALUE,NAME=VALUE", from)
		}
		e.headers[strings.TrimSpace(name)] = value
	}
	return e, nil
}
