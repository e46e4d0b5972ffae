package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"example.com/hubbub/client"
)

// dialTime is how long a command waits for its first connection.
const dialTime = 30 * time.Second

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
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	hub, err := client.Dial(ctx, socket, o)
	var refused *client.HandshakeError
	switch {
	case errors.As(err, &refused) && refused.Status == 401 && token == "":
		return nil, fmt.Errorf("%w: show a token by --token or HUBBUB_TOKEN; hubbub token makes one", err)
	case err != nil:
		return nil, fmt.Errorf("%w (--url or HUBBUB_URL says where the server is)", err)
	}
	return hub, nil
}
