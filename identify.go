package hubbub

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/front"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// admits gives the handler for a client's connection, or what it gets instead. known is who it is by what it has shown.
type admits func(set *settings, r *http.Request, known auth.Identity) (loop.Handler, *refusal)

// startIdentifying is the part of New that is about who clients are.
func (s *Server) startIdentifying(set *settings) (err error) {
	if set.key, err = set.JWT.readKey(); err != nil {
		return err
	}
	set.tokens = set.verifier(set.key)
	if s.cfg().openToAll() {
		s.log.Info("the server is open to all: whoever connects is let in, and nobody has a name; set --jwt-key, --jwt-jwks, or --hook-url with the event connect, to know who clients are")
	}
	return nil
}

// openToAll says whether nobody knows who a client is.
func (c *Config) openToAll() bool {
	return !c.identifies() && !c.Questions.identify() && c.Hooks.Connect == nil
}

// stopIdentifying lets those go who wait for a provider's keys.
func (s *Server) stopIdentifying() {
	for _, v := range []*auth.Verifier{s.cfg().tokens, s.reloads.tokens} {
		if v != nil {
			v.Close()
		}
	}
}

// letIn finds out who asks and has it admitted. Without a handler it is refused; with a refusal too it
// is told so by a Close.
func (s *Server) letIn(set *settings, r *http.Request, admit admits) (loop.Handler, *refusal) {
	known, err := s.identify(set, r)
	if err == nil {
		return admit(set, r, known)
	}
	no := s.unidentified(err)
	if asksForClose(r) {
		return hub.Refusal{Code: no.close, Reason: no.detail}, no
	}
	return nil, no
}

// asksForClose says whether the client is a browser's, to which a status tells nothing.
func asksForClose(r *http.Request) bool { return first(inQuery(r, "errors")) == "close" }

var (
	errNoToken   = errors.New("there is no token: it goes into the query as token, the header Authorization: Bearer, or the subprotocols hubbub, token.JWT")
	errTwoTokens = errors.New("there are two tokens, and they differ")
	// errNoAnswer is in the error where the application didn't say who a client is.
	errNoAnswer = errors.New("it can't be said now who the client is")
)

// identify says who asks for a connection: nobody in particular, where that is allowed. On the goroutine of the
// handshake, which may wait.
func (s *Server) identify(set *settings, r *http.Request) (auth.Identity, error) {
	if !set.identifies() {
		return auth.Identity{}, nil
	}
	token, err := set.tokenOf(r)
	if err != nil {
		return auth.Identity{}, err
	}
	who, err := s.verify(r.Context(), set, &Credentials{Token: token, Request: r}, func() { front.Admit(r) })
	if errors.Is(err, errNoToken) && set.Anonymous {
		return auth.Identity{}, nil
	}
	return who, err
}

// verify says who shows these credentials. It may wait for a provider's keys, or as long as the application likes up to
// Config.HookTimeout, and calls waits before. Any goroutine but a worker's.
func (s *Server) verify(ctx context.Context, set *settings, c *Credentials, waits func()) (who auth.Identity, err error) {
	switch {
	case set.Authenticate != nil:
		waits()
		who, err = s.authenticate(ctx, set, c)
	case c.Token == "":
		err = errNoToken
	default:
		who, err = set.tokens.Verify(ctx, c.Token, waits)
	}
	if err == nil {
		err = set.checkIdentity(&who)
	}
	if err != nil {
		return auth.Identity{}, err
	}
	return who, nil
}

// authenticate asks the application.
func (s *Server) authenticate(ctx context.Context, set *settings, c *Credentials) (who auth.Identity, err error) {
	ctx, cancel := context.WithTimeout(ctx, set.HookTimeout)
	defer cancel()
	select {
	case s.authing <- struct{}{}:
		defer func() { <-s.authing }()
	case <-ctx.Done():
		return who, errNoAnswer
	}
	defer func() {
		if p := recover(); p != nil {
			s.loop.Panics.Add(1)
			s.log.Error("panic in Authenticate", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			who, err = auth.Identity{}, errNoAnswer
		}
	}()
	if c.Request != nil {
		c.Request = c.Request.WithContext(ctx)
	}
	loop.WakeMonitor() // as for every hook
	id, err := set.Authenticate(ctx, c)
	var told *Error
	switch {
	case err == nil && id == nil:
		return who, errNoToken
	case err == nil:
		return id.known()
	case errors.Is(err, ErrTokenExpired):
		return who, auth.ErrExpired
	case errors.As(err, &told) && told != nil:
		return who, told
	}
	s.unsure.Log(s.log, slog.LevelError, "Authenticate failed", "err", err)
	return who, errNoAnswer
}

// unidentified is how a client is refused that isn't known because of err.
func (s *Server) unidentified(err error) *refusal {
	no := &refusal{
		status: http.StatusUnauthorized, detail: err.Error(), code: "unauthorized", close: protocol.CloseForbidden,
		header: [2]string{"WWW-Authenticate", `Bearer realm="hubbub", error="invalid_token"`}, result: upgradeUnauthorized,
	}
	var told *Error
	switch {
	case errors.Is(err, errNoToken):
		no.close, no.header[1] = protocol.CloseTokenExpired, `Bearer realm="hubbub"` // RFC 6750 3.1: no error where nothing was shown
	case errors.Is(err, auth.ErrExpired):
		no.close = protocol.CloseTokenExpired
	case errors.As(err, &told):
		no.detail = told.Message
	}
	if isUnsure(err) {
		no.status, no.code, no.close = http.StatusServiceUnavailable, protocol.Unavailable.String(), wire.CloseTryLater
		no.header, no.result = [2]string{}, upgradeUnidentified
	}
	return no
}

// isUnsure says of an error whether the same credentials may be good later.
func isUnsure(err error) bool {
	var told *Error
	return errors.Is(err, auth.ErrUnavailable) || errors.Is(err, errNoAnswer) || errors.As(err, &told) && told.Code.Retry()
}

// refresh says who shows a new token; it must be the same user as before. The error is for the client. It may take as
// long as verify.
func (s *Server) refresh(ctx context.Context, who hub.Identity, token string) (auth.Identity, error) {
	refuse := func(code Code, message string) (auth.Identity, error) {
		return auth.Identity{}, &Error{Code: code, Message: message}
	}
	const another = "the token is another user's"
	set := s.cfg()
	switch {
	case !set.identifies():
		return refuse(Unavailable, "the server takes no tokens")
	case set.tokens != nil && who.User == "": // every token has a name, so a guest's need not be looked at, nor waited for
		return refuse(Forbidden, another)
	}
	known, err := s.verify(ctx, set, &Credentials{Token: token}, func() {})
	var told *Error
	switch {
	case errors.As(err, &told):
		return auth.Identity{}, told
	case isUnsure(err):
		return refuse(Unavailable, err.Error())
	case err != nil:
		return refuse(Forbidden, err.Error())
	case known.User != who.User:
		return refuse(Forbidden, another)
	}
	return known, nil
}

// inQuery are the values of one name in a request's query. URL.Query makes a map of all, for each who asks.
func inQuery(r *http.Request, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
			key, value, _ := strings.Cut(part, "=")
			if key, err := url.QueryUnescape(key); err != nil || key != name {
				continue
			}
			if text, err := url.QueryUnescape(value); err == nil {
				value = text
			}
			if !yield(value) { // also what is escaped badly: it was given, and is nothing that is good
				return
			}
		}
	}
}

// first is the first of them, "" where there is none.
func first(of iter.Seq[string]) string {
	for v := range of {
		return v
	}
	return ""
}

const (
	// ownSubprotocol is chosen of the two that a browser offers to show a token: it would close the connection if none
	// were.
	ownSubprotocol   = "hubbub"
	tokenSubprotocol = "token."
)

// offered are the subprotocols that the client offers.
func offered(r *http.Request) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range r.Header["Sec-Websocket-Protocol"] {
			for offer := range strings.SplitSeq(line, ",") {
				if !yield(strings.TrimSpace(offer)) {
					return
				}
			}
		}
	}
}

// offeredTokens are those among them.
func offeredTokens(r *http.Request) (tokens []string) {
	for offer := range offered(r) {
		if token, ok := strings.CutPrefix(offer, tokenSubprotocol); ok {
			tokens = append(tokens, token)
		}
	}
	return tokens
}

// tokenOf finds the token that a handshake carries, "" for none.
func (c *Config) tokenOf(r *http.Request) (token string, err error) {
	take := func(t string) {
		if t != "" && token != "" && t != token {
			err = errTwoTokens
		}
		if t != "" {
			token = t
		}
	}
	for t := range inQuery(r, "token") {
		take(t)
	}
	for _, line := range r.Header["Authorization"] {
		if scheme, t, _ := strings.Cut(line, " "); strings.EqualFold(scheme, "Bearer") {
			take(strings.TrimSpace(t))
		}
	}
	if name := c.JWT.Cookie; name != "" {
		for _, of := range r.CookiesNamed(name) {
			take(of.Value)
		}
	}
	for _, t := range offeredTokens(r) {
		take(t)
	}
	return token, err
}
