package hubbubtest

import (
	"time"
)

// Join joins a room, and returns the answer, which must be joined.
func (c *Client) Join(room string) Message {
	c.t.Helper()
	return c.must("joined", map[string]any{"msg_type": "join_room", "room": room})
}

// JoinSince joins a room and asks for what came after a position. The answer may be joined, with Recovered or a Reason,
// or an error.
func (c *Client) JoinSince(room string, since Position) Message {
	c.t.Helper()
	return c.Request(map[string]any{"msg_type": "join_room", "room": room, "since": since})
}

// Leave leaves a room, and waits for the answer.
func (c *Client) Leave(room string) {
	c.t.Helper()
	c.must("left", map[string]any{"msg_type": "leave_room", "room": room})
}

// Publish sends a message to a room, and returns the acknowledgement.
func (c *Client) Publish(room string, content any) Message {
	c.t.Helper()
	return c.must("ack", map[string]any{"msg_type": "room_message", "room": room, "content": content})
}

// Chat sends a message to everyone, and waits for the acknowledgement.
func (c *Client) Chat(content any) {
	c.t.Helper()
	c.must("ack", map[string]any{"msg_type": "chat", "content": content})
}

// Direct sends a message to one client, and waits for the acknowledgement.
func (c *Client) Direct(to *Client, content any) {
	c.t.Helper()
	c.must("ack", map[string]any{"msg_type": "direct_message", "to": to.ID, "content": content})
}

// Ping asks the server for its time.
func (c *Client) Ping() time.Time {
	c.t.Helper()
	return time.UnixMilli(c.must("pong", map[string]any{"msg_type": "ping"}).Time)
}

func (c *Client) must(kind string, m map[string]any) Message {
	c.t.Helper()
	answer := c.Request(m)
	if answer.Type != kind {
		c.fatalf("want %s as the answer to %s, got %s", kind, text(m), answer)
	}
	return answer
}

// Receive takes the next message, of whatever kind, that isn't the answer to a Request.
func (c *Client) Receive() Message {
	c.t.Helper()
	return c.expect("a message", func(Message) bool { return true })
}

// ExpectMessage takes the next message, which must be a room's with that content.
func (c *Client) ExpectMessage(room string, content any) Message {
	c.t.Helper()
	return c.expect("the message "+text(content)+" in "+text(room), func(m Message) bool {
		return m.Type == "room_message" && m.Room == room && equal(m.Content, content)
	})
}

// ExpectChat takes the next message, which must be a chat with that content.
func (c *Client) ExpectChat(content any) Message {
	c.t.Helper()
	return c.expect("the chat "+text(content), func(m Message) bool { return m.Type == "chat" && equal(m.Content, content) })
}

// ExpectDirect takes the next message, which must be a direct one with that content.
func (c *Client) ExpectDirect(content any) Message {
	c.t.Helper()
	return c.expect("the direct message "+text(content), func(m Message) bool { return m.Type == "direct_message" && equal(m.Content, content) })
}

// ExpectError takes the next message, which must be an error with that code.
func (c *Client) ExpectError(code string) Message {
	c.t.Helper()
	return c.expect("the error "+code, func(m Message) bool { return m.Type == "error" && m.Code == code })
}

// ExpectGap takes the next message, which must be word of messages in that room that will not come.
func (c *Client) ExpectGap(room string) Message {
	c.t.Helper()
	return c.expect("a gap in "+text(room), func(m Message) bool { return m.Type == "gap" && m.Room == room })
}

// ExpectReconnect takes the next message, which must be word that the server is about to close.
func (c *Client) ExpectReconnect() Message {
	c.t.Helper()
	return c.expect("reconnect", func(m Message) bool { return m.Type == "reconnect" })
}

func (c *Client) expect(what string, is func(Message) bool) Message {
	c.t.Helper()
	m, err := c.take(func(Message) bool { return true })
	if err != nil {
		c.fatalf("want %s, but %v", what, err)
	}
	if !is(m) {
		c.fatalf("want %s, got %s", what, m)
	}
	return m
}

// ExpectNothing fails the test if a message comes, or the connection ends, within d; also if one came before and wasn't
// taken. In a bubble the shortest d will do: its clock moves only when nothing else can.
func (c *Client) ExpectNothing(d time.Duration) {
	c.t.Helper()
	limit := time.NewTimer(d)
	defer limit.Stop()
	for {
		c.mu.Lock()
		inbox, end := c.inbox, c.ending
		c.mu.Unlock()
		if len(inbox) > 0 {
			c.fatalf("want nothing for %s, got %s", d, inbox[0])
		}
		if end != nil {
			c.fatalf("want nothing for %s, got %s", d, end)
		}
		select {
		case <-c.news:
		case <-limit.C:
			return
		}
	}
}

// ExpectClosed waits until the connection has ended, with that code in the server's Close frame; 0 is an end without
// one. Messages that came before are still there to be taken.
func (c *Client) ExpectClosed(code int) {
	c.t.Helper()
	if !c.wait(Patience) {
		c.fatalf("want the end with code %d, but the connection still stands after %s", code, Patience)
	}
	if end := c.ending; end.code != code {
		c.fatalf("want the end with code %d, got %s", code, end)
	}
}

// settle waits until all that was acknowledged to anyone before has arrived here, unless the link is stalled. Two
// answers do: what was published is posted to the client's worker before it is acknowledged, and a turn of the worker
// that reads a ping also delivers all that was posted before.
func (c *Client) settle() {
	c.t.Helper()
	for range 2 {
		if c.Closed() || c.Link.stalled() {
			return
		}
		if _, err := c.request(map[string]any{"msg_type": "ping"}); err != nil && !c.Closed() {
			c.fatalf("want the answer to a ping, but %v", err)
		}
	}
}
