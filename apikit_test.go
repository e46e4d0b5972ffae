package hubbub_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// keyed adds a key of every right to cfg, and others of one right each, whose names are those of the rights.
func keyed(t testing.TB, cfg hubbub.Config) (hubbub.Config, map[string]string) {
	t.Helper()
	secrets := map[string]string{}
	for _, right := range []string{"all", "publish", "read", "manage", "tail"} {
		allow := []string{right}
		if right == "all" {
			allow = nil
		}
		secret, key, err := hubbub.NewAPIKey(right, allow...)
		if err != nil {
			t.Fatal(err)
		}
		secrets[right] = secret
		cfg.APIKeys = append(cfg.APIKeys, key)
	}
	return cfg, secrets
}

// backend calls a server's API, and holds each answer against the description.
type backend struct {
	t    testing.TB
	base string // what stands before /api/v1
	key  string
	desc *description

	through http.Handler // nil: over the network
}

// startAPI starts a server with a key.
func startAPI(t testing.TB, cfg hubbub.Config) (*rawtest.Server, *backend) {
	t.Helper()
	cfg, secrets := keyed(t, cfg)
	s := rawtest.Start(t, cfg)
	return s, &backend{t: t, base: "http://" + s.Addr, key: secrets["all"], desc: described(t)}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
	fields map[string]any // of a JSON object
}

// request makes a call; path is escaped, and begins behind /api/v1.
func (b *backend) request(method, path, body string, headers ...string) *http.Request {
	b.t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, b.base+"/api/v1"+path, content)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.key != "" {
		r.Header.Set("Authorization", "Bearer "+b.key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func (b *backend) call(method, path, body string, headers ...string) answer {
	b.t.Helper()
	return b.do(b.request(method, path, body, headers...), body)
}

func (b *backend) do(r *http.Request, body string) answer {
	b.t.Helper()
	if b.through != nil {
		w := httptest.NewRecorder()
		b.through.ServeHTTP(w, r)
		a := answer{status: w.Code, header: w.Header(), body: w.Body.Bytes()}
		b.took(r, body, &a)
		return a
	}
	client := http.Client{Transport: &http.Transport{}} // a connection that could stay: see TestAPIAnswersAreTheSameWithoutNetHTTP
	defer client.CloseIdleConnections()
	got, err := client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer got.Body.Close()
	a := answer{status: got.StatusCode, header: got.Header}
	if a.body, err = io.ReadAll(got.Body); err != nil {
		b.t.Fatal(err)
	}
	b.took(r, body, &a)
	return a
}

// took looks at an answer.
func (b *backend) took(r *http.Request, body string, a *answer) {
	b.t.Helper()
	if strings.Contains(a.header.Get("Content-Type"), "json") && r.Method != http.MethodHead {
		if err := json.Unmarshal(a.body, &a.fields); err != nil {
			b.t.Fatalf("%s: %v", a.body, err)
		}
	}
	if err := b.desc.check(r, b.base, body, a); err != nil {
		b.t.Errorf("%s %s: %d %s: the description says otherwise: %v", r.Method, r.URL, a.status, a.body, err)
	}
}

// ok makes a call that is to succeed.
func (b *backend) ok(method, path, body string, headers ...string) map[string]any {
	b.t.Helper()
	a := b.call(method, path, body, headers...)
	if a.status/100 != 2 {
		b.t.Fatalf("%s %s %s: %d %s", method, path, body, a.status, a.body)
	}
	return a.fields
}

// fails makes a call that is to fail in this way.
func (b *backend) fails(status int, code, says, method, path, body string, headers ...string) answer {
	b.t.Helper()
	a := b.call(method, path, body, headers...)
	b.failed(a, status, code, says, method+" "+path+" "+rawtest.Brief([]byte(body)))
	return a
}

func (b *backend) failed(a answer, status int, code, says, what string) {
	b.t.Helper()
	detail, _ := a.fields["detail"].(string)
	if a.status != status || a.fields["code"] != code || !strings.Contains(detail, says) || a.fields["status"] != float64(status) {
		b.t.Errorf("%s: %d %s\nwant %d, %s, %q", what, a.status, a.body, status, code, says)
	}
}

// description is openapi.yaml, and what of it was seen.
type description struct {
	doc *openapi3.T

	mu   sync.Mutex
	seen map[string]bool // statuses by operation; fields by schema
}

func described(t testing.TB) *description {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("internal/api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return &description{doc: doc, seen: map[string]bool{}}
}

// find is the operation of a request's path, nil where there is none.
func (d *description) find(r *http.Request, base string) (*routers.Route, map[string]string) {
	host, _ := url.Parse(base)
	path, _ := strings.CutPrefix(r.URL.EscapedPath(), host.Path+"/api/v1")
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	segments := strings.Split(path, "/")
next:
	for template, item := range d.doc.Paths.Map() {
		parts, params := strings.Split(template, "/"), map[string]string{}
		if len(parts) != len(segments) || item.GetOperation(method) == nil {
			continue
		}
		for i, part := range parts {
			text, err := url.PathUnescape(segments[i])
			if name, is := strings.CutPrefix(part, "{"); is && err == nil {
				params[strings.TrimSuffix(name, "}")] = text
			} else if text != part {
				continue next
			}
		}
		return &routers.Route{Spec: d.doc, Server: d.doc.Servers[0], Path: template, PathItem: item, Method: method, Operation: item.GetOperation(method)}, params
	}
	return nil, nil
}

// check holds a call and its answer against the description.
func (d *description) check(r *http.Request, base, body string, a *answer) error {
	route, params := d.find(r, base)
	if route == nil || a.status == http.StatusMethodNotAllowed {
		return nil
	}
	options := &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}
	again := r.Clone(context.Background())
	again.Body = io.NopCloser(strings.NewReader(body))
	in := &openapi3filter.RequestValidationInput{Request: again, PathParams: params, Route: route, Options: options}
	if a.status < 300 && !strings.Contains(string(a.body), `"error"`) { // of a call in a batch
		if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
			return fmt.Errorf("the request: %w", err)
		}
	}
	id := route.Operation.OperationID
	d.see(id + " " + strconv.Itoa(a.status))
	if r.Method == http.MethodHead || a.status == http.StatusOK && (id == "openapi" || id == "tail") {
		return nil // neither is JSON
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: a.status, Header: a.header, Options: options}
	out.SetBodyBytes(a.body)
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		return err
	}
	if media := route.Operation.Responses.Status(a.status).Value.Content.Get(a.header.Get("Content-Type")); media != nil {
		var value any
		json.Unmarshal(a.body, &value)
		d.mark(id, media.Schema, value)
	}
	if r := route.Operation.RequestBody; r != nil && a.status < 300 {
		var value any
		json.Unmarshal([]byte(body), &value)
		d.mark(id+" body", r.Value.Content.Get("application/json").Schema, value)
	}
	return nil
}

func (d *description) see(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen[what] = true
}

// mark notes which fields of a schema a value has.
func (d *description) mark(at string, ref *openapi3.SchemaRef, value any) {
	d.walk(at, ref, value, func(field string, there bool) {
		if there {
			d.see(field)
		}
	})
}

// walk goes over the fields that a schema has where a value is; a nil value has all, none of them there.
func (d *description) walk(at string, ref *openapi3.SchemaRef, value any, field func(name string, there bool)) {
	if ref.Ref != "" {
		at = ref.Ref[strings.LastIndexByte(ref.Ref, '/')+1:]
	}
	for _, some := range slices.Concat(ref.Value.AnyOf) {
		if value == nil || some.Value.VisitJSON(value, openapi3.EnableJSONSchema2020()) == nil {
			if value == nil && some.Ref == ref.Ref {
				continue
			}
			d.walk(at, some, value, field)
		}
	}
	if ref.Value.Items != nil {
		list, _ := value.([]any)
		for _, item := range list {
			d.walk(at+"[]", ref.Value.Items, item, field)
		}
	}
	object, _ := value.(map[string]any)
	for name, of := range ref.Value.Properties {
		v, there := object[name]
		field(at+"."+name, there)
		if there {
			d.walk(at+"."+name, of, v, field)
		}
	}
}

// unseen is what of the description no answer had.
func (d *description) unseen() (all []string) {
	want := map[string]bool{}
	for _, item := range d.doc.Paths.Map() {
		for _, op := range item.Operations() {
			for status, response := range op.Responses.Map() {
				want[op.OperationID+" "+status] = true
				for _, media := range response.Value.Content {
					d.fields(op.OperationID, media.Schema, want)
				}
			}
			if op.RequestBody != nil {
				d.fields(op.OperationID+" body", op.RequestBody.Value.Content.Get("application/json").Schema, want)
			}
		}
	}
	for name, schema := range d.doc.Components.Schemas {
		d.fields(name, schema, want)
	}
	for _, what := range slices.Sorted(maps.Keys(want)) {
		if !d.seen[what] {
			all = append(all, what)
		}
	}
	return all
}

// fields adds those of a schema, not of those that it refers to.
func (d *description) fields(at string, ref *openapi3.SchemaRef, to map[string]bool) {
	if ref.Ref != "" {
		return
	}
	for _, some := range ref.Value.AnyOf {
		d.fields(at, some, to)
	}
	if ref.Value.Items != nil {
		d.fields(at+"[]", ref.Value.Items, to)
	}
	for name, of := range ref.Value.Properties {
		to[at+"."+name] = true
		d.fields(at+"."+name, of, to)
	}
}

// results are those of a call that has several.
func results(fields map[string]any) (all []map[string]any) {
	list, _ := fields["results"].([]any)
	for _, r := range list {
		all = append(all, r.(map[string]any))
	}
	return all
}

// errorCode is that of a result.
func errorCode(result map[string]any) string {
	e, _ := result["error"].(map[string]any)
	code, _ := e["code"].(string)
	return code
}

// tail listens; next gives the kind of the next event and its data, and stop ends it.
func (b *backend) tail(query string) (next func() (kind string, data map[string]any), stop func()) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r := b.request("GET", "/tail?"+query, "").WithContext(ctx)
	got, err := client.Do(r)
	if err != nil || got.StatusCode != http.StatusOK {
		b.t.Fatal(got, err)
	}
	b.took(r, "", &answer{status: got.StatusCode, header: got.Header})
	lines := bufio.NewScanner(got.Body)
	schema := b.desc.doc.Components.Schemas["TailEvent"]
	next = func() (kind string, data map[string]any) {
		b.t.Helper()
		for lines.Scan() {
			switch name, value, _ := strings.Cut(lines.Text(), ": "); name {
			case "event":
				kind = value
			case "data":
				if err := json.Unmarshal([]byte(value), &data); err != nil {
					b.t.Fatalf("%s: %v", value, err)
				}
				if kind == "lost" || kind == "end" {
					return kind, data
				}
				if err := schema.Value.VisitJSON(data, openapi3.EnableJSONSchema2020()); err != nil {
					b.t.Errorf("%s %s: %v", kind, value, err)
				}
				b.desc.mark("TailEvent", schema, data)
				return kind, data
			}
		}
		return "", nil
	}
	return next, func() { cancel(); got.Body.Close() }
}
