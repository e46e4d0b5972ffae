package hubbub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
)

// Client is what is known of a client from outside.
type Client struct {
	ID     string
	User   string // "" for none
	Parked bool   // it has lost its connection, and may come back and resume its session
}

// ClientQuery asks for clients by id.
type ClientQuery struct {
	After string // the last id of the page before; "" for the first page
	Limit int    // at most 1000; 0 is 100
}

// Clients are all who are connected or may come back, by id; more says that there are others behind them. It doesn't
// block, and goes over all clients; of several nodes it waits for their lists: ErrUnavailable.
func (s *Server) Clients(ctx context.Context, q ClientQuery) (list []Client, more bool, err error) {
	limit, err := limited(q.Limit, maxList)
	after, badAfter := afterID(q.After)
	if err = errors.Join(ctx.Err(), err, badAfter); err != nil {
		return nil, false, fmt.Errorf("hubbub: clients: %w", err)
	}
	clients, more, err := s.hub.ClientsAfter(ctx, after, limit)
	if err != nil {
		return nil, false, fmt.Errorf("hubbub: clients: %w", err)
	}
	for _, c := range clients {
		list = append(list, clientOf(c))
	}
	return list, more, nil
}

func clientOf(c hub.ClientInfo) Client { return Client{c.ID.String(), c.User, c.Parked} }

// ClientDetail is what is known of one client.
type ClientDetail struct {
	Client
	Since   time.Time // when its session began, to the second
	Address string    // without a port; "" where it is parked
	Unsent  int64     // bytes that wait for it
	Rooms   []string  // by name
}

// Client is what is known of one client. ErrUnknownClient, ErrStopped, ctx's. It waits for the client's worker, or for
// ctx. Of several nodes it asks the one that has the client, 5 seconds at most, as the calls do that follow:
// ErrUnavailable, and ErrTimeout where that doesn't answer, so that nobody knows what was done.
func (s *Server) Client(ctx context.Context, client string) (ClientDetail, error) {
	id, ok := hub.ParseID([]byte(client))
	err := error(ErrUnknownClient)
	var d hub.ClientDetail
	if ok {
		d, err = s.hub.Client(ctx, id)
	}
	if err != nil {
		return ClientDetail{}, fmt.Errorf("hubbub: client %s: %w", protocol.Quote([]byte(client)), err)
	}
	return ClientDetail{clientOf(d.ClientInfo), d.Since, d.Address, d.Unsent, d.Rooms}, nil
}

// User is what is known of a user from outside.
type User struct {
	Name    string
	Clients int // those too that may come back
}

// UserQuery asks for users by name.
type UserQuery struct {
	After string // the last name of the page before; "" for the first page
	Limit int    // at most 1000; 0 is 100
}

// Users are those who have clients, by name; more says that there are others behind them. It doesn't block, and goes
// over all users; of several nodes it waits for their lists: ErrUnavailable.
func (s *Server) Users(ctx context.Context, q UserQuery) (list []User, more bool, err error) {
	limit, err := limited(q.Limit, maxList)
	if err = errors.Join(ctx.Err(), err); err != nil {
		return nil, false, fmt.Errorf("hubbub: users: %w", err)
	}
	users, more, err := s.hub.UsersAfter(ctx, q.After, limit)
	if err != nil {
		return nil, false, fmt.Errorf("hubbub: users: %w", err)
	}
	for _, u := range users {
		list = append(list, User{u.User, u.Clients})
	}
	return list, more, nil
}

// UserClients are all clients of a user, by id. ErrUnknownUser, ctx's. It doesn't block, but of several nodes waits for
// what they have: ErrUnavailable.
func (s *Server) UserClients(ctx context.Context, user string) (list []Client, err error) {
	err = ctx.Err()
	var clients []hub.ClientInfo
	if err == nil {
		clients, err = s.hub.UserClients(ctx, user)
	}
	if err == nil && len(clients) == 0 {
		err = ErrUnknownUser
	}
	if err != nil {
		return nil, fmt.Errorf("hubbub: clients of %s: %w", protocol.Quote([]byte(user)), err)
	}
	for _, c := range clients {
		list = append(list, clientOf(c))
	}
	return list, nil
}

// Join puts a client into a room, whatever it may join by itself: no hook Join is asked, now or when it resumes. It is
// told by a joined of which it didn't ask; one that has lost its connection is in from now on, and is told when it
// resumes. That it is in the room already is no error. ErrUnknownClient, ErrLimitReached, ErrOverloaded, ErrStopped,
// ctx's. It waits until the client is in, or for ctx; an error says that nothing was done, nor will be.
func (s *Server) Join(ctx context.Context, room, client string) error {
	err := checked(ctx, room)
	if err == nil {
		err = ErrUnknownClient
		if id, ok := hub.ParseID([]byte(client)); ok {
			err = s.hub.Join(ctx, room, id)
		}
	}
	if err != nil {
		return fmt.Errorf("hubbub: join %s to %s: %w", protocol.Quote([]byte(client)), protocol.Quote([]byte(room)), err)
	}
	return nil
}

// Remove takes a client out of a room; it is told so, with the reason "kicked", and may join again. One that has lost
// its connection isn't told, and joins again when it resumes: who is to stay out is refused by the hook Join.
// ErrUnknownClient, ErrNotMember, ErrStopped, ctx's. It waits until the client is out, or for ctx; an error says that
// nothing was done, nor will be.
func (s *Server) Remove(ctx context.Context, room, client string) error {
	id, ok := hub.ParseID([]byte(client))
	err := error(ErrUnknownClient)
	if ok {
		err = s.hub.Remove(ctx, room, id)
	}
	if err != nil {
		return fmt.Errorf("hubbub: remove %s from %s: %w", protocol.Quote([]byte(client)), protocol.Quote([]byte(room)), err)
	}
	return nil
}

// Disconnect closes a client's connection with a code from 4000 to 4999 (0 is 4500, "kicked": from 4500 on clients
// don't come back by themselves) and a reason of at most 123 bytes, and ends its session: it can't be resumed.
// ErrUnknownClient, ErrStopped, ctx's. It waits until the Close is on its way, or for ctx; an error says that nothing
// was done, nor will be. A client's own hook or Handler may call it, whose ctx ends then.
func (s *Server) Disconnect(ctx context.Context, client string, code int, reason string) error {
	code, err := closeWith(code, reason)
	if err == nil {
		err = ErrUnknownClient
		if id, ok := hub.ParseID([]byte(client)); ok {
			err = s.hub.Disconnect(ctx, id, code, reason)
		}
	}
	if err != nil {
		return fmt.Errorf("hubbub: disconnect %s: %w", protocol.Quote([]byte(client)), err)
	}
	return nil
}

// DisconnectUser is Disconnect for all clients that a user has as it begins. ErrUnknownUser where there is none,
// ErrStopped, ctx's; with the last two some may have been disconnected.
func (s *Server) DisconnectUser(ctx context.Context, user string, code int, reason string) error {
	code, err := closeWith(code, reason)
	if err == nil {
		err = s.hub.DisconnectUser(ctx, user, code, reason)
	}
	if err != nil {
		return fmt.Errorf("hubbub: disconnect user %s: %w", protocol.Quote([]byte(user)), err)
	}
	return nil
}

// closeWith is the code to close with, or says why code and reason can't be.
func closeWith(code int, reason string) (int, error) {
	code = cmp.Or(code, protocol.CloseKicked)
	switch {
	case code < 4000 || code > 4999:
		return 0, fmt.Errorf("the code must be 4000 to 4999, not %d", code)
	case len(reason) > maxReason || !utf8.ValidString(reason):
		return 0, fmt.Errorf("the reason must be UTF-8 of at most %d bytes, not %s", maxReason, protocol.Quote([]byte(reason)))
	}
	return code, nil
}

// maxReason is what a Close frame has room for beside its code (RFC 6455 5.5).
const maxReason = 123

// afterID is the id after which a page begins, zero for the first one.
func afterID(after string) (id hub.ID, err error) {
	id, ok := hub.ParseID([]byte(after))
	if after != "" && !ok {
		err = fmt.Errorf("After is no client's id: %s", protocol.Quote([]byte(after)))
	}
	return id, err
}
