package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"example.com/hubbub/client"
)

// subCmd joins rooms as a client, and prints what comes.
type subCmd struct {
	Rooms []string `arg:"" name:"room" help:"The rooms."`
	Since string   `env:"-" placeholder:"EPOCH:OFFSET" help:"Also what came after this, of one room; pub and --json print where a message is."`
	JSON  bool     `name:"json" env:"-" help:"Print a JSON object a line."`
	Token string   `env:"HUBBUB_TOKEN" placeholder:"TOKEN" help:"Says who this client is. In the environment other users of the machine don't see it."`
	URL   string   `name:"url" default:"http://localhost:8080" env:"HUBBUB_URL" placeholder:"URL" help:"The server, with its --base-path, or its WebSocket, ws://localhost:8080/ws (${default})."`
}

// Help is shown by hubbub sub --help.
func (subCmd) Help() string {
	return `For example:

    hubbub sub lobby
    hubbub sub lobby kitchen --json
    hubbub sub lobby --since k3.1:17

It prints what comes, until Control-C. When the line breaks or the server starts anew it comes back, prints what it missed, or says on a line of its own that something may be missing. When the server closes the connection for good, as by hubbub kick, it says with which code and reason, and ends with 1.`
}

// Run prints until it is stopped; then that is no error.
func (c *subCmd) Run() error {
	since, err := c.since()
	if err != nil {
		return usageError{err}
	}
	ctx, cancel := untilSignal()
	defer cancel()
	err = c.run(ctx, since)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// since is where to begin, nil for now.
func (c *subCmd) since() (*client.Position, error) {
	if c.Since == "" {
		return nil, nil
	}
	epoch, offset, found := strings.Cut(c.Since, ":")
	if at := strings.LastIndexByte(c.Since, ':'); found {
		epoch, offset = c.Since[:at], c.Since[at+1:]
	}
	n, err := strconv.ParseUint(offset, 10, 53)
	switch {
	case epoch == "" || err != nil:
		return nil, fmt.Errorf("--since %q: write EPOCH:OFFSET, as pub prints it", c.Since)
	case len(c.Rooms) != 1:
		return nil, errors.New("--since: it is a place in one room, and there are several")
	}
	return &client.Position{Epoch: epoch, Offset: n}, nil
}

func (c *subCmd) run(ctx context.Context, since *client.Position) error {
	hub, err := dial(ctx, c.URL, c.Token)
	if err != nil {
		return err
	}
	defer hub.Close()
	var printing sync.Mutex // a line at a time
	var reading sync.WaitGroup
	defer reading.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	out := make(chan string, len(c.Rooms)) // of which room the server took this client
	for _, name := range c.Rooms {
		r := hub.Room(name)
		if err := r.JoinWith(ctx, client.JoinOptions{Since: since}); err != nil {
			return fmt.Errorf("join %s: %w", name, err)
		}
		reading.Go(func() {
			for e := range r.Events(ctx) {
				printing.Lock()
				c.print(e)
				printing.Unlock()
				if left, is := e.(client.Left); is {
					out <- fmt.Sprintf("%s: the server says that this client may not be in it (%s)", left.Room, printable(left.Reason))
					return
				}
			}
		})
	}
	go func() { // when all rooms are done
		reading.Wait()
		stop()
	}()
	for s := range hub.States(ctx) {
		if s.State == client.Closed {
			return s.Err
		}
	}
	// The rooms end with the client, and may have stopped States before it gave its last.
	if s := hub.State(); s.State == client.Closed && s.Err != nil {
		return s.Err
	}
	select {
	case why := <-out:
		return errors.New(why)
	default:
		return nil
	}
}

// subEvent is an event as --json has it.
type subEvent struct {
	Event    string          `json:"event"`
	Room     string          `json:"room"`
	From     string          `json:"from,omitempty"`
	User     string          `json:"user,omitempty"`
	Key      string          `json:"key,omitempty"`
	Time     int64           `json:"time,omitempty"`
	Epoch    string          `json:"epoch,omitempty"`
	Offset   uint64          `json:"offset,omitempty"`
	ToOffset uint64          `json:"to_offset,omitempty"`
	Count    int             `json:"count,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Content  json.RawMessage `json:"content,omitempty"`
}

// print shows one event on a line.
func (c *subCmd) print(e client.Event) {
	var s subEvent
	line := ""
	switch e := e.(type) {
	case client.Message:
		s = subEvent{
			Event: "message", Room: e.Room, From: e.From, User: e.User, Key: e.Key, Time: e.Time.UnixMilli(),
			Epoch: e.Position.Epoch, Offset: e.Position.Offset, Content: e.Content,
		}
		who := e.User
		if who == "" {
			who = e.From
		}
		line = fmt.Sprintf("%s  %s  %s  %s", e.Time.Format("15:04:05.000"), printable(e.Room), printable(who), printable(string(e.Content)))
	case client.Gap:
		s = subEvent{Event: "gap", Room: e.Room, Count: e.Count, Reason: e.Reason, Offset: e.From, ToOffset: e.To}
		count := "some"
		if e.Count > 0 { // else the server doesn't know how many
			count = strconv.Itoa(e.Count)
		}
		line = fmt.Sprintf("... %s: %s messages will not come (%s)", printable(e.Room), count, printable(e.Reason))
	case client.Lost:
		s = subEvent{Event: "lost", Room: e.Room, Reason: e.Reason, Epoch: e.Position.Epoch, Offset: e.Position.Offset}
		line = fmt.Sprintf("... %s: messages may be missing here (%s)", printable(e.Room), printable(e.Reason))
	case client.Deleted:
		s = subEvent{Event: "deleted", Room: e.Room, Offset: e.Offset, ToOffset: e.ToOffset}
		line = fmt.Sprintf("... %s: the message at %d was taken back", printable(e.Room), e.Offset)
		if e.ToOffset > 0 {
			line = fmt.Sprintf("... %s: all messages up to %d were taken back", printable(e.Room), e.ToOffset)
		}
	case client.Left:
		s = subEvent{Event: "left", Room: e.Room, Reason: e.Reason}
		line = fmt.Sprintf("... %s: the server has taken this client out (%s)", printable(e.Room), printable(e.Reason))
	default:
		return
	}
	if c.JSON {
		b, _ := json.Marshal(s) // its content is JSON
		line = string(b)
	}
	fmt.Println(line)
}
