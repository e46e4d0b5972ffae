package webhook

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/protocol"
)

// Question is a kind of what the backend is asked.
type Question uint8

// The kinds there are.
const (
	AskConnect Question = iota
	AskJoin
	AskPublish
	AskRequest
	questionKinds // how many there are
)

var questionNames = [questionKinds]string{AskConnect: "connect", AskJoin: "join", AskPublish: "publish", AskRequest: "request"}

// String is its name in --hook-events and in metrics.
func (k Question) String() string { return questionNames[k] }

// QuestionSet is some of the kinds.
type QuestionSet [questionKinds]bool

// ParseQuestions takes names of kinds. The error names each that is none, or stands there twice.
func ParseQuestions(names []string) (set QuestionSet, err error) {
	var wrong []string
	for _, name := range names {
		k := slices.Index(questionNames[:], name)
		if k < 0 || set[k] {
			wrong = append(wrong, fmt.Sprintf("%q", name))
			continue
		}
		set[k] = true
	}
	if wrong != nil {
		err = fmt.Errorf("%s: unknown, or there twice; use %s, each once", strings.Join(wrong, ", "), strings.Join(questionNames[:], ", "))
	}
	return set, err
}

// QuestionsConfig is what Questions need; all of it has to be set but TLS.
type QuestionsConfig struct {
	URL     string // one that CheckURL takes
	Node    string // what this server is called
	Kinds   QuestionSet
	Secrets Secrets
	Timeout time.Duration // of one question, from the dial to the end of the answer
	// AtOnce is how many may be under way, and as many of connect beside them: clients that nobody knows yet must not
	// take the places of those who are in.
	AtOnce     int
	MaxContent int         // bytes of a content in an answer
	MaxRooms   int         // that a client may be put into
	TLS        *tls.Config // nil: the system's roots
	Log        *slog.Logger
	Before     *Questions // whose counts go on; nil for none
}

// Questions asks the application's backend. Each question is one POST. Of use to any goroutine; its methods block until
// there is an answer or none will come. A nil one asks nothing.
type Questions struct {
	cfg      QuestionsConfig
	http     *http.Transport
	connects chan struct{} // a place for each that is under way
	others   chan struct{}
	counts   *questionCounts
}

// keptIdle is less than the 5 s after which Node's and Apache's servers close a connection that nothing comes on: what
// they close while a question is on its way would be lost.
const keptIdle = 4 * time.Second

// NewQuestions makes the client. It connects when there is something to ask; Close ends that.
func NewQuestions(cfg QuestionsConfig) *Questions {
	http1 := new(http.Protocols) // each question can end with its connection, and a dead connection takes one along
	http1.SetHTTP1(true)
	counts := &questionCounts{}
	if cfg.Before != nil {
		counts, cfg.Before = cfg.Before.counts, nil
	}
	return &Questions{
		cfg:      cfg,
		counts:   counts,
		connects: make(chan struct{}, cfg.AtOnce),
		others:   make(chan struct{}, cfg.AtOnce),
		http: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: cfg.Timeout}).DialContext,
			TLSHandshakeTimeout:    cfg.Timeout,
			TLSClientConfig:        cfg.TLS,
			Protocols:              http1,
			DisableCompression:     true,           // or a small answer could become a large one
			MaxConnsPerHost:        2 * cfg.AtOnce, // a dial goes on when nobody waits for it any more
			MaxIdleConnsPerHost:    2 * cfg.AtOnce,
			IdleConnTimeout:        keptIdle,
			MaxResponseHeaderBytes: 32 << 10,
		},
	}
}

// Asks says whether the backend is asked that kind of question.
func (q *Questions) Asks(k Question) bool { return q != nil && q.cfg.Kinds[k] }

// Close closes the connections that nothing is asked on. Never blocks.
func (q *Questions) Close() {
	if q != nil {
		q.http.CloseIdleConnections()
	}
}

// about is what a question begins with.
type about struct {
	Type string `json:"type"`
	Node string `json:"node"`
}

func (q *Questions) about(k Question) about { return about{"hubbub." + k.String(), q.cfg.Node} }

// Asker is the client on whose behalf the backend is asked.
type Asker struct {
	Client string `json:"client"`
	User   string `json:"user,omitempty"`
}

// Handshake is a client that wants in, as it is told to the backend. User is its name where a token has said that.
type Handshake struct {
	Asker
	Address string            `json:"address,omitempty"`
	Query   string            `json:"query,omitempty"`
	Headers map[string]string `json:"headers"`
}

// Connect asks whether a client may come in, and adds what is answered to who it is. A rejection is a *protocol.Error,
// whose code says whether the client may try again.
func (q *Questions) Connect(ctx context.Context, h Handshake, who *auth.Identity) error {
	h.User = who.User
	return q.ask(ctx, AskConnect, struct {
		about
		Handshake
	}{q.about(AskConnect), h}, func(raw []byte) error {
		more, err := answerToConnect(raw, q.cfg.MaxRooms, time.Now())
		if err != nil {
			return err
		}
		return who.Add(more)
	})
}

// Join asks whether a client may join a room. A refusal is a *protocol.Error.
func (q *Questions) Join(ctx context.Context, by Asker, room string) error {
	return q.ask(ctx, AskJoin, struct {
		about
		Asker
		Room string `json:"room"`
	}{q.about(AskJoin), by, room}, answerToJoin)
}

// Draft is what a client wants to publish: to a room, to a client, or with neither to everyone.
type Draft struct {
	Room     string          `json:"room,omitempty"`
	To       string          `json:"to,omitempty"`
	Everyone bool            `json:"everyone,omitempty"`
	Key      string          `json:"key,omitempty"`
	Content  json.RawMessage `json:"content"`
}

// Publish asks whether a client may publish, and gives what it publishes. A refusal is a *protocol.Error.
func (q *Questions) Publish(ctx context.Context, by Asker, d Draft) (content []byte, err error) {
	d.Everyone = d.Room == "" && d.To == ""
	content = d.Content
	err = q.ask(ctx, AskPublish, struct {
		about
		Asker
		Draft
	}{q.about(AskPublish), by, d}, func(raw []byte) error {
		changed, err := answerToPublish(raw, q.cfg.MaxContent)
		if changed != nil {
			content = changed
		}
		return err
	})
	return content, err
}

// Request has the backend answer what a client asks of it; content is nil for none. A refusal is a *protocol.Error.
func (q *Questions) Request(ctx context.Context, by Asker, method string, content []byte) (reply []byte, err error) {
	err = q.ask(ctx, AskRequest, struct {
		about
		Asker
		Method  string          `json:"method"`
		Content json.RawMessage `json:"content,omitempty"`
	}{q.about(AskRequest), by, method, content}, func(raw []byte) (err error) {
		reply, err = answerToRequest(raw, q.cfg.MaxContent)
		return err
	})
	return reply, err
}

// Unanswered is why there is no answer that counts. A client is told Tell, which it unwraps to; Why is for the operator.
type Unanswered struct {
	Tell *protocol.Error
	Why  error
}

func (u *Unanswered) Error() string { return u.Tell.Message + ": " + u.Why.Error() }

func (u *Unanswered) Unwrap() error { return u.Tell }
