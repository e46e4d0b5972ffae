package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/client"
	"example.com/hubbub/internal/rawtest"
)

// guard lets tokens in that end at some time.
type guard struct {
	mu   sync.Mutex
	ends map[string]time.Time
}

func (g *guard) issue(token string, ends time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ends[token] = ends
}

func (g *guard) config() hubbub.Config {
	return hubbub.Config{Authenticate: func(_ context.Context, c *hubbub.Credentials) (*hubbub.Identity, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		ends, ok := g.ends[c.Token]
		if !ok || time.Now().After(ends) {
			return nil, hubbub.ErrTokenExpired
		}
		return &hubbub.Identity{User: "ann", Expires: ends}, nil
	}}
}

func TestATokenIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guard{ends: map[string]time.Time{}}
		w := newWorld(t, g.config())
		var asked atomic.Int64
		o := client.Options{Token: func(context.Context) (string, error) {
			token := fmt.Sprint("token", asked.Add(1))
			g.issue(token, time.Now().Add(5*time.Minute))
			return token, nil
		}}
		h := w.client(o)
		if h.User() != "ann" {
			t.Errorf("it is %q", h.User())
		}
		r := h.Room("lobby")
		join(t, r)
		time.Sleep(12 * time.Minute)
		rawtest.Publish(w.server, "lobby", 1)
		if got := takeText(t, r); got != "1" {
			t.Errorf("got %s", got)
		}
		if asked.Load() < 3 || asked.Load() > 6 {
			t.Errorf("%d tokens in 12 minutes, each good for 5", asked.Load())
		}
	})
}

func TestAnEndedTokenAsksForANewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guard{ends: map[string]time.Time{}}
		w := newWorld(t, g.config())
		current := "one"
		g.issue("one", time.Now().Add(time.Minute))
		h := w.client(client.Options{Token: func(context.Context) (string, error) { return current, nil }})
		waitFor(t, h, client.Online)
		for token := range g.ends {
			g.issue(token, time.Now()) // taken back
		}
		current = "two"
		g.issue("two", time.Now().Add(time.Hour))
		w.cut() // it comes back with the old one, and is told 401
		waitFor(t, h, client.Waiting)
		waitFor(t, h, client.Online)
		publish(t, h.Room("lobby"), 1)

		for token := range g.ends {
			g.issue(token, time.Now())
		}
		w.cut() // there is no newer one
		var refused *client.HandshakeError
		if s := waitFor(t, h, client.Closed); !errors.As(s.Err, &refused) || !strings.Contains(s.Err.Error(), "no newer token") {
			t.Errorf("it ended with %v", s.Err)
		}
		o := w.options()
		if _, err := client.Dial(within(t), address, o); !errors.As(err, &refused) || refused.Status != 401 {
			t.Errorf("without a token: %v", err)
		}
	})
}

// Rooms that the token names are joined by the server, before the client can say where it was.
func TestARoomOfTheTokenGoesOnFromWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubbub.Config{ResumeWindow: time.Second, Authenticate: func(context.Context, *hubbub.Credentials) (*hubbub.Identity, error) {
			return &hubbub.Identity{User: "ann", Rooms: []string{"inbox"}}, nil
		}})
		h := w.client(client.Options{MinDelay: 20 * time.Second})
		id, r := h.ClientID(), h.Room("inbox")
		rawtest.Publish(w.server, "inbox", 1)
		if got := takeText(t, r); got != "1" {
			t.Errorf("got %s", got)
		}
		w.cut()
		time.Sleep(5 * time.Second)
		rawtest.Publish(w.server, "inbox", 2)
		if got := takeText(t, r); got != "2" {
			t.Errorf("got %s", got)
		}
		if h.ClientID() == id {
			t.Error("the session was resumed: this test wants it gone")
		}
	})
}
