package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"example.com/hubbub/client"
)

// dialTime is how long a command waits for its first connection. A test shortens it.
var dialTime = 30 * time.Second

// socketOf is the WebSocket of a server: its address with --base-path, or the very WebSocket, ws://host/live/ws.
func socketOf(address string) (string, error) {
	u, err := url.Parse(address)
	if err == nil && u.Host != "" && u.Fragment == "" {
		switch u.Scheme {
		case "http", "https":
			u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
			u.Path = strings.TrimRight(u.Path, "/") + "/ws"
			return u.String(), nil
		case "ws", "wss":
			if strings.Trim(u.Path, "/") == "" {
				u.Path = "/ws"
			}
			return u.String(), nil
		}
	}
	return "", usageError{fmt.Errorf("--url %q: an address is wanted such as ws://localhost:8080/ws or https://chat.example.com/live", address)}
}

// dial connects as a client does.
func dial(ctx context.Context, address, token string) (*client.Hub, error) {
	socket, err := socketOf(address)
	if err != nil {
		return nil, err
	}
	o := client.Options{}
	if token != "" {
		o.Token = func(context.Context) (string, error) { return token, nil }
	}
	hub, err := client.New(socket, o)
	if err != nil {
		return nil, usageError{err}
	}
	over := whileWaiting(func() string {
		if now := hub.State(); now.Err != nil {
			return fmt.Sprintf("no connection to %s yet (%v), waiting up to %g s for it", address, now.Err, dialTime.Seconds())
		}
		return fmt.Sprintf("no answer from %s yet, waiting up to %g s for the connection", address, dialTime.Seconds())
	})
	err = connected(ctx, hub)
	over()
	if err != nil {
		hub.Close()
		return nil, refusedBy(address, token, err)
	}
	return hub, nil
}

// quiet is how long a command waits before it says what for. A test shortens it.
var quiet = 3 * time.Second

// whileWaiting has the standard error say, once, what a command waits for, where it does so for longer than quiet. The caller
// calls over when it waits no more.
func whileWaiting(what func() string) (over func()) {
	to := os.Stderr
	timer := time.AfterFunc(quiet, func() { fmt.Fprintln(to, "hubbub:", printable(what())) })
	return func() { timer.Stop() }
}

// connected waits until a client is, or can't be. Where nobody listens it doesn't wait for somebody who may.
func connected(ctx context.Context, hub *client.Hub) error {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var last error
	for s := range hub.States(ctx) {
		if s.Err != nil {
			last = s.Err
		}
		switch {
		case s.State == client.Online:
			return nil
		case s.State == client.Closed:
			return last
		case errors.Is(s.Err, syscall.ECONNREFUSED):
			return s.Err
		}
	}
	if last == nil || errors.Is(last, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %g s", dialTime.Seconds())
	}
	return last
}

// refusedBy is why there is no connection, and what to set.
func refusedBy(address, token string, err error) error {
	var refused *client.HandshakeError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens at %s: start hubbub serve there, or say by --url or HUBBUB_URL where it is", address)
	case errors.As(err, &refused) && refused.Status == http.StatusUnauthorized && token == "":
		return fmt.Errorf("%w: show a token by --token or HUBBUB_TOKEN; hubbub token makes one", err)
	case refused != nil && refused.Status == http.StatusUnauthorized:
		return fmt.Errorf("%w: look at --token or HUBBUB_TOKEN; hubbub token makes one, with the server's key", refused)
	}
	return fmt.Errorf("%s: %w (--url or HUBBUB_URL says where the server is)", address, err)
}
