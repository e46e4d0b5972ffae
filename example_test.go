package hubbub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/coder/websocket"

	"example.com/hubbub"
)

// exampleClient is any WebSocket client.
type exampleClient struct {
	*websocket.Conn
	ctx context.Context
}

func dialExample(url string) *exampleClient {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	context.AfterFunc(ctx, cancel)
	c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(url, "http"), nil)
	if err != nil {
		log.Fatal(err)
	}
	return &exampleClient{c, ctx}
}

func (c *exampleClient) say(s string) {
	if err := c.Write(c.ctx, websocket.MessageText, []byte(s)); err != nil {
		log.Fatal(err)
	}
}

// hear prints the next message without its ids and times, which differ each time.
func (c *exampleClient) hear() {
	_, b, err := c.Read(c.ctx)
	if err != nil {
		log.Fatal(err)
	}
	var m struct {
		Type    string          `json:"msg_type"`
		From    string          `json:"from"`
		Content json.RawMessage `json:"content"`
	}
	json.Unmarshal(b, &m)
	if m.From != "server" {
		m.From = "a client"
	}
	fmt.Printf("%s from %s: %s\n", m.Type, m.From, m.Content)
}

// A chat server: two clients in a room, and the application publishes too.
func Example() {
	srv, err := hubbub.New(hubbub.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Shutdown(context.Background())
	web := httptest.NewServer(srv)
	defer web.Close()

	alice, bob := dialExample(web.URL+"/ws"), dialExample(web.URL+"/ws")
	defer alice.CloseNow()
	defer bob.CloseNow()
	for _, c := range []*exampleClient{alice, bob} {
		c.Read(c.ctx) // welcome
		c.say(`{"msg_type":"join_room","room":"lobby","id":1}`)
		c.Read(c.ctx) // joined
	}
	alice.say(`{"msg_type":"room_message","room":"lobby","content":"hi!"}`)
	bob.hear()
	srv.Publish(context.Background(), hubbub.Publication{Room: "lobby", Content: "dinner is ready"})
	alice.hear()
	bob.hear()
	// Output:
	// room_message from a client: "hi!"
	// room_message from server: "dinner is ready"
	// room_message from server: "dinner is ready"
}

// A message of one's own.
func ExampleHandler() {
	srv, err := hubbub.New(hubbub.Config{Handlers: map[string]hubbub.Handler{
		"shout": func(ctx context.Context, m *hubbub.Message) (any, error) {
			var in struct {
				Text string `json:"text"`
			}
			if err := m.Decode(&in); err != nil {
				return nil, err
			}
			return strings.ToUpper(in.Text), nil
		},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Shutdown(context.Background())
	web := httptest.NewServer(srv)
	defer web.Close()

	c := dialExample(web.URL + "/ws")
	defer c.CloseNow()
	c.Read(c.ctx) // welcome
	c.say(`{"msg_type":"shout","text":"hello","id":1}`)
	c.hear()
	// Output:
	// shout from server: "HELLO"
}

// The echo server alone.
func ExampleServer_Echo() {
	srv, err := hubbub.New(hubbub.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Shutdown(context.Background())
	web := httptest.NewServer(srv.Echo())
	defer web.Close()

	c := dialExample(web.URL)
	defer c.CloseNow()
	c.say("hello")
	_, b, _ := c.Read(c.ctx)
	fmt.Println(string(b))
	// Output:
	// hello
}
