package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"example.com/hubbub/client"
)

// pubCmd publishes one message, or one for each line of the standard input.
type pubCmd struct {
	First      *string `arg:"" optional:"" name:"room" help:"The room, unless a flag says to whom."`
	Second     *string `arg:"" optional:"" name:"content" help:"JSON as it is, all else as a text; - is the standard input. One that begins with a dash stands behind --."`
	Client     string  `env:"-" placeholder:"ID" help:"To one client, in place of a room."`
	User       string  `env:"-" placeholder:"NAME" help:"To all clients of a user."`
	Everyone   bool    `env:"-" help:"To all clients."`
	From       string  `env:"-" placeholder:"NAME" help:"Who the message is from (server)."`
	MessageKey string  `env:"-" placeholder:"KEY" help:"What it is about, for rooms that keep the latest of each key."`
	PublishID  string  `name:"publish-id" env:"-" placeholder:"ID" help:"The same one again within --dedup-window is published once."`
	Text       bool    `env:"-" help:"Send a text also where the content is JSON."`
	Lines      bool    `env:"-" help:"With -, a message for each line, as it comes; empty lines are none."`
	WS         bool    `name:"ws" env:"-" help:"Publish as a client over a WebSocket, in place of the API: no key is needed. A room in which only members may publish is joined for it."`
	Token      string  `env:"HUBBUB_TOKEN" placeholder:"TOKEN" help:"With --ws: says who this client is."`
	apiFlags   `embed:""`
	hub        *client.Hub
}

// Help is shown by hubbub pub --help.
func (pubCmd) Help() string {
	return `For example:

    hubbub pub lobby hello
    hubbub pub lobby '{"temperature":21.5}' --message-key kitchen
    hubbub pub --user ann "your order is on its way"
    tail -f app.log | hubbub pub log - --lines --text
    hubbub pub --ws lobby hello
    hubbub pub lobby -- -1

It prints where the message is, EPOCH:OFFSET, in a room that keeps its messages. Where it is interrupted, or has no answer, it ends with 1 and says whether the message may have been published all the same; with --lines also how many lines were acknowledged before.`
}

// explained is an error of the command line of pub with what to do about it; any other is as it was.
func explained(err error) error {
	var parse *kong.ParseError
	if !errors.As(err, &parse) || parse.Context.Selected() == nil || parse.Context.Selected().Name != "pub" {
		return err
	}
	switch text := err.Error(); {
	case strings.HasPrefix(text, "unknown flag "):
		return fmt.Errorf("%w; a content that begins with a dash stands behind --: hubbub pub lobby -- -1", err)
	case strings.HasPrefix(text, "unexpected argument "):
		return fmt.Errorf("%w: the content is one argument: put it in quotes", err)
	}
	return err
}

// publication is the body of POST /publish.
type publication struct {
	Room      string          `json:"room,omitempty"`
	Client    string          `json:"client,omitempty"`
	User      string          `json:"user,omitempty"`
	Everyone  bool            `json:"everyone,omitempty"`
	From      string          `json:"from,omitempty"`
	Key       string          `json:"key,omitempty"`
	PublishID string          `json:"publish_id,omitempty"`
	Content   json.RawMessage `json:"content"`
}

// published is its answer.
type published struct {
	Epoch     string `json:"epoch"`
	Offset    uint64 `json:"offset"`
	Duplicate bool   `json:"duplicate"`
}

// maxStdin is how much of the standard input may be one message: far more than a server takes.
const maxStdin = 64 << 20

// Run publishes.
func (c *pubCmd) Run() error {
	p, content, err := c.publication()
	if err != nil {
		return usageError{err}
	}
	ctx, cancel := untilSignal()
	defer cancel()
	if c.WS {
		if c.hub, err = dial(ctx, c.URL, c.Token); ctx.Err() != nil {
			err = errors.New("interrupted before the connection stood: nothing was published")
		}
		if err != nil {
			return err
		}
		defer c.hub.Close()
	}
	switch {
	case c.Lines:
		return c.publishLines(ctx, p, os.Stdin)
	case content == "-":
		if content, err = readMessage(ctx, os.Stdin); err != nil {
			return err
		}
	}
	return c.publish(ctx, p, content)
}

// readMessage gives an input as one message, without the end of its last line. It is read on a goroutine of its own, so that a
// signal is heard meanwhile; the goroutine ends with the input.
func readMessage(ctx context.Context, from io.Reader) (string, error) {
	var b []byte
	read := make(chan error, 1)
	go func() {
		var err error
		b, err = io.ReadAll(io.LimitReader(from, maxStdin+1))
		read <- err
	}()
	select {
	case <-ctx.Done():
		return "", errors.New("interrupted: nothing was published")
	case err := <-read:
		switch {
		case err != nil:
			return "", fmt.Errorf("read the standard input: %w", err)
		case len(b) > maxStdin:
			return "", errors.New("the standard input has more than 64 MiB")
		}
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if text == "" {
		return "", errors.New("the standard input is empty: nothing was published")
	}
	return text, nil
}

// publication is all but the content, and that as it was given.
func (c *pubCmd) publication() (p publication, content string, err error) {
	var args []string
	for _, a := range []*string{c.First, c.Second} {
		if a != nil {
			args = append(args, *a)
		}
	}
	given := 0
	for _, is := range []bool{c.Client != "", c.User != "", c.Everyone} {
		if is {
			given++
		}
	}
	switch {
	case given > 1:
		return p, "", errors.New("--client, --user and --everyone exclude each other")
	case given == 0 && len(args) > 0:
		p.Room, args = args[0], args[1:]
		if p.Room == "" {
			return p, "", errors.New("the room is empty")
		}
	}
	switch {
	case len(args) == 0 && given == 0:
		return p, "", errors.New("a room and a content are wanted: hubbub pub lobby hello")
	case len(args) == 0:
		return p, "", errors.New("a content is wanted: hubbub pub --everyone hello")
	case len(args) > 1:
		return p, "", fmt.Errorf("%q: with --client, --user or --everyone there is no room, and the content is one argument: put it in quotes", args[1])
	case c.Lines && args[0] != "-":
		return p, "", errors.New("--lines: it needs - as the content, the standard input")
	case c.Lines && c.PublishID != "":
		return p, "", errors.New("--publish-id: with --lines all lines would be one message")
	case c.WS && (c.User != "" || c.From != ""):
		return p, "", errors.New("--user, --from: with --ws one publishes as a client, which can't; leave --ws out")
	case p.Room == "" && (c.MessageKey != "" || c.PublishID != ""):
		return p, "", errors.New("--message-key, --publish-id: they go with a room alone")
	}
	p.Client, p.User, p.Everyone, p.From, p.Key, p.PublishID = c.Client, c.User, c.Everyone, c.From, c.MessageKey, c.PublishID
	return p, args[0], nil
}

// contentOf is a content as JSON.
func (c *pubCmd) contentOf(text string) (json.RawMessage, error) {
	if !c.Text && json.Valid([]byte(text)) {
		return json.RawMessage(strings.TrimSpace(text)), nil
	}
	if !c.Text && !utf8.ValidString(text) {
		return nil, errors.New("the content is no UTF-8; --text sends it with U+FFFD in the place of what isn't")
	}
	return json.Marshal(strings.ToValidUTF8(text, "\uFFFD"))
}

func (c *pubCmd) publish(ctx context.Context, p publication, content string) (err error) {
	if p.Content, err = c.contentOf(content); err != nil {
		return err
	}
	var at published
	var raw []byte
	if c.WS {
		at, raw, err = c.overSocket(ctx, p)
	} else {
		heard := whileWaiting(func() string { return fmt.Sprintf("no answer from %s yet, waiting up to %s for it", c.URL, callTime) })
		raw, err = c.call(ctx, "POST", "/publish", nil, &p, &at)
		heard()
	}
	switch {
	case err != nil:
		return whether(ctx, err)
	case c.JSON:
		fmt.Println(printableJSON(raw))
	case at.Epoch != "" && at.Duplicate:
		fmt.Printf("%s:%d, as before\n", printable(at.Epoch), at.Offset)
	case at.Epoch != "":
		fmt.Printf("%s:%d\n", printable(at.Epoch), at.Offset)
	}
	return nil
}

// whether says of an error of a publish that the message may have been published all the same, where that is so.
func whether(ctx context.Context, err error) error {
	var no *client.Error
	unknown := errors.As(err, new(unanswered)) || errors.Is(err, client.ErrUnknown) || errors.As(err, &no) && (no.Code == "timeout" || no.Code == "internal")
	switch {
	case ctx.Err() != nil && !unknown:
		return errors.New("interrupted: it was not published")
	case ctx.Err() != nil:
		err = errors.New("interrupted")
	}
	if unknown {
		return fmt.Errorf("%w: in doubt, it may have been published or not", err)
	}
	return err
}

// publishTime is how long a message waits for its answer over a WebSocket, a lost connection included. A test shortens it.
var publishTime = time.Minute

// overSocket publishes as a client. raw is the answer as the API would give it.
func (c *pubCmd) overSocket(ctx context.Context, p publication) (at published, raw []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	defer whileWaiting(func() string {
		switch now := c.hub.State(); {
		case now.State == client.Online:
			return fmt.Sprintf("sent, and not answered yet, waiting up to %g s for the answer", publishTime.Seconds())
		case now.Err != nil:
			return fmt.Sprintf("the connection is lost (%v), waiting up to %g s for another", now.Err, publishTime.Seconds())
		}
		return fmt.Sprintf("the connection is lost, waiting up to %g s for another", publishTime.Seconds())
	})()
	switch {
	case p.Everyone:
		err = c.hub.Chat(ctx, p.Content)
	case p.Client != "":
		err = c.hub.Send(ctx, p.Client, p.Content)
	default:
		var where client.Position
		where, err = publishAsMember(ctx, c.hub.Room(p.Room), p)
		at = published{Epoch: where.Epoch, Offset: where.Offset}
	}
	switch late := errors.Is(err, context.DeadlineExceeded); {
	case late && errors.Is(err, client.ErrUnknown):
		err = unanswered{fmt.Errorf("no answer within %g s", publishTime.Seconds())}
	case late:
		err = fmt.Errorf("no connection within %g s: it was not published", publishTime.Seconds())
	}
	if raw = []byte("{}"); at.Epoch != "" {
		raw, _ = json.Marshal(map[string]any{"epoch": at.Epoch, "offset": at.Offset})
	}
	return at, raw, err
}

// publishAsMember joins the room where only members may publish. What it hears there nobody reads, and the client drops.
func publishAsMember(ctx context.Context, r *client.Room, p publication) (client.Position, error) {
	o := client.PublishOptions{Key: p.Key, ID: p.PublishID}
	at, err := r.Publish(ctx, p.Content, o)
	var no *client.Error
	if !errors.As(err, &no) || no.Code != "not_member" || errors.Is(err, client.ErrUnknown) { // it may have been published before
		return at, err
	}
	if err := r.Join(ctx); err != nil { // %v, so that no error of the join is taken for a publish's
		return at, fmt.Errorf("only members may publish to this room, and it can't be joined: %v: it was not published", err)
	}
	return r.Publish(ctx, p.Content, o)
}

// publishLines publishes each line as it comes, until the input ends, a line can't be published, or ctx ends. The error says
// how many lines were acknowledged, and which one nobody knows of.
func (c *pubCmd) publishLines(ctx context.Context, p publication, from io.Reader) error {
	lines := readLines(ctx, from)
	for acknowledged := 0; ; {
		said := fmt.Sprintf("acknowledged before: %d", acknowledged)
		select {
		case <-ctx.Done():
			return fmt.Errorf("interrupted between two lines; %s", said)
		case l, more := <-lines:
			switch {
			case !more && ctx.Err() != nil: // the lines may have ended for that
				return fmt.Errorf("interrupted between two lines; %s", said)
			case !more:
				return nil
			case l.err != nil:
				return fmt.Errorf("line %d: read the standard input: %w; %s", l.number, l.err, said)
			}
			if err := c.publish(ctx, p, l.text); err != nil {
				return fmt.Errorf("line %d: %w; %s", l.number, err, said)
			}
			acknowledged++
		}
	}
}

// inputLine is a line of the standard input that isn't empty, or why there are no more.
type inputLine struct {
	number int // from 1
	text   string
	err    error
}

// readLines gives the lines of an input, which it reads on a goroutine of its own: a signal is heard while no line comes. The
// goroutine ends with the input, or with the line that it reads as ctx ends.
func readLines(ctx context.Context, from io.Reader) <-chan inputLine {
	to := make(chan inputLine)
	go func() {
		defer close(to)
		lines := bufio.NewScanner(from)
		lines.Buffer(nil, maxStdin)
		give := func(l inputLine) bool {
			select {
			case to <- l:
				return true
			case <-ctx.Done():
				return false
			}
		}
		n := 1
		for ; lines.Scan(); n++ {
			if lines.Text() != "" && !give(inputLine{number: n, text: lines.Text()}) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			if errors.Is(err, bufio.ErrTooLong) {
				err = errors.New("a line may have 64 MiB at most")
			}
			give(inputLine{number: n, err: err})
		}
	}()
	return to
}
