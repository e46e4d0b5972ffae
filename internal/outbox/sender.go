package outbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"example.com/hubbub/internal/tracing"
	"example.com/hubbub/internal/webhook"
)

// answer is what has become of a request.
type answer struct {
	err    error // nil: the backend has taken it
	status int   // 0 where none came
	after  time.Duration
}

const (
	maxAnswer     = 64 << 10 // bytes of the backend's answer that are read, head and body each
	maxRetryAfter = 5 * time.Minute
	maxRest       = time.Second // for what follows the head of an answer
	// keptIdle is shorter than what backends keep an idle connection for, 5 s and more: one that they close just as a
	// request is on its way would count as a failure.
	keptIdle = 4 * time.Second
)

// newClient follows no redirect: the backend's address is what the operator has set.
func newClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxResponseHeaderBytes = maxAnswer
	t.DisableCompression = true
	t.IdleConnTimeout = keptIdle
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// send makes one request, and waits for its answer; parent is the traceparent that it bears, or "". Any goroutine.
func (o *Outbox) send(ctx context.Context, id string, body []byte, parent string) answer {
	to := o.target.Load()
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL, bytes.NewReader(body))
	if err != nil {
		return answer{err: bare(err)}
	}
	req.Header = webhook.Sign(to.Secrets, id, time.Now(), body)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Hubbub")
	if parent != "" {
		tracing.Ask(req.Header, parent)
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return answer{err: bare(err)}
	}
	defer resp.Body.Close()
	rest := time.AfterFunc(maxRest, enough)
	defer rest.Stop()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // so that the connection is of use again
	a := answer{status: resp.StatusCode}
	switch {
	case a.status >= 200 && a.status < 300:
		return a
	case a.status >= 300 && a.status < 400:
		a.err = fmt.Errorf("it answered %d; redirects are not followed, set the address that it means", a.status)
	default:
		a.err = fmt.Errorf("it answered %d", a.status)
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		a.after = min(time.Duration(min(s, 1<<20))*time.Second, maxRetryAfter)
	}
	return a
}

// bare is an error of net/http without the address, of which a part may be secret.
func bare(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// backoff is how long to wait behind so many attempts: twice as long each time, up to a bound, and less by a random
// part of half of it, so that nodes don't come back in step.
func (o *Outbox) backoff(attempts int) time.Duration {
	d := o.limits.lastRetry
	if shift := attempts - 1; shift < 20 {
		d = min(d, o.limits.firstRetry<<shift)
	}
	return d/2 + rand.N(d/2+1)
}
