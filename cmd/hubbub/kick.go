package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
)

// kickCmd ends a client's session, or takes it out of a room.
type kickCmd struct {
	Whom     string `arg:"" placeholder:"client:ID|user:NAME" help:"client:ID, or user:NAME for all clients of a user."`
	Room     string `env:"-" placeholder:"NAME" help:"Take it out of this room alone; it may join again."`
	Code     int    `default:"0" env:"-" placeholder:"CODE" help:"The code of the Close, 4000 to 4999; up to 4499 the client comes back (4500)."`
	Reason   string `env:"-" placeholder:"TEXT" help:"Its reason."`
	apiFlags `embed:""`
}

// Help is shown by hubbub kick --help.
func (kickCmd) Help() string {
	return "For example:\n\n    hubbub kick user:ann --reason \"be kind\"\n    hubbub kick client:0d9c… --room lobby\n\nWithout --room the connection is closed and its session ends: it can't be resumed."
}

// Run kicks.
func (c *kickCmd) Run() error {
	whom, err := parseTarget(c.Whom, "client", "user")
	if err != nil {
		return err
	}
	if c.Room != "" && (c.Code != 0 || c.Reason != "") {
		return usageError{errors.New("--code, --reason: they are of a Close, and with --room nothing is closed")}
	}
	ctx, cancel := untilSignal()
	defer cancel()
	if c.Room != "" {
		return c.fromRoom(ctx, whom)
	}
	query := url.Values{}
	if c.Code != 0 {
		query.Set("code", strconv.Itoa(c.Code))
	}
	if c.Reason != "" {
		query.Set("reason", c.Reason)
	}
	if _, err := c.call(ctx, "DELETE", whom.path(), query, nil, nil); err != nil {
		return err
	}
	c.done(1)
	return nil
}

// fromRoom takes a client, or all of a user, out of the room.
func (c *kickCmd) fromRoom(ctx context.Context, whom target) error {
	clients := []string{whom.name}
	if whom.kind == "user" {
		var of struct{ Clients []struct{ Client string } }
		if _, err := c.call(ctx, "GET", whom.path(), nil, nil, &of); err != nil {
			return err
		}
		clients = nil
		for _, one := range of.Clients {
			clients = append(clients, one.Client)
		}
	}
	kicked := 0
	for _, id := range clients {
		_, err := c.call(ctx, "DELETE", "/rooms/"+segment(c.Room)+"/members/"+segment(id), nil, nil, nil)
		gone := isCode(err, "not_member") || isCode(err, "unknown_client") // meanwhile, or another client of the user
		switch {
		case err == nil:
			kicked++
		case whom.kind == "client" || !gone:
			return err
		}
	}
	if kicked == 0 {
		return fmt.Errorf("no client of the user %s is in the room", printable(whom.name))
	}
	c.done(kicked)
	return nil
}

func (c *kickCmd) done(n int) {
	switch {
	case c.JSON:
		fmt.Println("{}")
	case c.Room != "":
		fmt.Printf("%d out of the room %s\n", n, printable(c.Room))
	default:
		fmt.Printf("%s is gone\n", printable(c.Whom))
	}
}
