package hub

import (
	"bytes"
	"context"
	"strconv"

	"example.com/hubbub/internal/protocol"
)

// Whether a client may do a thing is asked in one place, permit: what it decides holds for commands, and for each room
// of a resume. What a limit or a share forbids is another question (limit), and comes behind it.

// verb is a thing that a client may do in a room, or not.
type verb uint8

const (
	mayJoin    verb = iota
	mayRead         // the history, and who is in the room
	mayPublish      // or send a chat or a direct message, which belong to no room
)

// permit says whether the client may do it in that room, by cmd: no where the room's policy forbids it, else what the
// application has still to be asked; where that is nil too, it may. Members may join, which changes nothing, and read.
func (s *session) permit(v verb, room []byte, cmd *protocol.Command) (ask hook, no *protocol.Error) {
	hooks := &s.hub.cfg.Hooks
	switch {
	case v == mayPublish:
		if no = s.policyOfPublishing(cmd); no == nil && hooks.Publish != nil {
			ask = askPublish(hooks, s.identity(), cmd)
		}
		return ask, no
	case s.find(room) >= 0 || v == mayJoin && s.putInto(room):
		return nil, nil
	case v == mayJoin && hooks.Join != nil:
		return askRoom(hooks.Join, s.identity(), room), nil
	case v == mayRead && hooks.Read != nil:
		return askRoom(hooks.Read, s.identity(), room), nil
	case v == mayRead && hooks.Join != nil:
		return nil, &protocol.Error{Code: protocol.NotMember, Message: "only members may read this room"}
	}
	return nil, nil
}

// putInto says that the server has put the session, which is coming home, into the room.
func (s *session) putInto(room []byte) bool {
	return s.coming() && s.more.coming.left[string(room)].put
}

// policyOfPublishing holds a message against its room's policy.
func (s *session) policyOfPublishing(cmd *protocol.Command) *protocol.Error {
	if cmd.Kind != protocol.RoomMessage {
		return nil
	}
	switch policy, member := s.policyOf(cmd.Room); {
	case policy.Publish == ServerOnly:
		return &protocol.Error{Code: protocol.Forbidden, Message: "only the server may publish to this room"}
	case policy.Publish == Members && !member:
		return &protocol.Error{Code: protocol.NotMember, Message: "only members may publish to this room"}
	}
	return nil
}

// policyOf is the policy of a room; a member knows it without a search.
func (s *session) policyOf(room []byte) (policy *Policy, member bool) {
	if i := s.find(room); i >= 0 {
		return s.rooms[i].local.room.policy, true
	}
	return s.hub.cfg.Policies.For(string(room)), false
}

func askRoom(may func(ctx context.Context, who Identity, room string) error, who Identity, room []byte) hook {
	name := string(room)
	return func(ctx context.Context) outcome { return outcome{err: may(ctx, who, name)} }
}

func askPublish(hooks *Hooks, who Identity, cmd *protocol.Command) hook {
	d := Draft{Room: string(cmd.Room), To: canonical(cmd.To), Key: string(cmd.Key), Content: bytes.Clone(cmd.Content)}
	return func(ctx context.Context) outcome {
		content, err := hooks.Publish(ctx, who, d)
		return outcome{content: content, err: err}
	}
}

// question is what the application has to be asked before a command is obeyed, nil for nothing, or what is wrong with
// it. It comes before the hook Publish that something can't be kept: what the application has taken for published must
// be.
func (s *session) question(cmd *protocol.Command, raw []byte) (ask *run, no *protocol.Error) {
	var do hook
	switch cmd.Kind {
	case protocol.JoinRoom:
		do, no = s.permit(mayJoin, cmd.Room, cmd)
	case protocol.History, protocol.Presence:
		do, no = s.permit(mayRead, cmd.Room, cmd)
	case protocol.Chat, protocol.RoomMessage, protocol.DirectMessage:
		do, no = s.permit(mayPublish, cmd.Room, cmd)
	case protocol.Resume:
		return s.questionOfRooms(cmd), s.mayBeHooked()
	case protocol.Custom:
		do, no = s.askCustom(cmd, raw)
	case protocol.Reserved:
		no = &protocol.Error{Code: protocol.Unavailable, Message: "msg_type " + protocol.Quote(cmd.Type) + " is reserved, and not available in this version"}
	}
	if no == nil {
		no = s.limit(cmd)
	}
	if do == nil || no != nil {
		return nil, no
	}
	return &run{do: do}, nil
}

// questionOfRooms asks about each room of a resume; nil where it may be in all of them.
func (s *session) questionOfRooms(cmd *protocol.Command) (r *run) {
	for i, at := range cmd.Rooms {
		ask, no := s.permit(mayJoin, at.Room, cmd)
		if ask == nil && no == nil {
			continue
		}
		if r == nil {
			r = &run{joins: make([]join, len(cmd.Rooms))}
		}
		r.joins[i] = join{ask, no}
	}
	return r
}

func (s *session) askCustom(cmd *protocol.Command, raw []byte) (hook, *protocol.Error) {
	hooks, who, msgType := &s.hub.cfg.Hooks, s.identity(), string(cmd.Type)
	if hooks.Known == nil || !hooks.Known(msgType) {
		return nil, &protocol.Error{Code: protocol.UnknownType, Message: "no msg_type " + protocol.Quote(cmd.Type)}
	}
	raw = bytes.Clone(raw)
	return func(ctx context.Context) outcome {
		reply, err := hooks.Custom(ctx, who, msgType, raw)
		return outcome{content: reply, err: err}
	}, nil
}

// limit holds a command against what one client may have, and against its share of what the server keeps.
func (s *session) limit(cmd *protocol.Command) *protocol.Error {
	switch cmd.Kind {
	case protocol.JoinRoom:
		if s.find(cmd.Room) >= 0 {
			return nil // joining twice is joining once
		}
		if no := s.limitOfRooms(0); no != nil {
			return no
		}
		return s.limitOfData(cmd)
	case protocol.RoomMessage:
		return s.limitOfPublishing(cmd)
	}
	return nil
}

// limitOfRooms holds one room more, beside others that are to come, against the limits.
func (s *session) limitOfRooms(others int) *protocol.Error {
	switch {
	case len(s.rooms)+others >= s.hub.cfg.MaxRoomsPerClient:
		return &protocol.Error{Code: protocol.LimitReached, Message: "a client may be in so many rooms at most: " + strconv.Itoa(s.hub.cfg.MaxRoomsPerClient)}
	case len(s.rooms) >= manyRooms && !s.payer().may(membershipCost):
		return tooMuch(protocol.LimitReached, "its rooms")
	}
	return nil
}

func (s *session) limitOfPublishing(cmd *protocol.Command) *protocol.Error {
	policy, _ := s.policyOf(cmd.Room)
	switch {
	case policy.History.Messages > 0 && !s.payer().may(int64(len(cmd.Content))+entryCost+roomCost):
		return tooMuch(protocol.RateLimited, "its messages in the rooms' histories")
	case cmd.PublishID != nil && s.hub.loop.Overloaded():
		return &protocol.Error{Code: protocol.Overloaded, Message: "the server can't remember one more publish_id"}
	case cmd.PublishID != nil && !s.payer().may(s.publishKey(cmd).cost()):
		return tooMuch(protocol.RateLimited, "its publish_ids")
	}
	return nil
}

// tooMuch tells a client that its share of what the server keeps is used up.
func tooMuch(code protocol.Code, what string) *protocol.Error {
	return &protocol.Error{Code: code, Message: "the server keeps as much for this client as for any: no more of " + what}
}
