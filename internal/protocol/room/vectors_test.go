package room

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"example.com/hubbub/internal/protocol"
)

var kindNames = map[protocol.Kind]string{
	protocol.Custom: "custom", protocol.Chat: "chat", protocol.JoinRoom: "join_room", protocol.LeaveRoom: "leave_room",
	protocol.RoomMessage: "room_message", protocol.DirectMessage: "direct_message", protocol.Presence: "presence",
	protocol.History: "history", protocol.Ping: "ping", protocol.Resume: "resume", protocol.Refresh: "refresh", protocol.Request: "request",
}

func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("../../../testdata/protocol/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

type decodeVector struct {
	Rule, Name, In string
	InHex          string `json:"in_hex"`
	Error          string
	Kind           string
	Type           *string
	ID             string
	Room, To       string
	Content        string
	Key            string
	PublishID      string `json:"publish_id"`
	Token, Method  string
	Data           string
	Since, Before  *vectorPosition
	Limit          int
	Rooms          []vectorRoom
	More           bool
}

type vectorPosition struct {
	Epoch  string
	Offset uint64
}

type vectorRoom struct {
	Room string
	At   *vectorPosition
}

// decoded is what a vector would say of c.
func decoded(c *decoding) decodeVector {
	position := func(p protocol.Position, has bool) *vectorPosition {
		if !has {
			return nil
		}
		return &vectorPosition{string(p.Epoch), p.Offset}
	}
	msgType := string(c.Type)
	v := decodeVector{Kind: kindNames[c.Kind], Type: &msgType, ID: string(c.ID), Room: string(c.Room), To: string(c.To),
		Content: string(c.Content), Key: string(c.Key), PublishID: string(c.PublishID), Token: string(c.Token), Method: string(c.Method), Data: string(c.Data),
		Since: position(c.Since, c.HasSince), Before: position(c.Before, c.HasBefore), Limit: c.Limit, More: c.More}
	for _, r := range c.Rooms {
		v.Rooms = append(v.Rooms, vectorRoom{string(r.Room), position(r.At, r.HasAt)})
	}
	return v
}

func (v decodeVector) String() string {
	text, _ := json.Marshal(v)
	return string(text)
}

func (v *decodeVector) text(t *testing.T) []byte {
	if v.InHex == "" {
		return []byte(v.In)
	}
	text, err := hex.DecodeString(v.InHex)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestDecodeFollowsTheVectors(t *testing.T) {
	var vectors []decodeVector
	readVectors(t, "decode.json", &vectors)
	var c decoding // one for all of them, as a worker does: nothing may be left of the one before
	for _, v := range vectors {
		t.Run(v.Rule+"/"+v.Name, func(t *testing.T) {
			err := decode(v.text(t), &c)
			if got := string(c.ID); got != v.ID {
				t.Errorf("id %q, want %q", got, v.ID)
			}
			if v.Error != "" {
				if err == nil || err.Code.String() != v.Error {
					t.Fatalf("got %v, want %s", err, v.Error)
				}
				return
			}
			if err != nil {
				t.Fatalf("got %v, want it accepted", err)
			}
			want := v
			want.Rule, want.Name, want.In, want.InHex = "", "", "", ""
			if want.Type == nil {
				want.Type = &want.Kind
			}
			if got := decoded(&c); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

// message is every field that the server sends, for the vectors and for the document's examples.
type message struct {
	MsgType         string          `json:"msg_type"`
	From            string          `json:"from"`
	Content         json.RawMessage `json:"content"`
	ClientID        string          `json:"client_id"`
	MaxMessageBytes int             `json:"max_message_bytes"`
	PingIntervalMS  int64           `json:"ping_interval_ms"`
	PongTimeoutMS   int64           `json:"pong_timeout_ms"`
	ResumeToken     string          `json:"resume_token"`
	ResumeWindowMS  int64           `json:"resume_window_ms"`
	Resumed         bool            `json:"resumed"`
	Room            string          `json:"room"`
	Epoch           string          `json:"epoch"`
	Offset          uint64          `json:"offset"`
	Recovered       *bool           `json:"recovered"`
	Duplicate       bool            `json:"duplicate"`
	User            string          `json:"user"`
	Key             *string         `json:"key"`
	Time            int64           `json:"time"`
	Count           int64           `json:"count"`
	Messages        []message       `json:"messages"`
	Members         []struct {
		ClientID string          `json:"client_id"`
		User     string          `json:"user"`
		Data     json.RawMessage `json:"data"`
	} `json:"members"`
	More         bool               `json:"more"`
	Rooms        map[string]message `json:"rooms"`
	FromOffset   uint64             `json:"from_offset"`
	ToOffset     uint64             `json:"to_offset"`
	Code         string             `json:"code"`
	Message      string             `json:"message"`
	RetryAfterMS int64              `json:"retry_after_ms"`
	AfterMS      int64              `json:"after_ms"`
	Reason       string             `json:"reason"`
	Retry        bool               `json:"retry"`
	ExpiresAt    int64              `json:"expires_at"`
	ID           json.RawMessage    `json:"id"`
}

// encode writes m as the server does.
func encode(m message) []byte {
	switch m.MsgType {
	case "chat":
		return dialect.AppendMessage(nil, m.message(protocol.Chat))
	case "direct_message":
		return dialect.AppendMessage(nil, m.message(protocol.DirectMessage))
	case "room_message":
		return dialect.AppendMessage(nil, m.message(protocol.RoomMessage))
	}
	return dialect.AppendAnswer(nil, m.answer())
}

func (m *message) message(kind protocol.Kind) *protocol.Message {
	msg := &protocol.Message{Kind: kind, Room: m.Room, From: m.From, User: m.User, Content: m.Content, Time: m.Time, Offset: m.Offset}
	if m.Key != nil {
		msg.Key = []byte(*m.Key)
	}
	return msg
}

func (m *message) answer() *protocol.Answer {
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	a := &protocol.Answer{ID: m.ID, Room: m.Room, Epoch: m.Epoch, Offset: m.Offset, Since: m.Recovered != nil, Reason: m.Reason,
		Duplicate: m.Duplicate, Members: m.members(), More: m.More, Count: m.Count, From: m.FromOffset, To: m.ToOffset, Time: m.Time,
		After: ms(m.RetryAfterMS + m.AfterMS)}
	a.Recovered = a.Since && *m.Recovered
	switch m.MsgType {
	case "welcome":
		a.Kind = protocol.AnswerWelcome
		a.Welcome = protocol.Welcome{ClientID: m.ClientID, MaxMessageBytes: m.MaxMessageBytes, PingInterval: ms(m.PingIntervalMS),
			PongTimeout: ms(m.PongTimeoutMS), ResumeToken: m.ResumeToken, ResumeWindow: ms(m.ResumeWindowMS), Resumed: m.Resumed,
			User: m.User, Expires: m.ExpiresAt}
	case "joined":
		a.Kind = protocol.AnswerJoined
	case "left":
		a.Kind = protocol.AnswerLeft
	case "ack":
		a.Kind = protocol.AnswerAck
	case "history":
		a.Kind = protocol.AnswerHistory
		for i := range m.Messages {
			m.Messages[i].Room = m.Room
			a.Messages = append(a.Messages, m.Messages[i].message(protocol.RoomMessage))
		}
	case "presence":
		a.Kind = protocol.AnswerPresence
	case "member_joined":
		a.Kind = protocol.AnswerMemberJoined
	case "member_left":
		a.Kind = protocol.AnswerMemberLeft
	case "gap":
		a.Kind = protocol.AnswerGap
	case "deleted":
		a.Kind = protocol.AnswerDeleted
		a.From = m.Offset
	case "resumed":
		a.Kind = protocol.AnswerResumed
		for _, name := range slices.Sorted(maps.Keys(m.Rooms)) {
			r := m.Rooms[name]
			a.Rooms = append(a.Rooms, protocol.ResumedRoom{Room: name, Epoch: r.Epoch, Offset: r.Offset, Recovered: *r.Recovered, Reason: r.Reason, Retry: r.Retry})
		}
	case "pong":
		a.Kind = protocol.AnswerPong
	case "error":
		a.Kind, a.Err = protocol.AnswerError, &protocol.Error{Code: codeOf(m.Code), Message: m.Message}
	case "reconnect":
		a.Kind = protocol.AnswerReconnect
	case "refreshed":
		a.Kind, a.Expires = protocol.AnswerRefreshed, m.ExpiresAt
	case "response":
		a.Kind, a.Content = protocol.AnswerResponse, m.Content
	default:
		a.Kind, a.Type, a.Content = protocol.AnswerReply, m.MsgType, m.Content
	}
	return a
}

// members is nil where m has no list.
func (m *message) members() (list []protocol.Member) {
	if m.Members != nil {
		list = []protocol.Member{}
	}
	for _, one := range m.Members {
		list = append(list, protocol.Member{ClientID: one.ClientID, User: one.User, Data: one.Data})
	}
	return list
}

func codeOf(name string) protocol.Code {
	for c := protocol.BadJSON; c <= protocol.Internal; c++ {
		if c.String() == name {
			return c
		}
	}
	return 0
}

// unquoted is the raw JSON that a string of the vectors holds.
func unquoted(t *testing.T, raw json.RawMessage) json.RawMessage {
	if raw == nil {
		return nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		t.Fatal(err)
	}
	return json.RawMessage(text)
}

func TestAppendFollowsTheVectors(t *testing.T) {
	var vectors []struct {
		Name, Func, Out string
		Args            struct {
			message
			Text    string `json:"text"`
			Content string `json:"content"`
			ID      string `json:"id"`
		}
	}
	readVectors(t, "encode.json", &vectors)
	for _, v := range vectors {
		t.Run(v.Func+"/"+v.Name, func(t *testing.T) {
			m := v.Args.message
			if v.Func != "custom" {
				m.MsgType = v.Func
			}
			m.Content = json.RawMessage(v.Args.Content)
			if v.Args.ID != "" {
				m.ID = json.RawMessage(v.Args.ID)
			}
			for i := range m.Messages {
				m.Messages[i].Content = unquoted(t, m.Messages[i].Content)
			}
			for i := range m.Members {
				m.Members[i].Data = unquoted(t, m.Members[i].Data)
			}
			var got []byte
			if v.Func == "string" {
				got = AppendString(nil, v.Args.Text)
			} else {
				got = encode(m)
			}
			if string(got) != v.Out {
				t.Errorf("got  %s\nwant %s", got, v.Out)
			}
			if !json.Valid(got) {
				t.Error("not valid JSON")
			}
		})
	}
}
