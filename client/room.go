package client

import (
	"context"
	"encoding/json"
	"iter"
)

// Room is a room of a Hub.
type Room struct {
	// Static.
	hub   *Hub
	name  string
	inbox *inbox

	// Guarded by hub.mu.
	joined bool            // the client is in it, or shall be again when it is back
	away   bool            // joined, and on this connection not entered yet
	since  *Position       // while away: where it was
	at     *Position       // how far it has come, nil where the room has no history
	data   json.RawMessage // of its join
	list   list
}

// position is a copy of where the client is. The hub's mu is held.
func (r *Room) position() *Position {
	if r.at == nil {
		return nil
	}
	return &Position{r.at.Epoch, r.at.Offset}
}

// Name is the room's.
func (r *Room) Name() string { return r.name }

// JoinOptions are what a client says as it joins. The zero value works.
type JoinOptions struct {
	Data  any       // what others see of it, where the room tells who is in it; nil: nothing
	Since *Position // from where on it wants what it missed; where that can't be had, Lost is the first event
}

// Join joins the room: from now on its messages come, over lost connections too. Joining twice is joining once. A join
// whose context ends before its answer may have been done.
func (r *Room) Join(ctx context.Context) error { return r.JoinWith(ctx, JoinOptions{}) }

// JoinWith is Join with options.
func (r *Room) JoinWith(ctx context.Context, o JoinOptions) (err error) {
	var data json.RawMessage
	if o.Data != nil {
		if data, err = contentOf(o.Data); err != nil {
			return err
		}
	}
	var since *Position
	if o.Since != nil {
		since = &Position{o.Since.Epoch, o.Since.Offset}
	}
	_, err = r.hub.do(ctx, &call{
		message: outgoing{Type: "join_room", Room: r.name, Since: since, Data: data},
		answered: func(m incoming, err error) []delivery {
			if err != nil {
				return nil
			}
			if !r.joined {
				r.data = data
			}
			return r.enter(m.place(), since, false)
		},
	})
	return err
}

// Leave leaves the room.
func (r *Room) Leave(ctx context.Context) error {
	_, err := r.hub.do(ctx, &call{
		message: outgoing{Type: "leave_room", Room: r.name},
		answered: func(_ incoming, err error) []delivery {
			if err != nil {
				return nil
			}
			return r.leave("")
		},
	})
	return err
}

// PublishOptions go with a message. The zero value works.
type PublishOptions struct {
	Key string // what it is about, for rooms that keep the latest of each key
	ID  string // its publish_id, by which the server knows it again; "": one that nobody else has
}

// Publish publishes content, as JSON; a json.RawMessage is JSON already. It returns where the message is, the zero
// Position in a room without history. An error of ErrUnknown says that it may have gone through.
func (r *Room) Publish(ctx context.Context, content any, o PublishOptions) (Position, error) {
	c, err := contentOf(content)
	if err != nil {
		return Position{}, err
	}
	answer, err := r.hub.do(ctx, &call{kind: once, message: outgoing{Type: "room_message", Room: r.name, Content: c, Key: o.Key, PublishID: o.ID}})
	return Position{answer.Epoch, answer.Offset}, err
}

// HistoryOptions say which page is wanted: onwards from Since, or back from Before, both without the message there; with
// neither the latest. Limit is 100 where it is 0, and at most 1000.
type HistoryOptions struct {
	Since, Before *Position
	Limit         int
}

// History reads a page of what the room keeps, without joining.
func (r *Room) History(ctx context.Context, o HistoryOptions) (Page, error) {
	answer, err := r.hub.do(ctx, &call{message: outgoing{Type: "history", Room: r.name, Since: o.Since, Before: o.Before, Limit: o.Limit}})
	if err != nil {
		return Page{}, err
	}
	page := Page{Position: Position{answer.Epoch, answer.Offset}, More: answer.More}
	for _, m := range answer.Messages {
		page.Messages = append(page.Messages, m.message(r.name, answer.Epoch))
	}
	return page, nil
}

// Presence asks who is in the room.
func (r *Room) Presence(ctx context.Context) (Presence, error) {
	answer, err := r.hub.do(ctx, &call{message: outgoing{Type: "presence", Room: r.name}})
	return Presence{Count: answer.Count, Members: answer.Members, More: answer.More}, err
}

// Events ranges over what comes of the room, in the room's order: Message, Gap, Lost, Deleted, Left. What came since the
// join and wasn't read comes first, and who breaks off may go on later. It ends with ctx, or after Close when all is
// read.
func (r *Room) Events(ctx context.Context) iter.Seq[Event] { return r.inbox.all(ctx) }

// Messages ranges over the messages alone, and ends when the client has left, too. Who must know what is missing takes
// Events.
func (r *Room) Messages(ctx context.Context) iter.Seq[Message] { return messages(r.inbox.all(ctx)) }
