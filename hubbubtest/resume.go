package hubbubtest

import (
	"maps"
	"slices"
	"strings"
)

// Reconnect connects anew with the same name, Options and session, and names the rooms that the old connection was in,
// each with its Position: the server leaves the others, and brings what was missed. Where the session is gone, the
// rooms are joined; Welcome.Resumed says which it was, and Resumed what became of each room. If the old connection
// still stands, the server closes it with 4001.
func (c *Client) Reconnect() *Client {
	c.t.Helper()
	if c.Welcome.ResumeToken == "" && !c.Closed() {
		c.Drop() // this server has no resume
	}
	next := c.mustReturn(c.Welcome.ResumeToken)
	var err error
	if next.Resumed, err = next.resume(next.joined()); err != nil || next.Resumed.Type != "resumed" {
		c.t.Fatalf("hubbubtest: want resumed for %s, got %s, %v", c.Name, next.Resumed, err)
	}
	return next
}

// ReconnectAnew connects anew with the same name and Options, after the old connection has ended, as a client does that
// doesn't know how to resume: with another session, and in no room. The new Client knows how far the old one had come
// in each room: JoinSince with its Position goes on from there.
func (c *Client) ReconnectAnew() *Client {
	c.t.Helper()
	next, err := c.returnAnew()
	if err != nil {
		c.t.Fatalf("hubbubtest: connect %s again: %v", c.Name, err)
	}
	return next
}

func (c *Client) returnAnew() (*Client, error) {
	if !c.Closed() {
		c.Drop()
	}
	next, err := c.returnWith(c.options)
	if err != nil {
		return nil, err
	}
	next.mu.Lock()
	defer next.mu.Unlock()
	clear(next.rooms)
	return next, nil
}

func (c *Client) mustReturn(token string) *Client {
	c.t.Helper()
	o := c.options
	o.Token = token
	next, err := c.returnWith(o)
	if err != nil {
		c.t.Fatalf("hubbubtest: connect %s again: %v", c.Name, err)
	}
	return next
}

// returnWith connects with these Options, this once; the new Client knows what the old one knew.
func (c *Client) returnWith(o Options) (*Client, error) {
	next, err := c.server.ConnectWith(c.Name, o)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next.mu.Lock()
	defer next.mu.Unlock()
	next.options = c.options
	next.positions, next.rooms = maps.Clone(c.positions), maps.Clone(c.rooms)
	return next, nil
}

// joined is the rooms that the client is in, as far as it knows.
func (c *Client) joined() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.rooms))
}

// resume names rooms with the client's positions in them, null where it has none, and waits for the answer.
func (c *Client) resume(rooms []string) (Message, error) {
	named := map[string]any{}
	for _, room := range rooms {
		named[room] = nil
		if p := c.Position(room); p.Epoch != "" {
			named[room] = p
		}
	}
	return c.request(map[string]any{"msg_type": "resume", "rooms": named})
}

// target is the path of the handshake, with the token.
func (o *Options) target() string {
	switch {
	case o.Token == "":
		return o.Path
	case strings.Contains(o.Path, "?"):
		return o.Path + "&resume=" + o.Token
	}
	return o.Path + "?resume=" + o.Token
}
