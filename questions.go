package hubbub

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/metrics"
	"example.com/hubbub/internal/webhook"
	"example.com/hubbub/internal/wire"
)

// Questions are what the application's backend is asked by HTTP, one POST for each; docs/questions.md has their bodies
// and the answers. Both the backend and the hook of the same kind must allow; the hook Connect finds the name that the
// backend gave in c.User, and can't give another. The zero value asks nothing.
type Questions struct {
	// URL is where they are posted to, http or https. A redirect is not followed.
	URL string
	// Events are what is asked: "connect", whether a client may come in, and who it is; "join" and "publish", whether it
	// may; "request", what a client itself asks of the backend.
	Events []string
	// Secrets sign each question by the Standard Webhooks specification, "whsec_" and base64 of 24 to 64 bytes. Several
	// give several signatures, so that the backend can change from one to the next.
	Secrets []string
	// Timeout bounds one question; what has no answer by then is refused. Default: 5 s, where there is an URL.
	Timeout time.Duration
	// AtOnce is how many questions may be under way, and as many of "connect" beside them; beyond it a client is told
	// "overloaded", or 503 at its handshake. Default: 256, where there is an URL.
	AtOnce int
}

func (q Questions) withDefaults() Questions {
	if q.URL == "" {
		return q
	}
	if q.Timeout == 0 {
		q.Timeout = 5 * time.Second
	}
	if q.AtOnce == 0 {
		q.AtOnce = 256
	}
	return q
}

// identify says that the backend says who clients are.
func (q Questions) identify() bool {
	return q.URL != "" && slices.Contains(q.Events, webhook.AskConnect.String())
}

// validateQuestions names the settings by their flags. An error repeats no secret, nor the address, of which a part may
// be one.
func (c Config) validateQuestions() (bad faults) {
	q := c.Questions
	if q.URL == "" {
		if len(q.Events) > 0 {
			bad.add("hook-events %s: it needs --hook-url (Questions.URL), where the backend answers", strings.Join(q.Events, ","))
		}
		if q.Timeout != 0 || q.AtOnce != 0 {
			bad.add("hook-url: it is empty, and Questions.Timeout or Questions.AtOnce is set")
		}
		return bad
	}
	if err := webhook.CheckURL(q.URL); err != nil {
		bad.add("hook-url: %w", err)
	}
	set, err := webhook.ParseQuestions(q.Events)
	switch {
	case err != nil:
		bad.add("hook-events %w", err)
	case set == webhook.QuestionSet{}:
		bad.add("hook-url: it needs --hook-events (Questions.Events), such as connect,join")
	}
	if w := c.Webhooks; w.URL == "" || !slices.Equal(q.Secrets, w.Secrets) { // else they are named there
		bad = append(bad, validateSecrets(q.Secrets)...)
	}
	if len(q.Secrets) == 0 {
		bad.add(`hook-url: it needs --webhook-secret (Questions.Secrets), by which the backend knows who asks; make one: echo "whsec_$(openssl rand -base64 32)"`)
	}
	if set[webhook.AskRequest] && c.Hooks.Request != nil {
		bad.add("hook-events request: the hook Request answers requests already; there can be one of them")
	}
	if q.Timeout < time.Millisecond || q.Timeout > time.Minute {
		bad.add("Questions.Timeout %s: not between 1ms and 1m", q.Timeout)
	}
	if q.AtOnce < 1 || q.AtOnce > 1<<16 {
		bad.add("Questions.AtOnce %d: not between 1 and %d", q.AtOnce, 1<<16)
	}
	return bad
}

// newQuestions is nil where nothing is asked; it counts on where before left off, if there were any. Validate has looked at
// all.
func (c *Config) newQuestions(node string, before *webhook.Questions) *webhook.Questions {
	q := c.Questions
	if q.URL == "" {
		return nil
	}
	kinds, _ := webhook.ParseQuestions(q.Events)
	secrets, _ := webhook.ParseSecrets(q.Secrets)
	return webhook.NewQuestions(webhook.QuestionsConfig{
		URL: q.URL, Node: node, Kinds: kinds, Secrets: secrets, Timeout: q.Timeout, AtOnce: q.AtOnce,
		MaxContent: c.MaxMessageBytes, MaxRooms: c.MaxRoomsPerClient, Log: c.Logger, Before: before,
	})
}

// askFirst puts the questions to the backend before the application's hooks of the same kind: both must allow.
func (set *settings) askFirst(h *hub.Hooks) {
	q := set.questions
	if q.Asks(webhook.AskJoin) {
		hook := h.Join
		h.Join = func(ctx context.Context, who hub.Identity, room string) error {
			if err := q.Join(ctx, asker(who), room); err != nil || hook == nil {
				return err
			}
			return hook(ctx, who, room)
		}
	}
	if q.Asks(webhook.AskRequest) { // Validate sees to it that there is no hook: who would answer?
		h.Request = func(ctx context.Context, who hub.Identity, method string, content []byte) ([]byte, error) {
			return q.Request(ctx, asker(who), method, content)
		}
	}
	if q.Asks(webhook.AskPublish) {
		hook := h.Publish
		h.Publish = func(ctx context.Context, who hub.Identity, d hub.Draft) ([]byte, error) {
			content, err := q.Publish(ctx, asker(who), webhook.Draft{Room: d.Room, To: d.To, Key: d.Key, Content: d.Content})
			if err != nil || hook == nil {
				return content, err
			}
			d.Content = content
			return hook(ctx, who, d)
		}
	}
}

// unasked refuses a client of which the backend has said nothing that counts.
func unasked(r *http.Request, why *Error) (loop.Handler, *refusal) {
	no := &refusal{
		status: http.StatusServiceUnavailable, detail: why.Message, code: why.Code.String(), close: wire.CloseTryLater, result: upgradeBackend,
	}
	if asksForClose(r) {
		return hub.Refusal{Code: no.close, Reason: no.detail}, no
	}
	return nil, no
}

func asker(who hub.Identity) webhook.Asker {
	return webhook.Asker{Client: who.ID.String(), User: who.User}
}

// toldHeaders are those of a handshake that the backend is told, in small letters: who the client says it is, and what
// it is.
var toldHeaders = []string{"accept-language", "authorization", "cookie", "origin", "sec-websocket-protocol", "user-agent"}

// handshake is a client that wants in, as the backend is told of it. The token of the session that it may want back is
// left out: that is good for a session, and nobody else's business.
func handshake(r *http.Request, id hub.ID) webhook.Handshake {
	query := r.URL.Query()
	query.Del("resume")
	h := webhook.Handshake{
		Asker:   webhook.Asker{Client: id.String()},
		Query:   query.Encode(),
		Headers: map[string]string{"host": r.Host},
	}
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		h.Address = from.Addr().String()
	}
	for _, name := range toldHeaders {
		separator := ", " // RFC 9110 5.3: lines of one name mean the same as one line
		if name == "cookie" {
			separator = "; " // RFC 6265 5.4
		}
		if lines := r.Header.Values(name); len(lines) > 0 {
			h.Headers[name] = strings.Join(lines, separator)
		}
	}
	return h
}

// questionsTo adds what became of the questions.
func (s *Server) questionsTo(snap *metrics.Snapshot) {
	snap.Questions, snap.QuestionTimes = map[string]map[string]int64{}, map[string]metrics.Histogram{}
	for _, c := range s.cfg().questions.Counts() {
		kind := c.Question.String()
		times := metrics.Histogram{Counts: c.Times, Sum: c.Sum.Seconds()}
		for _, most := range webhook.QuestionBounds {
			times.Bounds = append(times.Bounds, most.Seconds())
		}
		snap.Questions[kind], snap.QuestionTimes[kind] = c.Results, times
	}
}
