package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/hubbub/internal/webhook"
)

// natsServers connects to NATS as the server would, and asks what the account may have.
func natsServers(ctx context.Context, s *Subject) []Finding {
	if len(s.NATS) == 0 {
		return nil
	}
	const sent = "a connection, a ping, and a question for the account's limits; nothing is published"
	said := func(f Finding) []Finding { f.Sent = sent; return []Finding{f} }
	options := []nats.Option{nats.Name("hubbub doctor"), nats.MaxReconnects(0), nats.Timeout(s.Limit / 2), nats.NoEcho()}
	if s.NATSCreds != "" {
		options = append(options, nats.UserCredentials(s.NATSCreds))
	}
	if s.NATSCA != "" {
		options = append(options, nats.RootCAs(s.NATSCA))
	}
	nc, err := nats.Connect(strings.Join(s.NATS, ","), options...)
	if err != nil {
		change := "look whether NATS runs there, and what lies between: nc -vz HOST PORT"
		if errors.Is(err, nats.ErrAuthorization) || strings.Contains(strings.ToLower(err.Error()), "authoriz") {
			change = "--nats-creds must have the credentials of an account of that server"
		}
		return said(fault("NATS", change, "%v", withoutURLs(err, s.NATS)))
	}
	defer nc.Close()
	trip, err := nc.RTT()
	if err != nil {
		return said(fault("NATS", "look whether NATS hangs", "no answer to a ping: %v", err))
	}
	version := nc.ConnectedServerVersion()
	if !newEnough(version) {
		return said(fault("NATS", "install 2.11 or newer", "the version is %s", version))
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return said(fault("NATS", "", "%v", err))
	}
	account, err := js.AccountInfo(ctx)
	if err != nil {
		return said(fault("NATS", "start NATS with JetStream (-js, or jetstream {} in its file), and allow it to this account", "version %s, and no JetStream for this account: %v", version, err))
	}
	all := said(ok("NATS", "version %s, answers in %s, %d streams", version, trip.Round(10*time.Microsecond), account.Streams))
	if trip > 50*time.Millisecond {
		all = said(warning("NATS", "put NATS nearer: each publish to a room with history waits for it", "it answers in %s", trip.Round(time.Millisecond)))
	}
	if most := account.Limits.MaxStore; most > 0 && int64(account.Store) > most*8/10 {
		all = append(all, warning("NATS account", "raise the account's limit of storage, or shorten histories", "%d of %d MiB of storage are taken: then nothing is published to rooms with history", account.Store>>20, most>>20))
	}
	if most := account.Limits.MaxStreams; most > 0 && account.Streams >= most {
		all = append(all, warning("NATS account", "raise the account's limit of streams", "%d of %d streams are there: rooms of another history can't have theirs", account.Streams, most))
	}
	return all
}

func newEnough(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return true // of a build of its own
	}
	return major > 2 || major == 2 && minor >= 11
}

// withoutURLs is an error without addresses in which there may be a password.
func withoutURLs(err error, urls []string) string {
	text := err.Error()
	for _, u := range urls {
		if parsed, err := url.Parse(u); err == nil && parsed.User != nil {
			text = strings.ReplaceAll(text, parsed.User.String()+"@", "")
		}
	}
	return text
}

// stores looks whether the other nodes' ports can be reached.
func stores(ctx context.Context, s *Subject) (all []Finding) {
	for _, address := range s.Join {
		var d net.Dialer
		begin := time.Now()
		nc, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			all = append(all, fault("store "+address, "look whether the node runs, and whether a firewall lets this port and the one above through between nodes", "%v", err))
			continue
		}
		nc.Close()
		f := ok("store "+address, "it can be reached, in %s", time.Since(begin).Round(10*time.Microsecond))
		f.Sent = "a connection, closed at once"
		all = append(all, f)
	}
	return all
}

// slowBackend is a time from which on an answer is slow: questions wait for 5 s.
const slowBackend = time.Second

// backend calls what the server would call, and tells it nothing.
func backend(ctx context.Context, s *Subject) (all []Finding) {
	for _, c := range s.Calls {
		all = append(all, s.call(ctx, c))
	}
	return all
}

func (s *Subject) call(ctx context.Context, c Call) Finding {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" {
		return fault(c.Setting, "give an address such as https://app.example.com/hubbub", "it is no URL")
	}
	method, body, sent := http.MethodOptions, []byte(nil), "OPTIONS, without a body"
	if !c.Signed {
		method, sent = http.MethodGet, "GET"
	} else if s.Send {
		method, body, sent = http.MethodPost, []byte(`{"type":"hubbub.events","node":"doctor","events":[]}`), "a signed POST with no events in it"
	}
	r, err := http.NewRequestWithContext(ctx, method, c.URL, bytes.NewReader(body))
	if err != nil {
		return fault(c.Setting, "give an address such as https://app.example.com/hubbub", "it is no URL")
	}
	if body != nil {
		secrets, err := webhook.ParseSecrets(s.Secrets)
		if err != nil {
			return fault(c.Setting, "--webhook-secret: see docs/webhooks.md", "%v", err)
		}
		r.Header = webhook.Sign(secrets, fmt.Sprintf("doctor-%d", time.Now().UnixNano()), time.Now(), body)
		r.Header.Set("Content-Type", "application/json")
	}
	f := s.judge(c, r, u.Host)
	f.Sent = sent + ", to " + u.Host
	return f
}

func (s *Subject) judge(c Call, r *http.Request, host string) Finding {
	begin := time.Now()
	answer, err := s.web().Do(r)
	if err != nil {
		return fault(c.Setting, "look whether it runs, its name and its certificate: curl -v "+r.URL.Scheme+"://"+host+"/", "%s can't be called: %v", host, plain(err))
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	took := time.Since(begin)
	status := answer.StatusCode
	switch {
	case status >= 500 && status != http.StatusNotImplemented:
		return fault(c.Setting, "look at the backend's log", "%s answers %s", host, answer.Status)
	case c.Signed && r.Method == http.MethodPost && (status == 400 || status == 401 || status == 403):
		return fault(c.Setting, "the backend must check with the same --webhook-secret, over the body as it came, and its clock must be right", "%s takes no signed request: %s", host, answer.Status)
	case r.Method != http.MethodOptions && status/100 != 2:
		return fault(c.Setting, "look at the path, and at the backend's log", "%s answers %s", host, answer.Status)
	case status == http.StatusNotFound:
		return warning(c.Setting, "look at the path", "%s answers 404 to OPTIONS", host)
	case took > slowBackend:
		return warning(c.Setting, "make it answer sooner: a client waits for each question", "%s answers after %s", host, took.Round(time.Millisecond))
	}
	tried := ""
	if r.Method == http.MethodOptions {
		tried = "; whether it takes the signature wasn't tried: --send-webhook does, with no events"
	}
	return ok(c.Setting, "%s answers in %s%s", host, took.Round(time.Millisecond), tried)
}
