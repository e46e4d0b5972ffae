package hubbub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/wire"
)

// Hooks are your own code in a client's life. Each is called on a goroutine of its own, never on a worker, so it may
// block and may call every method of Server; and those up to Disconnect one at a time for each client, Handlers included,
// in the order of what the client sent. What comes behind a message whose hook runs waits for it; after a few the client isn't read. ctx ends
// when the client is gone, but for Disconnect, and after Config.HookTimeout: then the client is told "timeout". At most
// Config.MaxHookCalls run at once, over all clients, and as many of Connect. Hooks that are nil cost nothing.
//
// An error of type *Error goes to the client; any other is logged, and the client is told "internal".
type Hooks struct {
	// Connect is called before a client is let in. It may set c.User. An error closes the new connection: with 4501,
	// "don't come back", where it is an *Error whose code says not to retry, and else with 1013, "try again later".
	Connect func(ctx context.Context, c *Connect) error
	// Join may refuse that a client joins a room.
	Join func(ctx context.Context, j *Join) error
	// Publish may refuse what a client publishes, or change p.Content. The order of a room's messages is that in
	// which their hooks end.
	Publish func(ctx context.Context, p *Publish) error
	// Disconnect comes last of those above, once for each client that Connect let in, however its connection ended.
	Disconnect func(ctx context.Context, d *Disconnect)

	// The rest tell what has happened in a room, and don't wait for those above, nor these for them. They are called one at
	// a time for each room, in the order in which it happened: Occupied when the room gets its first member, then Joined
	// and Left for each of them, then Vacated. None misses its pair while the process lives, whatever becomes of the
	// client, the room or another hook; Shutdown waits for them. A client that is to be resumed has not left. ctx ends after
	// Config.HookTimeout alone; the room's next call waits until this one has returned. A client because of which more
	// than Config.MaxRoomsPerClient of them wait is told "rate_limited" when it joins.
	Joined   func(ctx context.Context, j *Joined)
	Left     func(ctx context.Context, l *Left)
	Occupied func(ctx context.Context, room string)
	Vacated  func(ctx context.Context, room string)
}

// Connect is a client that wants in.
type Connect struct {
	Client  string        // the id that it will have
	Request *http.Request // the handshake: cookies, query, headers; its body can't be read
	User    string        // set it to the name by which others shall know the client; at most 255 bytes
}

// Join is a client that wants to become a member of a room.
type Join struct{ Client, User, Room string }

// Publish is what a client wants to publish: to Room, or to the client To, or with neither to everyone.
type Publish struct {
	Client, User, Room, To string
	Content                json.RawMessage // one JSON value; set it to publish another
}

// Disconnect is a client that is gone. Code is what its Close frame said, or 1006 where there was none.
type Disconnect struct {
	Client, User string
	Code         int
}

// Joined is a client that has become a member of a room.
type Joined struct{ Client, User, Room string }

// Left is a client that is no member any more: it left, or its session has ended.
type Left struct{ Client, User, Room string }

const maxUser = 255 // bytes

// hubHooks is what the hub needs of the application's code.
func (s *Server) hubHooks() hub.Hooks {
	h := hub.Hooks{
		Known:  func(name string) bool { return s.cfg.Handlers[name] != nil },
		Custom: s.custom,
	}
	hooks := s.cfg.Hooks
	if hooks.Join != nil {
		h.Join = func(ctx context.Context, who hub.Identity, room string) error {
			return hooks.Join(ctx, &Join{Client: who.ID.String(), User: who.User, Room: room})
		}
	}
	if hooks.Publish != nil {
		h.Publish = func(ctx context.Context, who hub.Identity, p hub.Publication) ([]byte, error) {
			e := &Publish{Client: who.ID.String(), User: who.User, Room: p.Room, To: p.To, Content: p.Content}
			if err := hooks.Publish(ctx, e); err != nil {
				return nil, err
			}
			if !json.Valid(e.Content) {
				return nil, fmt.Errorf("the hook Publish left content that is no JSON: %s", protocol.Quote(e.Content))
			}
			return e.Content, nil
		}
	}
	if hooks.Disconnect != nil {
		h.Disconnect = func(ctx context.Context, who hub.Identity, code int) {
			hooks.Disconnect(ctx, &Disconnect{Client: who.ID.String(), User: who.User, Code: code})
		}
	}
	if hooks.Joined != nil {
		h.Joined = func(ctx context.Context, who hub.Identity, room string) {
			hooks.Joined(ctx, &Joined{Client: who.ID.String(), User: who.User, Room: room})
		}
	}
	if hooks.Left != nil {
		h.Left = func(ctx context.Context, who hub.Identity, room string) {
			hooks.Left(ctx, &Left{Client: who.ID.String(), User: who.User, Room: room})
		}
	}
	h.Occupied, h.Vacated = hooks.Occupied, hooks.Vacated
	return h
}

// custom calls the Handler of a message's type.
func (s *Server) custom(ctx context.Context, who hub.Identity, msgType string, raw []byte) ([]byte, error) {
	reply, err := s.cfg.Handlers[msgType](ctx, &Message{Client: who.ID.String(), User: who.User, Type: msgType, Raw: raw})
	if err != nil || reply == nil {
		return nil, err
	}
	return encode(reply)
}

// admit asks the hook Connect, on the goroutine of the handshake, and gives the handler that the connection shall have.
func (s *Server) admit(r *http.Request) loop.Handler {
	who := hub.Identity{ID: hub.NewID()}
	var resume *hub.Resumption
	if token := r.URL.Query().Get("resume"); token != "" {
		if of, ok := s.hub.Resume(token); ok {
			resume, who.ID = &of, of.ID
		}
	}
	if s.cfg.Hooks.Connect == nil {
		return s.hub.Session(who, s.ips.share(r.RemoteAddr), resume)
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.HookTimeout)
	defer cancel()
	c := &Connect{Client: who.ID.String(), Request: r}
	err := s.askConnect(ctx, c)
	if err == nil && len(c.User) > maxUser {
		err = fmt.Errorf("the hook Connect gave a user of %d bytes, more than %d", len(c.User), maxUser)
	}
	if err == nil {
		who.User = c.User
		return s.hub.Session(who, s.ips.share(r.RemoteAddr), resume)
	}
	var e *Error
	if !errors.As(err, &e) {
		s.log.Error("the hook Connect failed", "remote", r.RemoteAddr, "err", err)
		return hub.Refusal{Code: wire.CloseTryLater, Reason: "try again later"}
	}
	if e.Code.Retry() {
		return hub.Refusal{Code: wire.CloseTryLater, Reason: e.Message}
	}
	return hub.Refusal{Code: protocol.CloseRefused, Reason: e.Message}
}

// askConnect returns when the hook does or when ctx ends, whichever is first.
func (s *Server) askConnect(ctx context.Context, c *Connect) error {
	select {
	case s.connects <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("no room for another hook: %w", ctx.Err())
	}
	asked := *c // the hook may go on when its time is up
	done := make(chan error, 1)
	go func() {
		defer func() { <-s.connects }()
		defer func() {
			if p := recover(); p != nil {
				s.loop.Panics.Add(1)
				done <- fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		done <- s.cfg.Hooks.Connect(ctx, &asked)
	}()
	select {
	case err := <-done:
		*c = asked
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
