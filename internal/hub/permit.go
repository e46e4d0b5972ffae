package hub

import (
	"bytes"
	"context"
	"log/slog"
	"strconv"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/loop"
	"example.com/hubbub/internal/protocol"
)

// Whether a client may do a thing is asked in one place, permit: what it decides holds for commands, and for each room
// of a resume. What a limit or a share forbids is another question (limit), and comes behind it.

// verb is a thing that a client may do, or not.
type verb uint8

const (
	// In a room.
	mayJoin verb = iota
	mayRead      // the history, and who is in the room
	mayPublish
	// What belongs to no room.
	mayChat
	mayDirect
	verbs
)

// permit says whether the client may do it, in that room where the verb is of one: no where a policy forbids it, else
// what the application has still to be asked by cmd; where that is nil too, it may. Members may join, which changes
// nothing, and read.
func (s *session) permit(v verb, room []byte, cmd *protocol.Command) (ask hook, no *protocol.Error) {
	if no = s.forbids(v, room); no != nil {
		return nil, no
	}
	hooks := &s.hub.cfg().Hooks
	switch {
	case v >= mayPublish && hooks.Publish != nil:
		return askPublish(hooks, s.identity(), cmd), nil
	case v == mayJoin && hooks.Join != nil && s.find(room) < 0 && !s.seated(room):
		return askRoom(hooks.Join, s.identity(), room), nil
	case v == mayRead && hooks.Read != nil && s.find(room) < 0:
		return askRoom(hooks.Read, s.identity(), room), nil
	}
	return nil, nil
}

// forbids holds the client against the policy alone, and counts and logs what that denies. The error tells nothing of
// what there is.
func (s *session) forbids(v verb, room []byte) *protocol.Error {
	who := s.whoMay(v, room)
	may := s.among(who, v, room)
	if hooks := &s.hub.cfg().Hooks; may && v == mayRead && hooks.Join != nil && hooks.Read == nil {
		who, may = Members, s.find(room) >= 0 // or it could read what Join keeps from it
	}
	if may {
		return nil
	}
	s.state().denied[v]++
	s.hub.denials.Log(s.hub.cfg().Log, slog.LevelInfo, "a client may not do what it asked for", "client", s.id, "user", s.name(), "verb", verbNames[v], "room", string(room), "for", who)
	if who == Members {
		return &protocol.Error{Code: protocol.NotMember, Message: "only members may " + sayings[v]}
	}
	return &protocol.Error{Code: protocol.Forbidden, Message: "you may not " + sayings[v]}
}

// verbNames are the verbs as the metrics and the log have them, and sayings as clients are told.
var (
	verbNames = [verbs]string{"join", "read", "publish", "chat", "direct"}
	sayings   = [verbs]string{"join this room", "read this room", "publish to this room", "send a chat", "send a direct message"}
)

// whoMay is who may do it, by the first rule that fits the room and the client.
func (s *session) whoMay(v verb, room []byte) Who {
	cfg := s.hub.cfg()
	switch {
	case v == mayChat:
		return cfg.Chat
	case v == mayDirect:
		return cfg.Direct
	case !cfg.Policies.bounds[v]:
		return Anyone
	}
	user := s.name()
	if user == "" || len(cfg.Policies.personal) == 0 {
		policy, _ := s.policyOf(room)
		return policy.of(v)
	}
	a, _ := cfg.Policies.AccessFor(string(room), user)
	return a.of(v)
}

// among says that the client is one of who, who may do it. A member may read, and be where it is.
func (s *session) among(who Who, v verb, room []byte) bool {
	switch {
	case who == Anyone:
		return true
	case v <= mayRead && s.find(room) >= 0, v == mayJoin && s.seated(room):
		return true
	}
	return s.isOne(who, v, room)
}

func (s *session) isOne(who Who, v verb, room []byte) bool {
	switch who {
	case Anyone:
		return true
	case Members:
		return s.find(room) >= 0
	case Users:
		return s.name() != ""
	case Granted:
		return s.granted(v, room)
	}
	return false
}

// granted says that the client's grants let it do so.
func (s *session) granted(v verb, room []byte) bool {
	who := s.known()
	if who == nil || who.Grants == nil {
		return false
	}
	g := who.Grants
	switch v {
	case mayJoin:
		return auth.Fit(g.Join, string(room), who.User)
	case mayRead:
		return auth.Fit(g.Read, string(room), who.User)
	case mayPublish:
		return auth.Fit(g.Publish, string(room), who.User)
	case mayChat:
		return g.Chat
	}
	return g.Direct
}

// seated says that the client may be in the room without a permission: its identity names the room, or the application
// has put it there, and it is coming home.
func (s *session) seated(room []byte) bool {
	if s.named(string(room)) {
		return true
	}
	return s.coming() && s.more.coming.left[string(room)].put
}

// policyOf is the policy of a room; a member knows it without a search.
func (s *session) policyOf(room []byte) (policy *Policy, member bool) {
	if i := s.find(room); i >= 0 {
		return s.rooms[i].local.room.policy(), true
	}
	return s.hub.cfg().Policies.For(string(room)), false
}

// Denied counts what policies have denied a worker's clients, by verb.
type Denied [verbs]int64

// Each calls f with every verb's name and count.
func (d *Denied) Each(f func(verb string, n int64)) {
	for v, n := range d {
		f(verbNames[v], n)
	}
}

// Denied is a copy. The worker's goroutine, or anyone's once the worker has ended.
func (h *Hub) Denied(w *loop.Worker) Denied { return h.workers[w.Index()].denied }

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
	case protocol.RoomMessage:
		do, no = s.permit(mayPublish, cmd.Room, cmd)
	case protocol.Chat:
		do, no = s.permit(mayChat, nil, cmd)
	case protocol.DirectMessage:
		do, no = s.permit(mayDirect, nil, cmd)
	case protocol.Resume:
		return s.questionOfRooms(cmd), s.mayBeHooked()
	case protocol.Custom:
		do, no = s.askCustom(cmd, raw)
	case protocol.Request:
		do, no = s.askRequest(cmd)
	case protocol.Refresh:
		do, no = s.askRefresh(cmd)
	}
	if no == nil {
		no = s.limit(cmd)
	}
	if do == nil || no != nil {
		return nil, no
	}
	return &run{do: do}, nil
}

// forbiddenRooms adds what the policies forbid to what the application has refused of a resume.
func (s *session) forbiddenRooms(cmd *protocol.Command, refused []*protocol.Error) []*protocol.Error {
	for i, r := range cmd.Rooms {
		if refused != nil && refused[i] != nil {
			continue
		}
		if no := s.forbids(mayJoin, r.Room); no != nil {
			if refused == nil {
				refused = make([]*protocol.Error, len(cmd.Rooms))
			}
			refused[i] = no
		}
	}
	return refused
}

// questionOfRooms asks the application about each room of a resume; nil where it has no say. What the policies say of
// them is asked when the rooms are resumed; here it is that nobody is asked about what they forbid, or limits.
func (s *session) questionOfRooms(cmd *protocol.Command) (r *run) {
	if s.hub.cfg().Hooks.Join == nil {
		return nil
	}
	limited := s.limitedRooms(cmd)
	if !s.conn.Open() {
		return nil
	}
	for i, at := range cmd.Rooms {
		ask, no := s.permit(mayJoin, at.Room, cmd)
		if limited != nil && limited[i] != nil && no == nil {
			ask, no = nil, limited[i]
		}
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

// takenOut adds to what the application has said of a resume's rooms a no to those about which it wasn't asked, as the
// client was in them or had its seat there, and out of which it has been taken meanwhile.
func (s *session) takenOut(cmd *protocol.Command, joins []join, refused []*protocol.Error) []*protocol.Error {
	for i, at := range cmd.Rooms {
		if joins[i].ask == nil && refused[i] == nil && s.find(at.Room) < 0 && !s.seated(at.Room) {
			refused[i] = &protocol.Error{Code: protocol.Forbidden, Message: "you may not " + sayings[mayJoin]}
		}
	}
	return refused
}

func (s *session) askCustom(cmd *protocol.Command, raw []byte) (hook, *protocol.Error) {
	hooks, who, msgType := &s.hub.cfg().Hooks, s.identity(), string(cmd.Type)
	if hooks.Known == nil || !hooks.Known(msgType) {
		return nil, &protocol.Error{Code: protocol.UnknownType, Message: "no msg_type " + protocol.Quote(cmd.Type)}
	}
	raw = bytes.Clone(raw)
	return func(ctx context.Context) outcome {
		reply, err := hooks.Custom(ctx, who, msgType, raw)
		return outcome{content: reply, err: err}
	}, nil
}

func (s *session) askRequest(cmd *protocol.Command) (hook, *protocol.Error) {
	hooks, who := &s.hub.cfg().Hooks, s.identity()
	if hooks.Request == nil {
		return nil, &protocol.Error{Code: protocol.Unavailable, Message: "nobody answers requests here"}
	}
	method, content := string(cmd.Method), bytes.Clone(cmd.Content)
	return func(ctx context.Context) outcome {
		reply, err := hooks.Request(ctx, who, method, content)
		return outcome{content: reply, err: err}
	}, nil
}

func (s *session) askRefresh(cmd *protocol.Command) (hook, *protocol.Error) {
	hooks, who := &s.hub.cfg().Hooks, s.identity()
	if hooks.Refresh == nil {
		return nil, &protocol.Error{Code: protocol.Unavailable, Message: "this server reads no tokens"}
	}
	token := string(cmd.Token)
	return func(ctx context.Context) outcome {
		fresh, err := hooks.Refresh(ctx, who, token)
		return outcome{who: &fresh, err: err}
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
		if no := s.limitOfData(cmd); no != nil {
			return no
		}
		return s.mayJoin()
	case protocol.RoomMessage:
		return s.limitOfPublishing(cmd)
	}
	return nil
}

// limitOfRooms holds one room more, beside others that are to come, against the limits.
func (s *session) limitOfRooms(others int) *protocol.Error {
	switch {
	case len(s.rooms)+others >= s.hub.cfg().MaxRoomsPerClient:
		return &protocol.Error{Code: protocol.LimitReached, Message: "a client may be in so many rooms at most: " + strconv.Itoa(s.hub.cfg().MaxRoomsPerClient)}
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
