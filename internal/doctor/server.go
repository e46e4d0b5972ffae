package doctor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// web follows no redirect: a key belongs to nobody else.
func (s *Subject) web() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: s.Roots, Proxy: http.ProxyFromEnvironment},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// API is for calls of the server that runs: one on this machine needs no certificate for localhost.
func (s *Subject) API() *http.Client {
	client := s.web()
	if u, err := url.Parse(s.URL); err == nil && isLocal(u.Hostname()) {
		client.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	}
	return client
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// get makes a call of the API.
func (s *Subject) get(ctx context.Context, path string, to any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(s.URL, "/")+"/api/v1"+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+s.Key)
	answer, err := s.API().Do(r)
	if err != nil {
		return plain(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, 4<<20))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET /api/v1%s is answered %s", path, answer.Status)
	}
	return json.Unmarshal(b, to)
}

// plain is an error without the URL, in which there may be a secret.
func plain(err error) error {
	if e := (*url.Error)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// server asks a server that runs how it is.
func server(ctx context.Context, s *Subject) []Finding {
	const name = "server"
	if s.URL == "" {
		return nil
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(s.URL, "/")+"/readyz", nil)
	if err != nil {
		return []Finding{fault(name, "--url http://localhost:8080", "%q is no address", s.URL)}
	}
	answer, err := s.API().Do(r)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED) && s.Runs:
		return []Finding{fault(name, "look at --url, or HUBBUB_URL, and whether the server runs there", "nobody listens at %s", s.URL)}
	case errors.Is(err, syscall.ECONNREFUSED):
		return []Finding{ok(name, "none runs at %s; so what only a server can tell wasn't looked at", s.URL)}
	case err != nil:
		return []Finding{fault(name, "look whether it hangs: its log, and kill -QUIT for the stacks", "%s: %v", s.URL, plain(err))}
	}
	b, _ := io.ReadAll(io.LimitReader(answer.Body, 16<<10))
	answer.Body.Close()
	all := []Finding{ok(name, "%s is ready", s.URL)}
	if answer.StatusCode != http.StatusOK {
		var why struct{ Detail string }
		json.Unmarshal(b, &why)
		all[0] = fault(name, "the server's log says more", "%s isn't ready: %s %s", s.URL, answer.Status, why.Detail)
	}
	if s.Key == "" {
		return append(all, ok("server figures", "not looked at: they need a key, HUBBUB_API_KEY"))
	}
	var info struct {
		Version, Node string
		Connections   int
		Memory        struct {
			Process, Buffered int64
			MaxBuffered       int64 `json:"max_buffered"`
		}
	}
	if err := s.get(ctx, "/info", &info); err != nil {
		return append(all, fault("server figures", "look at HUBBUB_API_KEY; where the server has --admin-listen, give that address by --url", "%v", err))
	}
	if m := info.Memory; m.MaxBuffered > 0 && m.Buffered > m.MaxBuffered*8/10 {
		all = append(all, warning("server memory", "more memory, a larger --max-buffered-bytes, or smaller histories; docs/operations.md, Memory", "%d of %d MiB that may be buffered are taken: beyond it clients are closed with 1013", m.Buffered>>20, m.MaxBuffered>>20))
	}
	if s.MaxConnections > 0 && info.Connections > s.MaxConnections*9/10 {
		all = append(all, warning("server connections", "raise --max-connections and the limit of open files, or add a node", "%d of %d connections are taken", info.Connections, s.MaxConnections))
	}
	return append(all, ok("server figures", "version %s, node %s, %d connections", info.Version, info.Node, info.Connections))
}

// peerClock is how far another machine's clock is ahead of ours, by the Date of its answers; from is "" where there is
// none to ask.
func (s *Subject) peerClock(ctx context.Context) (ahead time.Duration, from string) {
	targets := []string{s.PublicURL, s.URL}
	for _, c := range s.Calls {
		if !c.Signed { // a provider of keys: a GET is what it gets anyway
			targets = append(targets, c.URL)
		}
	}
	for _, target := range targets {
		u, err := url.Parse(target)
		if err != nil || u.Host == "" || isLocal(u.Hostname()) {
			continue
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodHead, u.Scheme+"://"+u.Host+"/", nil)
		if err != nil {
			continue
		}
		begin := time.Now()
		answer, err := s.web().Do(r)
		if err != nil {
			continue
		}
		answer.Body.Close()
		if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
			now := begin.Add(time.Since(begin) / 2)
			return date.Add(500 * time.Millisecond).Sub(now), u.Host // Date is cut to seconds
		}
	}
	return 0, ""
}
