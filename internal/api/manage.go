package api

import (
	"context"
	"errors"
	"net/http"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
)

func (a *API) joinRoom(ctx context.Context, room, client string) *problem {
	id, is := hub.ParseID([]byte(client))
	if !is {
		return problemOf(hub.ErrUnknownClient)
	}
	return problemOf(a.Hub.Join(ctx, room, id))
}

func (a *API) leaveRoom(ctx context.Context, room, client string) *problem {
	id, is := hub.ParseID([]byte(client))
	if !is {
		return problemOf(hub.ErrUnknownClient)
	}
	return problemOf(a.Hub.Remove(ctx, room, id))
}

// disconnect ends one client, or all of a user where client is "".
func (a *API) disconnect(ctx context.Context, client, user string, code int, reason string) *problem {
	if client == "" {
		return problemOf(a.Hub.DisconnectUser(ctx, user, code, reason))
	}
	id, is := hub.ParseID([]byte(client))
	if !is {
		return problemOf(hub.ErrUnknownClient)
	}
	return problemOf(a.Hub.Disconnect(ctx, id, code, reason))
}

// deleteMessages forgets the message with an offset, or all where that is 0.
func (a *API) deleteMessages(ctx context.Context, room, epoch string, offset uint64) *problem {
	if offset == 0 {
		return problemOf(a.Hub.DeleteHistory(ctx, room))
	}
	err := a.Hub.DeleteMessage(ctx, room, epoch, offset)
	if errors.Is(err, hub.ErrNoPosition) { // what the path names isn't there
		no := *problemOf(err)
		no.status, no.detail = http.StatusNotFound, "offset: the room keeps no such message"
		return &no
	}
	return problemOf(err)
}

// The calls that wait for clients' workers.

func (a *API) join(c *call) ([]byte, *problem) { return c.inRoom(a.joinRoom) }

func (a *API) leave(c *call) ([]byte, *problem) { return c.inRoom(a.leaveRoom) }

func (c *call) inRoom(do func(ctx context.Context, room, client string) *problem) ([]byte, *problem) {
	room, no := c.room()
	if no != nil {
		return nil, no
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), waitFor)
	defer cancel()
	return nil, do(ctx, room, c.args[1])
}

func (a *API) disconnectClient(c *call) ([]byte, *problem) { return a.disconnectBy(c, c.args[0], "") }

func (a *API) disconnectUser(c *call) ([]byte, *problem) { return a.disconnectBy(c, "", c.args[0]) }

func (a *API) disconnectBy(c *call, client, user string) ([]byte, *problem) {
	code := protocol.CloseKicked
	if c.query.Has("code") {
		n, ok := parseOffset(c.query.Get("code"))
		if !ok || n < 4000 || n > 4999 {
			return nil, bad("code must be a whole number from 4000 to 4999")
		}
		code = int(n)
	}
	reason := c.query.Get("reason")
	if no := checkShort(reason, "reason", 0, maxReason); no != nil {
		return nil, no
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), waitFor)
	defer cancel()
	return nil, a.disconnect(ctx, client, user, code, reason)
}

func (a *API) deleteHistory(c *call) ([]byte, *problem) {
	room, no := c.room()
	if no != nil {
		return nil, no
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), waitFor)
	defer cancel()
	return nil, a.deleteMessages(ctx, room, "", 0)
}

func (a *API) deleteMessage(c *call) ([]byte, *problem) {
	room, no := c.room()
	if no != nil {
		return nil, no
	}
	offset, ok := parseOffset(c.args[1])
	if !ok || offset == 0 {
		return nil, bad("offset must be a whole number from 1 to %d", uint64(maxOffset))
	}
	epoch := c.query.Get("epoch")
	if c.query.Has("epoch") {
		if no := checkShort(epoch, "epoch", 1, protocol.MaxEpoch); no != nil {
			return nil, no
		}
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), waitFor)
	defer cancel()
	return nil, a.deleteMessages(ctx, room, epoch, offset)
}
