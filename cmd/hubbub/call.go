package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"
	"unicode/utf16"
)

// apiFlags are those of the commands that call a server by its HTTP API.
type apiFlags struct {
	URL  string `name:"url" default:"http://localhost:8080" env:"HUBBUB_URL" placeholder:"URL" help:"The server, with its --base-path; where it has --admin-listen, that address (${default})."`
	Key  string `env:"HUBBUB_API_KEY" placeholder:"KEY" help:"A key of the API. In the environment other users of the machine don't see it."`
	JSON bool   `name:"json" env:"-" help:"Print what the server answers."`
}

const (
	apiPath  = "/api/v1"
	callTime = 30 * time.Second
	maxReply = 16 << 20 // bytes of an answer; the longest are lists
)

// checkAddress says of the address of a server what is wanted.
func checkAddress(address string) error {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return usageError{fmt.Errorf("--url %q: an address is wanted such as http://localhost:8080 or https://chat.example.com/live", address)}
	}
	return nil
}

// newRequest makes a call: path is below /api/v1, each of its segments escaped. body is JSON, nil for none.
func (c *apiFlags) newRequest(ctx context.Context, method, path string, query url.Values, body any) (*http.Request, error) {
	if err := checkAddress(c.URL); err != nil {
		return nil, err
	}
	target := strings.TrimRight(c.URL, "/") + apiPath + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var content io.Reader
	if body != nil {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(body); err != nil {
			return nil, err
		}
		content = &b
	}
	r, err := http.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return nil, usageError{fmt.Errorf("--url %q: %w", c.URL, err)}
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if strings.ContainsFunc(c.Key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, usageError{errors.New("HUBBUB_API_KEY or --key: a key has visible ASCII characters alone, and no blanks: the key itself is wanted, such as hub_…, without the header before it")} // nor is it shown
	}
	if c.Key != "" {
		r.Header.Set("Authorization", "Bearer "+c.Key)
	}
	return r, nil
}

// apiClient follows no redirect: who sends it elsewhere isn't the server, and elsewhere would get the key.
var apiClient = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// open sends a request, and gives the answer to one that was done. The error says what to set.
func (c *apiFlags) open(r *http.Request) (*http.Response, error) {
	var stood atomic.Bool // a connection, TLS and all: without one nothing was sent
	answer, err := apiClient.Do(r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { stood.Store(true) },
	})))
	switch {
	case err != nil && stood.Load():
		return nil, unanswered{c.why(err)}
	case err != nil:
		return nil, c.why(err)
	case answer.StatusCode/100 == 2:
		return answer, nil
	}
	defer answer.Body.Close()
	return nil, c.refusal(answer)
}

// why is what to do about a request without an answer.
func (c *apiFlags) why(err error) error {
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		err = failed.Err // what it was for is known
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens at %s: start hubbub serve there, or say by --url or HUBBUB_URL where it is", c.URL)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer from %s within %s", c.URL, callTime)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%s has no TLS: write http:// in --url or HUBBUB_URL, or the address of the proxy that has it", c.URL)
	}
	return fmt.Errorf("%s: %w (--url or HUBBUB_URL says where the server is)", c.URL, err)
}

// refusal is what an answer says that isn't a success, and what to set.
func (c *apiFlags) refusal(answer *http.Response) (err error) {
	var no struct{ Code, Detail string }
	b, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	notOurs := json.Unmarshal(b, &no) != nil || no.Code == ""
	if answer.StatusCode >= http.StatusInternalServerError && no.Code != "unavailable" && no.Code != "overloaded" { // with timeout and internal it may have been done
		defer func() { err = unanswered{err} }()
	}
	switch {
	case notOurs && bytes.Contains(b, []byte("HTTP request to an HTTPS server")): // as Go's net/http says it, and so Hubbub
		return fmt.Errorf("%s has TLS: write https:// in --url or HUBBUB_URL", c.URL)
	case notOurs:
		why := ""
		if to := answer.Header.Get("Location"); to != "" {
			why = " and sends to " + printable(to)
		}
		return fmt.Errorf("%s answers %s%s, and is no API of Hubbub: say by --url where it is, with the server's --base-path; where it has --admin-listen the API is there alone", c.URL, printable(answer.Status), why)
	}
	detail := printable(cmp.Or(no.Detail, answer.Status))
	switch {
	case no.Code == "unauthorized" && c.Key == "":
		return fmt.Errorf("%s wants a key: set HUBBUB_API_KEY, or --key, to one that it knows; hubbub key makes one", c.URL)
	case no.Code == "unauthorized":
		return fmt.Errorf("%s doesn't know this key: look at HUBBUB_API_KEY, or --key", c.URL)
	case answer.StatusCode == http.StatusForbidden && no.Code == "forbidden":
		return fmt.Errorf("%s (forbidden)", detail)
	case answer.Header.Get("Retry-After") != "":
		return fmt.Errorf("%s (%s); try again in %s s", detail, no.Code, printable(answer.Header.Get("Retry-After")))
	}
	if no.Code == "not_found" && strings.HasSuffix(strings.TrimRight(c.URL, "/"), apiPath) {
		detail += "; leave " + apiPath + " out of --url: it is added"
	}
	return &callError{no.Code, detail}
}

// unanswered is an error of a call of which nobody knows whether it was done.
type unanswered struct{ error }

func (e unanswered) Unwrap() error { return e.error }

// callError is what the server said no with.
type callError struct{ code, detail string }

func (e *callError) Error() string { return e.detail + " (" + printable(e.code) + ")" }

// isCode says whether the server said no with this code.
func isCode(err error, code string) bool {
	var e *callError
	return errors.As(err, &e) && e.code == code
}

// call makes a call and reads the answer into to, nil for nothing. raw is the answer as it came.
func (c *apiFlags) call(ctx context.Context, method, path string, query url.Values, body, to any) (raw []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := c.newRequest(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	answer, err := c.open(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	raw, err = io.ReadAll(io.LimitReader(answer.Body, maxReply))
	if err != nil {
		return nil, unanswered{fmt.Errorf("%s: the answer breaks off: %w", c.URL, err)}
	}
	if to != nil {
		if err := json.Unmarshal(raw, to); err != nil {
			return nil, fmt.Errorf("%s answers what is no JSON of Hubbub's API: say by --url where that is", c.URL)
		}
	}
	return raw, nil
}

// untilSignal ends with Control-C or SIGTERM.
func untilSignal() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// printable is a text from elsewhere as a terminal may have it: what could move its cursor or turn its writing around
// is escaped.
func printable(text string) string {
	if !strings.ContainsFunc(text, hidden) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if hidden(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// printableJSON is JSON from elsewhere, the same value on one line, as a terminal may have it.
func printableJSON(raw []byte) string {
	var b strings.Builder
	for _, r := range string(bytes.TrimSpace(raw)) {
		switch {
		case r < ' ': // between values, for no text has one
			b.WriteByte(' ')
		case hidden(r):
			for _, half := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, "\\u%04x", half)
			}
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func hidden(r rune) bool { return r != ' ' && !unicode.IsPrint(r) && !unicode.Is(unicode.Zs, r) }

// target is whom kick and tail are about: "room:NAME", "client:ID" or "user:NAME".
type target struct{ kind, name string }

// parseTarget reads one of these kinds.
func parseTarget(text string, kinds ...string) (t target, err error) {
	kind, name, _ := strings.Cut(text, ":")
	for _, k := range kinds {
		if kind == k && name != "" {
			return target{kind, name}, nil
		}
	}
	var forms []string
	for _, k := range kinds {
		forms = append(forms, k+":"+map[string]string{"room": "NAME", "client": "ID", "user": "NAME"}[k])
	}
	return t, usageError{fmt.Errorf("%q: write %s", text, strings.Join(forms, " or "))}
}

// path is the target's: "/clients/ID".
func (t target) path() string { return "/" + t.kind + "s/" + segment(t.name) }

// segment is a name in a path. Dots alone would be taken for a folder on the way.
func segment(name string) string {
	if name == "." || name == ".." {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}
