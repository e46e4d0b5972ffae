package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
)

// tailCmd shows what passes, as it passes.
type tailCmd struct {
	What     string `arg:"" placeholder:"room:NAME|client:ID|user:NAME" help:"room:NAME, client:ID or user:NAME."`
	Content  bool   `env:"-" help:"Show what messages say, too."`
	apiFlags `embed:""`
}

// Help is shown by hubbub tail --help.
func (tailCmd) Help() string {
	return "For example:\n\n    hubbub tail room:lobby --content\n    hubbub tail user:ann --json\n\nMessages, who joins and leaves, who connects and disconnects, until Control-C. It slows nobody: where more passes than it takes, it says how much it left out."
}

// maxEvent is the longest line of an event: a message with its content.
const maxEvent = 64 << 20

// Run shows it until it is stopped; then that is no error.
func (c *tailCmd) Run() error {
	what, err := parseTarget(c.What, "room", "client", "user")
	if err != nil {
		return err
	}
	query := url.Values{what.kind: {what.name}}
	if c.Content {
		query.Set("content", "true")
	}
	ctx, cancel := untilSignal()
	defer cancel()
	r, err := c.newRequest(ctx, "GET", "/tail", query, nil)
	if err != nil {
		return err
	}
	answer, err := c.open(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer answer.Body.Close()
	if err = readEvents(answer.Body, c.print); ctx.Err() != nil {
		return nil
	}
	return err
}

var errStopping = errors.New("the server is stopping")

// readEvents gives each Server-Sent Event of a stream to show, by its name and its data. It returns when the stream
// ends, which is always an error.
func readEvents(stream io.Reader, show func(name string, data []byte)) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxEvent)
	name, data := "", []byte(nil)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case field == "event":
			name = value
		case field == "data":
			data = []byte(value) // a line each, from this server
		case lines.Text() != "": // a comment, or what isn't known
		case name == "end":
			return errStopping
		case name != "":
			show(name, data)
			name, data = "", nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the stream breaks off: %w", err)
	}
	return errors.New("the stream has ended: the server, or a proxy before it, has closed it")
}

// passed is what an event says.
type passed struct {
	Time     int64           `json:"time"`
	Count    int64           `json:"count"` // of lost
	Room     string          `json:"room"`
	Client   string          `json:"client"`
	User     string          `json:"user"`
	To       string          `json:"to"`
	From     string          `json:"from"`
	Key      string          `json:"key"`
	Bytes    int             `json:"bytes"`
	Epoch    string          `json:"epoch"`
	Offset   uint64          `json:"offset"`
	ToOffset uint64          `json:"to_offset"`
	Code     int             `json:"code"`
	Content  json.RawMessage `json:"content"`
}

// print shows one event on a line.
func (c *tailCmd) print(name string, data []byte) {
	if c.JSON {
		fmt.Println(printableJSON([]byte(withEvent(name, data))))
		return
	}
	var p passed
	if json.Unmarshal(data, &p) != nil {
		return
	}
	if name == "lost" {
		fmt.Printf("... %d more have passed that were too many to show\n", p.Count)
		return
	}
	line := fmt.Sprintf("%s  %-14s", time.UnixMilli(p.Time).Format("15:04:05.000"), printable(name))
	for _, f := range []struct{ name, value string }{
		{"room", p.Room}, {"client", p.Client}, {"user", p.User}, {"to", p.To}, {"from", otherThan(p.From, p.Client)}, {"key", p.Key},
		{"offset", number(p.Offset)}, {"to_offset", number(p.ToOffset)}, {"code", number(p.Code)}, {"bytes", number(p.Bytes)},
	} {
		if f.value != "" {
			line += " " + f.name + "=" + quotedWord(f.value)
		}
	}
	if len(p.Content) > 0 {
		line += " " + printable(string(p.Content))
	}
	fmt.Println(line)
}

// withEvent is an event's object with its name in it.
func withEvent(name string, data []byte) string {
	quoted, _ := json.Marshal(name) // a text can't fail
	rest := strings.TrimPrefix(string(data), "{")
	if rest != "}" {
		rest = "," + rest
	}
	return `{"event":` + string(quoted) + rest
}

func otherThan(text, known string) string {
	if text == known {
		return ""
	}
	return text
}

func number[T int | uint64](n T) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// quotedWord is a value as one word.
func quotedWord(text string) string {
	if strings.ContainsAny(text, " \"=") {
		return fmt.Sprintf("%q", text)
	}
	return printable(text)
}
