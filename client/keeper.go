package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/coder/websocket"
)

const steady = 10 * time.Second // a connection that lasted so long was a good one

// keep keeps the client connected, until Close or until it may not come back.
func (h *Hub) keep() {
	defer close(h.done)
	var err error
	for tries := 0; ; tries++ {
		h.setStatus(Status{State: Connecting, Err: err})
		var lasted time.Duration
		lasted, err = h.connect()
		var final finalError
		if h.ctx.Err() != nil || errors.As(err, &final) {
			break
		}
		if lasted > steady {
			tries = 0
		}
		delay := h.delay(tries, err)
		h.setStatus(Status{State: Waiting, Err: err, Until: time.Now().Add(delay)})
		if !sleep(h.ctx, delay) {
			break
		}
	}
	if h.ctx.Err() != nil {
		err = nil // it was wanted
	}
	h.cancel()
	h.setStatus(Status{State: Closed, Err: err})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail()
	h.inbox.end()
	for _, r := range h.rooms {
		r.inbox.end()
	}
}

// delay is how long to wait before the next try.
func (h *Hub) delay(tries int, err error) time.Duration {
	var said patientError
	if errors.As(err, &said) {
		return said.after
	}
	most := h.opts.MaxDelay
	if tries < 16 {
		most = min(most, h.opts.MinDelay<<tries)
	}
	return most/2 + rand.N(most/2+1)
}

// sleep returns false when ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connect makes a connection and serves it until its end. The error says why it ended, and whether to come back.
func (h *Hub) connect() (lasted time.Duration, err error) {
	conn := newConnection(h)
	defer conn.cancel()
	ws, token, err := h.dial(conn)
	if err != nil {
		return 0, err
	}
	ws.SetReadLimit(h.opts.MaxMessageBytes)
	conn.ws = ws
	conn.hear()
	h.mu.Lock()
	h.conn = conn
	conn.later("welcome", h.opts.Timeout, func() {
		if !conn.welcomed {
			conn.giveUp(errors.New("the server's welcome did not come in time"))
		}
	})
	h.mu.Unlock()

	began := time.Now()
	err = conn.serve()

	h.mu.Lock()
	defer h.mu.Unlock()
	h.conn = nil
	conn.forgetTimers()
	h.hungUp(websocket.CloseStatus(err) == websocket.StatusMessageTooBig)
	return time.Since(began), h.ending(conn, token, err)
}

// ending is what the end of a connection means. h.mu is held.
func (h *Hub) ending(conn *connection, token string, err error) error {
	var code websocket.CloseError
	closed := &CloseError{}
	if errors.As(err, &code) {
		closed.Code, closed.Reason = int(code.Code), code.Reason
		err = closed
	}
	switch {
	case errors.Is(err, websocket.ErrMessageTooBig):
		return finalError{fmt.Errorf("the server sent a message of more than Options.MaxMessageBytes, %d bytes", h.opts.MaxMessageBytes)}
	case closed.Code == 4401:
		return h.refusedToken(token, closed)
	case !closed.comesBack():
		return finalError{closed}
	case conn.why != nil:
		err = conn.why
	case closed.Code == 0:
		err = fmt.Errorf("the connection broke: %w", err)
	}
	if conn.after >= 0 {
		return patientError{err, conn.after}
	}
	return err
}

// dial makes the handshake. token is the one that it showed.
func (h *Hub) dial(conn *connection) (ws *websocket.Conn, token string, err error) {
	ctx, cancel := context.WithTimeout(h.ctx, h.opts.Timeout)
	defer cancel()
	if token, err = h.token(ctx); err != nil {
		return nil, "", err
	}
	header := h.opts.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	ws, answer, err := websocket.Dial(ctx, h.address(), &websocket.DialOptions{
		HTTPClient: h.opts.HTTPClient, HTTPHeader: header,
		OnPingReceived: func(context.Context, []byte) bool { conn.hear(); return true },
	})
	if err == nil {
		return ws, token, nil
	}
	if answer == nil {
		return nil, "", fmt.Errorf("connect: %w", withoutAddress(err))
	}
	refused, after := refusal(answer)
	switch {
	case refused.Status == http.StatusUnauthorized:
		h.mu.Lock()
		defer h.mu.Unlock()
		return nil, "", h.refusedToken(token, refused)
	case after >= 0:
		return nil, "", patientError{refused, after}
	case refused.Status < 500 && refused.Status != http.StatusTooManyRequests && h.ClientID() == "":
		return nil, "", finalError{refused} // who was let in before may meet a proxy that is just being set up anew
	}
	return nil, "", refused
}

// address is the server's, with the session that is to be resumed.
func (h *Hub) address() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	u, _ := url.Parse(h.url) // New has
	if h.session.resume != "" {
		q := u.Query()
		q.Set("resume", h.session.resume)
		u.RawQuery = q.Encode()
	}
	return u.String()
}

// withoutAddress is an error without the address, which names the session's secret.
func withoutAddress(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
