package webhook

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"example.com/hubbub/internal/protocol"
)

// CheckURL says why a URL can't be posted to, and repeats nothing of it.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("it is no URL: write https://HOST/PATH")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("it doesn't begin with http:// or https://")
	case u.Hostname() == "":
		return errors.New("it has no host")
	case u.Port() != "" && !isPort(u.Port()):
		return errors.New("its port isn't between 1 and 65535")
	case u.User != nil:
		return errors.New("it has a user's name in it: the signature says who posts")
	case u.Fragment != "":
		return errors.New("it has a fragment, which is never sent")
	}
	return nil
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// result is what became of a question.
type result uint8

const (
	allowed     result = iota
	refused            // by the backend
	unavailable        // down, too slow, or it says that it can't just now
	notClear           // it said what can't be understood
	overloaded         // not asked: so many were under way
	abandoned          // the client is gone
	results            // how many there are
)

var resultNames = [results]string{
	allowed: "allowed", refused: "refused", unavailable: "unavailable", notClear: "invalid", overloaded: "overloaded", abandoned: "abandoned",
}

// What a client is told where there is no answer that counts.
var told = [results]*protocol.Error{
	unavailable: {Code: protocol.Unavailable, Message: "the application's backend can't be asked just now"},
	notClear:    {Code: protocol.Internal, Message: "internal error"},
	overloaded:  {Code: protocol.Overloaded, Message: "too many questions wait for the application's backend"},
	abandoned:   {Code: protocol.Unavailable, Message: "nobody waits for the answer any more"},
}

// ask puts one question. take understands the answer: a *protocol.Error of its is the backend's refusal, any other
// error says why it can't be understood.
func (q *Questions) ask(ctx context.Context, k Question, body any, take func(raw []byte) error) error {
	places := q.others
	if k == AskConnect {
		places = q.connects
	}
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	default:
		return q.unanswered(k, overloaded, fmt.Errorf("%d of them are under way already", cap(places)))
	}
	began := time.Now()
	what, err := q.try(ctx, k, body, take)
	q.counts.took(k, time.Since(began))
	if told[what] != nil {
		return q.unanswered(k, what, err)
	}
	q.counts.ended[k][what].Add(1)
	return err
}

// unanswered counts and logs a question without an answer that counts.
func (q *Questions) unanswered(k Question, what result, why error) error {
	q.counts.ended[k][what].Add(1)
	level := slog.LevelWarn
	switch what {
	case notClear:
		level = slog.LevelError
	case abandoned:
		level = slog.LevelDebug
	}
	q.counts.lines[k].Log(q.cfg.Log, level, "a question to the backend has no answer that counts", "question", k.String(), "result", resultNames[what], "why", why)
	return &Unanswered{told[what], why}
}

// try posts the question and has the answer understood.
func (q *Questions) try(ctx context.Context, k Question, body any, take func(raw []byte) error) (result, error) {
	timed, cancel := context.WithTimeout(ctx, q.cfg.Timeout)
	defer cancel()
	status, header, raw, err := q.post(timed, k, body)
	switch {
	case ctx.Err() != nil:
		return abandoned, ctx.Err()
	case timed.Err() != nil:
		return unavailable, fmt.Errorf("no answer within %s", q.cfg.Timeout)
	case err != nil:
		return unavailable, err
	case status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout:
		return unavailable, fmt.Errorf("it answers with the status %d", status)
	case status != http.StatusOK:
		return notClear, fmt.Errorf("it answers with the status %d%s, not 200", status, redirection(header))
	case len(raw) > q.maxAnswer(k):
		return notClear, fmt.Errorf("the answer has more than %d bytes", q.maxAnswer(k))
	}
	if kind, _, err := mime.ParseMediaType(header.Get("Content-Type")); err != nil || kind != "application/json" {
		return notClear, fmt.Errorf("the answer's Content-Type is %s, not application/json", protocol.Quote([]byte(header.Get("Content-Type"))))
	}
	err = take(raw)
	var no *protocol.Error
	switch {
	case err == nil:
		return allowed, nil
	case errors.As(err, &no):
		return refused, no
	}
	return notClear, err
}

func redirection(header http.Header) string {
	if header.Get("Location") == "" {
		return ""
	}
	return " and a Location, which is not followed"
}

// maxAnswer bounds an answer, in bytes.
func (q *Questions) maxAnswer(k Question) int {
	const rest = 64 << 10 // what a connect may say, and white space
	if k == AskPublish || k == AskRequest {
		return q.cfg.MaxContent + rest
	}
	return rest
}

// post sends one question and reads the answer, whatever it is: one that has been read to its end leaves the connection
// to the next question. Of one that is too long it reads a byte too many.
func (q *Questions) post(ctx context.Context, k Question, body any) (status int, header http.Header, answer []byte, err error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // a content stays as the client wrote it
	if err := e.Encode(body); err != nil {
		return 0, nil, nil, err
	}
	question := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, q.cfg.URL, bytes.NewReader(question))
	if err != nil {
		return 0, nil, nil, err
	}
	r.Header = Sign(q.cfg.Secrets, "msg_"+rand.Text(), time.Now(), question)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "Hubbub")
	if k != AskRequest {
		// It isn't sent, and says that the question may go to the backend once more, with the same webhook-id, where a
		// kept connection turns out to be closed. What a request makes the backend do, it might do twice.
		r.Header["Idempotency-Key"] = []string{}
	}
	// A RoundTrip follows no redirect and keeps no cookies, and its errors don't have the URL in them.
	answered, err := q.http.RoundTrip(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer answered.Body.Close()
	if answered.StatusCode == http.StatusSwitchingProtocols {
		return answered.StatusCode, answered.Header, nil, nil // no ctx ends what is no HTTP any more
	}
	answer, err = io.ReadAll(io.LimitReader(answered.Body, int64(q.maxAnswer(k))+1))
	return answered.StatusCode, answered.Header, answer, err
}
