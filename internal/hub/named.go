package hub

import (
	"context"
)

// What the application asks of a client or a user by name, on whichever node that is. Beside what is said of each, they
// have ErrUnavailable where a node that may have the client can't be asked, and then nothing was done, and ErrTimeout
// where it was asked and hasn't answered.

// clientQuestion is what is to be done with a client or a user.
type clientQuestion struct {
	Client ID     `json:"client,omitzero"`
	User   string `json:"user,omitzero"`
	Room   string `json:"room,omitzero"`
	Code   int    `json:"code,omitzero"` // of a Close
	Reason string `json:"reason,omitzero"`
}

// nothing is an answer that says only that it was done.
type nothing struct{}

func only(err error) (nothing, error) { return nothing{}, err }

// Join puts a client into a room, whatever it may join by itself: it is told so where it is connected, by a joined
// without an id. One that has lost its connection is in the room from now on, and is told when it resumes; no resume is
// asked whether it may be there. Where the client is in the room already nothing happens, but that it needs no
// permission any more. ErrUnknownClient, ErrLimitReached, ErrOverloaded, ErrStopped, what a log that lies elsewhere
// says, or ctx's, and then nothing was done. It waits until the client is in.
func (h *Hub) Join(ctx context.Context, room string, client ID) error {
	_, err := whereverItIs(ctx, h, client, callJoin, clientQuestion{Client: client, Room: room}, func() (nothing, error) {
		return only(h.joinHere(ctx, room, client))
	})
	return err
}

func (h *Hub) joinAsked(ctx context.Context, q clientQuestion) (nothing, error) {
	return only(h.joinHere(ctx, q.Room, q.Client))
}

// Remove takes a client out of a room; it is told so where it is connected, with the reason "kicked". ErrUnknownClient,
// ErrNotMember, ErrStopped, or ctx's, and then nothing was done. It waits until the client is out.
func (h *Hub) Remove(ctx context.Context, room string, client ID) error {
	_, err := whereverItIs(ctx, h, client, callRemove, clientQuestion{Client: client, Room: room}, func() (nothing, error) {
		return only(h.removeHere(ctx, room, client))
	})
	return err
}

func (h *Hub) removeAsked(ctx context.Context, q clientQuestion) (nothing, error) {
	return only(h.removeHere(ctx, q.Room, q.Client))
}

// Disconnect ends a client's session: its connection is closed with code and reason, and can't be resumed.
// ErrUnknownClient, ErrStopped, or ctx's, and then nothing was done. It waits until the Close is on its way.
func (h *Hub) Disconnect(ctx context.Context, client ID, code int, reason string) error {
	q := clientQuestion{Client: client, Code: code, Reason: reason}
	_, err := whereverItIs(ctx, h, client, callDisconnect, q, func() (nothing, error) {
		return only(h.disconnectHere(ctx, client, code, reason))
	})
	return err
}

func (h *Hub) disconnectAsked(ctx context.Context, q clientQuestion) (nothing, error) {
	return only(h.disconnectHere(ctx, q.Client, q.Code, q.Reason))
}

// DisconnectUser is Disconnect for all clients of a user that are there as it begins. ErrUnknownUser where there is none,
// ErrStopped, or ctx's, and then some may have been disconnected.
func (h *Hub) DisconnectUser(ctx context.Context, user string, code int, reason string) error {
	if h.cluster == nil {
		return h.disconnectUserHere(ctx, user, code, reason)
	}
	q := clientQuestion{User: user, Code: code, Reason: reason}
	return h.cluster.onAll(ctx, askedWithin, callDisconnectUser, q, func() error { return h.disconnectUserHere(ctx, user, code, reason) })
}

func (h *Hub) disconnectUserAsked(ctx context.Context, q clientQuestion) (nothing, error) {
	return only(h.disconnectUserHere(ctx, q.User, q.Code, q.Reason))
}

// Client is what is known of a client. ErrUnknownClient, ErrStopped, ctx's. It waits for the client's worker.
func (h *Hub) Client(ctx context.Context, id ID) (ClientDetail, error) {
	return whereverItIs(ctx, h, id, callClient, clientQuestion{Client: id}, func() (ClientDetail, error) { return h.clientHere(ctx, id) })
}

func (h *Hub) clientAsked(ctx context.Context, q clientQuestion) (ClientDetail, error) {
	return h.clientHere(ctx, q.Client)
}
