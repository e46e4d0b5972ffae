package hubbub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/front"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol/room"
	"example.com/hubbub/internal/webhook"
)

// Hooks are your own code in a client's life. Each is called on a goroutine of its own, never on a worker, so it may
// block and may call every method of Server; and those up to Disconnect one at a time for each client, Handlers
// included, in the order of what the client sent. What comes behind a message whose hook runs waits for it; after a few
// the client isn't read. So it is over the connections of a client that has its session again: what it says over the new
// one waits until Disconnect has returned for the old one, unless it came back to another node of a cluster. ctx ends
// when the client is gone, but for Disconnect, and after Config.HookTimeout: then the client is told "timeout". At most
// Config.MaxHookCalls run at once, over all clients, and as many of Connect. Hooks that are nil cost nothing.
//
// An error of type *Error goes to the client; any other is logged, and the client is told "internal". So it is when a
// hook panics or ends its goroutine by runtime.Goexit, as a test's FailNow does: what comes behind it goes on.
type Hooks struct {
	// Connect is called before a client is let in, with the id that it will have. It may set c.User. An error closes
	// the new connection: with 4501, "don't come back", where it is an *Error whose code says not to retry, and else
	// with 1013, "try again later".
	//
	// Each call that returns nil has one call of Disconnect, after it, with the same id and user, whatever becomes of
	// the client: it hung up meanwhile, the time was over, the server stops. A call that returns an error has none.
	//
	// A client that wants a session back has its id, so Connect may be called for one that is connected still, beside the
	// hooks of its other connection, which ends then. Where Connect names another user than the session's, or the session
	// ends or is given to another connection at that moment, Disconnect is called with 1006, it too beside those, and
	// Connect once more, with a new id.
	Connect func(ctx context.Context, c *Connect) error
	// Join may refuse that a client joins a room, also with a position from which on it wants what it missed, or as
	// part of a resume.
	Join func(ctx context.Context, j *Join) error
	// Read may refuse that a client which isn't in a room reads its history, or who is in it. Members may; Join isn't
	// asked for that. Without Read anyone may, but where there is a Join only members: else the room could be read by
	// those whom it refuses.
	Read func(ctx context.Context, r *Read) error
	// Publish may refuse what a client publishes, or change p.Content. The order of a room's messages is that in which
	// their hooks end.
	Publish func(ctx context.Context, p *Publish) error
	// Request answers a client's request: its method and content are between you and your clients. What it returns, one
	// JSON value or nil for null, goes to the client as the response. Without it a request is "unavailable".
	Request func(ctx context.Context, r *Request) (content json.RawMessage, err error)
	// Disconnect comes last of those above for a connection, once for each client that was let in, however it ended; also
	// where the client may come back, and has done so.
	Disconnect func(ctx context.Context, d *Disconnect)

	// The rest tell what has happened in a room, and don't wait for those above, nor these for them. They are called
	// one at a time for each room, in the order in which it happened: Occupied when the room gets its first member,
	// then Joined and Left for each of them, then Vacated. None misses its pair while the process lives, whatever
	// becomes of the client, the room or another hook; Shutdown waits for them. A client that is to be resumed has not
	// left. ctx ends after Config.HookTimeout alone; the room's next call waits until this one has returned. A client
	// because of which more than Config.MaxRoomsPerClient of them wait, or because of whose user, all its clients
	// together, is told "rate_limited" when it joins.
	Joined   func(ctx context.Context, j *Joined)
	Left     func(ctx context.Context, l *Left)
	Occupied func(ctx context.Context, room string)
	Vacated  func(ctx context.Context, room string)
}

// Connect is a client that wants in.
type Connect struct {
	Client  string        // the id that it will have
	Request *http.Request // the handshake: cookies, query, headers; its body can't be read. Its context is ctx
	User    string        // set it to the name by which others shall know the client: UTF-8 of at most 255 bytes, no controls. One that its token gives must stay
}

// Join is a client that wants to become a member of a room.
type Join struct{ Client, User, Room string }

// Read is a client that wants to read a room which it isn't in: its history, or who is there.
type Read struct{ Client, User, Room string }

// Publish is what a client wants to publish: to Room, or to the client To, or with neither to everyone.
type Publish struct {
	Client, User, Room, To string
	Content                json.RawMessage // one JSON value; set it to publish another, which Server.Publish would take
}

// Request is what a client asks of the application.
type Request struct {
	Client, User, Method string          // Method has 1 to 64 bytes
	Content              json.RawMessage // one JSON value; nil where the client gave none
}

// Disconnect is a client that is gone. Code is what its Close frame said, or 1006 where there was none, as of one that
// was let in and got no connection.
type Disconnect struct {
	Client, User string
	Code         int
}

// Joined is a client that has become a member of a room.
type Joined struct{ Client, User, Room string }

// Left is a client that is no member any more: it left, or its session has ended.
type Left struct{ Client, User, Room string }

// hubHooks is what the hub needs of the application's code.
func (s *Server) hubHooks(set *settings) hub.Hooks {
	h := hub.Hooks{
		Known:  func(name string) bool { return s.cfg().Handlers[name] != nil },
		Custom: s.custom,
	}
	if set.identifies() {
		h.Refresh = s.refresh
	}
	hooks := set.Hooks
	if hooks.Join != nil {
		h.Join = func(ctx context.Context, who hub.Identity, room string) error {
			return hooks.Join(ctx, &Join{Client: who.ID.String(), User: who.User, Room: room})
		}
	}
	if hooks.Read != nil {
		h.Read = func(ctx context.Context, who hub.Identity, room string) error {
			return hooks.Read(ctx, &Read{Client: who.ID.String(), User: who.User, Room: room})
		}
	}
	if hooks.Publish != nil {
		h.Publish = func(ctx context.Context, who hub.Identity, d hub.Draft) ([]byte, error) {
			e := &Publish{Client: who.ID.String(), User: who.User, Room: d.Room, To: d.To, Content: d.Content}
			if err := hooks.Publish(ctx, e); err != nil {
				return nil, err
			}
			content, err := room.CheckContent(e.Content)
			if err != nil {
				return nil, fmt.Errorf("what the hook Publish left: %w", err)
			}
			return content, nil
		}
	}
	if hooks.Request != nil {
		h.Request = func(ctx context.Context, who hub.Identity, method string, content []byte) ([]byte, error) {
			reply, err := hooks.Request(ctx, &Request{Client: who.ID.String(), User: who.User, Method: method, Content: content})
			if err != nil || reply == nil {
				return nil, err
			}
			if reply, err = room.CheckContent(reply); err != nil {
				return nil, fmt.Errorf("what the hook Request answered: %w", err)
			}
			return reply, nil
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
	set.askFirst(&h)
	return h
}

// custom calls the Handler of a message's type.
func (s *Server) custom(ctx context.Context, who hub.Identity, msgType string, raw []byte) ([]byte, error) {
	reply, err := s.cfg().Handlers[msgType](ctx, &Message{Client: who.ID.String(), User: who.User, Type: msgType, Raw: raw})
	if err != nil || reply == nil {
		return nil, err
	}
	return encode(reply)
}

// admit finds out who asks and whether it may come in, on the goroutine of the handshake, and gives the handler that
// the connection shall have, or what it gets instead; both where it is told so by a Close. known is who the client is by
// what it has shown.
func (s *Server) admit(set *settings, r *http.Request, known auth.Identity) (loop.Handler, *refusal) {
	token := first(inQuery(r, "resume"))
	connect := set.asksOf(r)
	if of, _ := s.hub.Resume(token); connect != nil || of.Elsewhere() || known.User != "" && s.hub.AsksNodes() {
		front.Admit(r) // it may take long
	}
	h, err := s.hub.Admit(r.Context(), set.addressOf(r), token, known, connect)
	return s.admission(set, r, h, err)
}

// admission is what becomes of who asks.
func (s *Server) admission(set *settings, r *http.Request, h loop.Handler, err error) (loop.Handler, *refusal) {
	var e *Error
	var often *hub.Limited
	var unanswered *webhook.Unanswered
	switch {
	case err == nil:
		return h, nil
	case errors.As(err, &often):
		return nil, s.limited(often)
	case errors.As(err, &unanswered): // which has its own line
		return unasked(r, unanswered.Tell)
	case errors.Is(err, context.DeadlineExceeded) && set.questions.Asks(webhook.AskConnect): // the others took all the time
		return unasked(r, &Error{Code: Unavailable, Message: "the application took too long"})
	case errors.As(err, &e) && e != nil:
	case r.Context().Err() != nil || s.stopping.Load():
		s.log.Debug("nobody waits for the hook Connect any more", "remote", r.RemoteAddr, "err", err)
	default:
		s.unasked.Log(s.log, slog.LevelError, "the hook Connect failed", "remote", r.RemoteAddr, "err", err)
	}
	return hub.Refuse(err), nil
}

// asksOf is what the application says of a client: its backend first, then its hook. Nil where nobody is asked.
func (set *settings) asksOf(r *http.Request) hub.Connect {
	questions, hook := set.questions, set.Hooks.Connect
	asks := questions.Asks(webhook.AskConnect)
	if !asks && hook == nil {
		return nil
	}
	return func(ctx context.Context, id hub.ID, who *auth.Identity) error {
		if asks {
			if err := questions.Connect(ctx, handshake(r, id), who); err != nil {
				return err
			}
		}
		if hook == nil {
			return nil
		}
		c := &Connect{Client: id.String(), Request: r.WithContext(ctx), User: who.User}
		err := hook(ctx, c)
		if err == nil && who.User != "" && c.User != who.User {
			return fmt.Errorf("the hook Connect names the user %q, whose name is %q already", c.User, who.User)
		}
		who.User = c.User
		return err
	}
}
