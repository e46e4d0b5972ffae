package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// tokens are what is known of the client's tokens; guarded by Hub.mu but for asking.
type tokens struct {
	asking  sync.Mutex // one asks at a time; taken before Hub.mu
	current string     // "" when a new one is wanted
	refused string     // that a newer one must take the place of
	why     error      // what the server said of it
}

// margin is how long before its end a token is renewed.
const margin = 30 * time.Second

// token is the one to connect with.
func (h *Hub) token(ctx context.Context) (string, error) {
	h.mu.Lock()
	current, ends := h.tokens.current, h.session.expires
	if h.session.clockKnown && !ends.IsZero() && time.Until(ends) < h.session.skew+margin {
		current = ""
	}
	h.mu.Unlock()
	if current != "" || h.opts.Token == nil {
		return current, nil
	}
	return h.newToken(ctx)
}

// newToken asks for one.
func (h *Hub) newToken(ctx context.Context) (string, error) {
	h.tokens.asking.Lock()
	defer h.tokens.asking.Unlock()
	token, err := h.opts.Token(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil:
		return "", fmt.Errorf("no token: %w", err)
	case token != "" && token == h.tokens.refused:
		return "", finalError{fmt.Errorf("%w; and Options.Token has no newer token", h.tokens.why)}
	}
	h.tokens.current = token
	return token, nil
}

// refusedToken is what it means that the server wants another token. h.mu is held.
func (h *Hub) refusedToken(token string, why error) error {
	if h.opts.Token == nil {
		return finalError{why}
	}
	h.tokens.current, h.tokens.refused, h.tokens.why = "", token, why
	return why
}

// refreshAt is when the token should be renewed, by this machine's clock; zero: never. h.mu is held.
func (h *Hub) refreshAt() time.Time {
	if h.session.expires.IsZero() || h.opts.Token == nil {
		return time.Time{}
	}
	ends := h.session.expires.Add(-h.session.skew)
	return ends.Add(-min(margin, time.Until(ends)/2))
}

// refresh renews the token of a connection before its end, again and again, until ctx ends. When that is is known only
// with the server's clock.
func (h *Hub) refresh(ctx context.Context, conn *connection) {
	news := conn.clock
	var last time.Time // when it was tried
	for tries := 0; ctx.Err() == nil; {
		h.mu.Lock()
		at, known := h.refreshAt(), h.session.clockKnown
		h.mu.Unlock()
		if at.IsZero() {
			return
		}
		if !last.IsZero() { // the end may be near, and the server have said no
			at = later(at, last.Add(time.Second<<min(tries, 5)))
		}
		var due <-chan time.Time
		if known {
			due = time.After(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return
		case <-news: // it is known, or known better
			news = nil
			continue
		case <-due:
		}
		last = time.Now()
		tries++
		token, err := h.newToken(ctx)
		if err != nil {
			h.opts.Logger.Debug("hubbub client: no new token", "err", err)
			continue // the connection may live until the token's end, and a try from then on is the keeper's
		}
		if h.sendToken(ctx, conn, token) {
			tries = 0
		}
	}
}

// sendToken has a token take the place of the connection's, and says whether it does.
func (h *Hub) sendToken(ctx context.Context, conn *connection, token string) bool {
	taken := make(chan bool, 1)
	h.mu.Lock()
	if h.conn == conn {
		h.beforeQueue(&call{message: outgoing{Type: "refresh", Token: token}, answered: func(m incoming, err error) []delivery {
			var no *Error
			switch {
			case err == nil:
				h.session.expires = milliseconds(m.ExpiresAt)
			case errors.As(err, &no) && no.Code == "forbidden":
				conn.giveUp(errors.New("the token is another user's"))
			case errors.As(err, &no) && no.Code == "unavailable":
				h.session.expires = time.Time{} // where tokens are read by nobody, nothing is to be renewed
			}
			taken <- err == nil
			return nil
		}})
	}
	h.mu.Unlock()
	select {
	case is := <-taken:
		return is
	case <-ctx.Done():
		return false
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// milliseconds is a time of the protocol; 0 is none.
func milliseconds(ms int64) time.Time {
	if ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
