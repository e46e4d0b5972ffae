package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub/internal/sparselog"
)

const (
	maxDocument = 1 << 20
	// fetchPace is how often a provider is asked at most: anybody can send a token with a kid that nobody knows.
	fetchPace = 10 * time.Second
	// staleAfter is when a set is fetched anew though no token asked for another key: one that the provider has
	// withdrawn must not count for ever.
	staleAfter   = 5 * time.Minute
	fetchTimeout = 5 * time.Second
)

// provider is a cache of the keys at a URL. One fetch is under way at a time, on a goroutine of its own; tokens whose
// key is known never wait for it. The last good set stays, whatever becomes of the provider.
type provider struct {
	// Static.
	url    string
	client *http.Client
	log    *slog.Logger
	failed sparselog.Log
	stop   context.Context
	cancel context.CancelFunc

	set atomic.Pointer[keySet] // nil before the first good one

	mu       sync.Mutex
	begun    time.Time     // when the last fetch began; guarded by mu, as is what follows
	fetching chan struct{} // closed when the one under way has ended; nil for none
	err      error         // of the last one that ended
	closed   bool
}

// CheckJWKS refuses a URL whose keys somebody on the way could replace.
func CheckJWKS(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return errors.New("it is no URL: write https://HOST/PATH")
	}
	ip, _ := netip.ParseAddr(u.Hostname())
	loopback := u.Hostname() == "localhost" || ip.IsLoopback()
	switch {
	case u.Host == "" || u.Opaque != "":
		return errors.New("it is no URL: write https://HOST/PATH")
	case u.Scheme == "http" && !loopback:
		return errors.New("by http: anybody on the way could put keys of his own there; write https:")
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("the scheme %q isn't https", u.Scheme)
	}
	return nil
}

// PublicURL is what others may read of an address, as in the log: where it is, or "" for what is no URL. User, password,
// path and query may be secrets.
func PublicURL(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// newProvider begins to fetch.
func newProvider(url string, log *slog.Logger) *provider {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // there are minutes between two
	p := &provider{url: url, log: log, client: &http.Client{
		Transport: transport,
		Timeout:   fetchTimeout,
		// Who may redirect from there need not be who may say which keys count.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	p.stop, p.cancel = context.WithCancel(context.Background())
	p.fetch()
	return p
}

func (p *provider) close() {
	p.cancel()
	p.mu.Lock()
	p.closed = true
	under := p.fetching
	p.mu.Unlock()
	if under != nil {
		<-under
	}
}

// find gives the key that the token names. If there is none it waits for the fetch that is under way, or for one of its
// own where the last one is long enough ago.
func (p *provider) find(ctx context.Context, h header, waits func()) (any, error) {
	if algorithms[h.Alg].kind == kindSecret {
		return nil, fmt.Errorf("the token's algorithm, %s, is for a secret, and a provider's keys are public", h.Alg)
	}
	key, err := p.known(h)
	if err == nil && p.age() > staleAfter {
		p.fetch()
	}
	if !errors.Is(err, errNoSuchKey) {
		return key, err
	}
	if under := p.fetch(); under != nil {
		waits()
		select {
		case <-under:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w in time", ErrUnavailable)
		}
		key, err = p.known(h)
	}
	if errors.Is(err, errNoSuchKey) && p.failing() {
		return nil, ErrUnavailable // it may be one of those that could not be fetched
	}
	return key, err
}

// known looks into the set that is there.
func (p *provider) known(h header) (any, error) {
	if set := p.set.Load(); set != nil {
		return set.find(h)
	}
	return nil, errNoSuchKey
}

func (p *provider) age() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.begun)
}

func (p *provider) failing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err != nil
}

// fetch gives a channel that is closed when the fetch under way has ended; it begins one where there is none. It is nil
// where the last one began too short a time ago. Never blocks.
func (p *provider) fetch() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fetching != nil {
		return p.fetching
	}
	if p.closed || !p.begun.IsZero() && time.Since(p.begun) < fetchPace {
		return nil
	}
	done := make(chan struct{})
	p.begun, p.fetching = time.Now(), done
	go func() {
		set, err := p.get()
		if err == nil {
			p.set.Store(&set)
		} else if p.stop.Err() == nil {
			p.failed.Log(p.log, slog.LevelWarn, "cannot fetch the keys of tokens; those that are known stay in use", "setting", "--jwt-jwks", "known", p.set.Load() != nil, "err", err)
		}
		p.mu.Lock()
		p.err, p.fetching = err, nil
		p.mu.Unlock()
		close(done)
	}()
	return done
}

// get reads the document. An error repeats no more of the address than PublicURL.
func (p *provider) get() (keySet, error) {
	at := PublicURL(p.url)
	r, err := http.NewRequestWithContext(p.stop, http.MethodGet, p.url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	answer, err := p.client.Do(r)
	if e := (*url.Error)(nil); errors.As(err, &e) {
		return nil, fmt.Errorf("%s: %w", at, e.Err)
	} else if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	switch status := answer.StatusCode; {
	case status >= 300 && status < 400:
		return nil, fmt.Errorf("%s answers %s: redirects are not followed; set --jwt-jwks to where it leads", at, answer.Status)
	case status != http.StatusOK:
		return nil, fmt.Errorf("%s answers %s", at, answer.Status)
	}
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	if len(b) > maxDocument {
		return nil, fmt.Errorf("%s: more than %d bytes", at, maxDocument)
	}
	set, err := parseSet(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return set, nil
}
