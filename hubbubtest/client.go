package hubbubtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"

	"example.com/hubbub/internal/model"
	"example.com/hubbub/internal/wsclient"
)

// Client is one connection that speaks the room protocol. It reads all that comes at once, answers Pings, and keeps a
// log of what it sent and saw. Its methods are for the test's own goroutine: one that waits fails the test after
// Patience, and then shows the log's end. Sending never waits: what the link doesn't take stays with the client.
type Client struct {
	Name    string  // what failures call it
	ID      string  // its client_id
	Welcome Message // what the server said first
	Resumed Message // of one that Reconnect made: what the server answered for each room
	Link    *Link   // its line to the server: cut it, stall it, slow it

	t       T
	server  *Server
	options Options
	news    chan struct{} // capacity 1: something below has changed
	gone    chan struct{} // closed when the connection has ended, on this side

	mu        sync.Mutex
	toWrite   sync.Cond // out, hangUp or ending has changed
	out       []byte    // frames that wait for the link
	hangUp    bool      // once out is written
	inbox     []Message // received, and not yet taken
	ending    *ending
	lastID    int
	requests  map[string]model.Event // that wait for their answer, by id
	asked     map[string][]string    // the rooms of each resume among them
	rooms     map[string]bool        // in which it is, as far as it knows
	positions map[string]Position
	log       model.Log
}

// ending is how a connection ended, and the error of who waits for more.
type ending struct {
	code   int // of the server's Close frame, or of the one that answered ours; 0: there was none
	reason string
	err    error // of the stream; io.EOF when it ended in good order
	at     time.Time
}

func (e *ending) Error() string {
	if e.code == 0 {
		return fmt.Sprintf("the end without a Close frame (%v)", e.err)
	}
	return fmt.Sprintf("Close %d %q", e.code, e.reason)
}

// Options are for ConnectWith; the zero value is what Connect does.
type Options struct {
	Path   string      // of the handshake; "/ws"
	Header http.Header // more header lines of it
	Token  string      // Welcome.ResumeToken of another connection, whose session this one wants
	IP     string      // the client's address; 127.0.0.1
	Buffer int         // bytes that the link holds each way; 64 KiB
	Link   func(*Link) // is called before the first byte, to cut or slow the handshake
}

// Connect opens a WebSocket, and returns when the server has said welcome.
func (s *Server) Connect(name string) *Client {
	s.t.Helper()
	c, err := s.ConnectWith(name, Options{})
	if err != nil {
		s.t.Fatalf("hubbubtest: connect %s: %v", name, err)
	}
	return c
}

// ConnectWith is Connect with Options. A *RefusedError says that the server answered otherwise; any other error, that
// the connection ended, or took longer than Patience.
func (s *Server) ConnectWith(name string, o Options) (*Client, error) {
	if o.Path == "" {
		o.Path = "/ws"
	}
	if o.Buffer == 0 {
		o.Buffer = linkBuffer
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	link, err := s.network.dial(ctx, s.nextAddr(o.IP), o.Buffer)
	if err != nil {
		return nil, err
	}
	c := &Client{
		Name: name, Link: link, t: s.t, server: s, options: o, news: make(chan struct{}, 1), gone: make(chan struct{}),
		requests: map[string]model.Event{}, asked: map[string][]string{}, rooms: map[string]bool{}, positions: map[string]Position{},
		log: model.Log{Name: name},
	}
	c.options.Token = "" // it is the next one's
	c.toWrite.L = &c.mu
	if o.Link != nil {
		o.Link(link)
	}
	asked, began := s.clock.Add(1), time.Now() // from here on the server may count the client among everyone
	link.client.SetDeadline(time.Now().Add(Patience))
	r, err := handshake(link.client, o.target(), o.Header)
	if err != nil {
		link.client.Close()
		return nil, err
	}
	link.client.SetDeadline(time.Time{})
	go c.read(r)
	go c.write()
	if err := c.welcomed(asked, began); err != nil {
		c.Drop()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = append(s.clients, c)
	return c, nil
}

// welcomed waits for the first message.
func (c *Client) welcomed(asked int64, began time.Time) error {
	m, err := c.take(func(Message) bool { return true })
	if err != nil {
		return err
	}
	if m.Type != "welcome" {
		return fmt.Errorf("want welcome first of all, got %s", m)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Welcome = m
	// It may have got a chat already: the log begins before it.
	var first []model.Event
	for _, room := range []string{model.Everyone, model.Direct(c.ID)} {
		first = append(first, model.Event{At: asked, Time: began, Kind: model.JoinSent, Room: room},
			model.Event{At: asked, Time: began, Kind: model.Joined, Room: room, Recovered: m.Resumed && room != model.Everyone})
	}
	c.log.Events = append(first, c.log.Events...)
	return nil
}

// Position is how far the client has come in a room: by its joins, by messages and by gaps.
func (c *Client) Position(room string) Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.positions[room]
}

// read takes in all that comes, until the end.
func (c *Client) read(r *reader) {
	end := &ending{}
	for {
		op, payload, err := r.next()
		if err != nil {
			end.err = err
			c.ended(end)
			return
		}
		switch op {
		case wsclient.Ping:
			c.queue(wsclient.Pong, true, payload)
		case wsclient.Close:
			if end.code == 0 {
				if end.code, end.reason, end.err = wsclient.ParseClose(payload); end.err != nil {
					c.ended(end)
					return
				}
				c.queue(wsclient.Close, true, payload[:min(2, len(payload))])
			}
		case wsclient.Text:
			c.received(payload)
		case wsclient.Binary:
			c.arrive(Message{Type: "binary", Raw: payload})
		}
	}
}

// ended notes the end, and hangs up.
func (c *Client) ended(end *ending) {
	if !errors.Is(end.err, io.EOF) && end.code != 0 {
		end.err = io.EOF // what comes behind a Close frame doesn't matter
	}
	c.mu.Lock()
	end.at = time.Now()
	c.ending = end
	c.note(model.Event{Kind: model.Closed, Code: end.code})
	c.toWrite.Broadcast()
	c.mu.Unlock()
	c.Link.client.Close()
	close(c.gone)
	c.tell()
}

// write gives the link what waits for it. Only this goroutine may be held up by a link that is full.
func (c *Client) write() {
	for {
		c.mu.Lock()
		for len(c.out) == 0 && !c.hangUp && c.ending == nil {
			c.toWrite.Wait()
		}
		b := c.out
		c.out = nil
		over := c.ending != nil || c.hangUp && len(b) == 0
		c.mu.Unlock()
		if over {
			return
		}
		c.Link.client.Write(b) // the reader meets the error too
	}
}

// queue leaves a frame for the writer.
func (c *Client) queue(op wsclient.Opcode, fin bool, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = wsclient.Append(c.out, fin, op, mask, payload)
	c.hangUp = c.hangUp || op == wsclient.Close
	c.toWrite.Broadcast()
}

// tell lets who waits look again.
func (c *Client) tell() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// arrive puts a message where the test takes it from.
func (c *Client) arrive(m Message) {
	c.mu.Lock()
	c.inbox = append(c.inbox, m)
	c.mu.Unlock()
	c.tell()
}

// errEnded is what take returns when nothing can come any more.
var errEnded = errors.New("the connection has ended")

// take waits for a message for which want is true, and takes it out of the inbox; the others stay.
func (c *Client) take(want func(Message) bool) (Message, error) {
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	for {
		c.mu.Lock()
		for i, m := range c.inbox {
			if want(m) {
				c.inbox = append(c.inbox[:i:i], c.inbox[i+1:]...)
				c.mu.Unlock()
				return m, nil
			}
		}
		end := c.ending
		c.mu.Unlock()
		if end != nil {
			return Message{}, fmt.Errorf("%w: %w", errEnded, end)
		}
		select {
		case <-c.news:
		case <-limit.C:
			return Message{}, fmt.Errorf("nothing came within %s", Patience)
		}
	}
}

// Send sends a message of any kind and waits for nothing. Where m has an "id", the answer can be received as any other
// message.
func (c *Client) Send(m map[string]any) {
	c.mu.Lock()
	c.sent(m)
	c.mu.Unlock()
	c.SendText(text(m))
}

// SendText sends a text frame as it is. The log knows nothing of it.
func (c *Client) SendText(s string) { c.queue(wsclient.Text, true, []byte(s)) }

// SendFrame sends any frame (RFC 6455 5.2), masked. The log knows nothing of it.
func (c *Client) SendFrame(opcode byte, fin bool, payload []byte) {
	c.queue(wsclient.Opcode(opcode), fin, payload)
}

// Request sends a message with an id of its own, and waits for its answer, whatever it is. Other messages that come
// meanwhile stay where they are.
func (c *Client) Request(m map[string]any) Message {
	c.t.Helper()
	answer, err := c.request(m)
	if err != nil {
		c.fatalf("want an answer to %s, but %v", text(m), err)
	}
	return answer
}

func (c *Client) request(m map[string]any) (Message, error) {
	m = maps.Clone(m)
	c.mu.Lock()
	c.lastID++
	id := strconv.Itoa(c.lastID)
	c.mu.Unlock()
	m["id"] = json.Number(id)
	c.Send(m)
	return c.take(func(m Message) bool { return string(m.ID) == id })
}

// Drop ends the connection at once, as if the line broke: the server is told nothing but that.
func (c *Client) Drop() {
	c.Link.Cut()
	<-c.gone
}

// Close ends the connection in good order: it sends Close 1000 and waits until the server has answered and ended it.
func (c *Client) Close() {
	c.t.Helper()
	c.queue(wsclient.Close, true, wsclient.ClosePayload(1000, ""))
	if !c.wait(Patience) {
		c.fatalf("want an answer to Close 1000, but nothing came within %s", Patience)
	}
}

// wait waits for the end of the connection.
func (c *Client) wait(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.gone:
		return true
	case <-timer.C:
		return false
	}
}

// Closed says that the connection has ended.
func (c *Client) Closed() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}
