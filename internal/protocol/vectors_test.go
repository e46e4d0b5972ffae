package protocol

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"
)

var kindNames = map[Kind]string{
	Custom: "custom", Chat: "chat", JoinRoom: "join_room", LeaveRoom: "leave_room", RoomMessage: "room_message",
	DirectMessage: "direct_message", Presence: "presence", History: "history", Ping: "ping", Resume: "resume",
}

func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("../../testdata/protocol/" + name)
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
func decoded(c *Command) decodeVector {
	position := func(p Position, has bool) *vectorPosition {
		if !has {
			return nil
		}
		return &vectorPosition{string(p.Epoch), p.Offset}
	}
	msgType := string(c.Type)
	v := decodeVector{Kind: kindNames[c.Kind], Type: &msgType, ID: string(c.ID), Room: string(c.Room), To: string(c.To),
		Content: string(c.Content), Key: string(c.Key), PublishID: string(c.PublishID), Data: string(c.Data),
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
	var c Command // one for all of them, as a worker does: nothing may be left of the one before
	for _, v := range vectors {
		t.Run(v.Rule+"/"+v.Name, func(t *testing.T) {
			err := Decode(v.text(t), &c)
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
	ID           json.RawMessage    `json:"id"`
}

// encode writes m with the Append function of its kind.
func encode(m message) []byte {
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	switch m.MsgType {
	case "welcome":
		return AppendWelcome(nil, Welcome{m.ClientID, m.MaxMessageBytes, ms(m.PingIntervalMS), ms(m.PongTimeoutMS),
			m.ResumeToken, ms(m.ResumeWindowMS), m.Resumed})
	case "chat":
		return AppendChat(nil, m.From, m.Content, m.Time, m.User)
	case "direct_message":
		return AppendDirectMessage(nil, m.From, m.Content, m.Time, m.User)
	case "room_message":
		return encodeRoomMessage(m)
	case "joined":
		j := Joined{Room: m.Room, ID: m.ID, Epoch: m.Epoch, Offset: m.Offset, Since: m.Recovered != nil, Reason: m.Reason}
		j.Recovered = j.Since && *m.Recovered
		return AppendJoined(nil, j)
	case "left":
		if m.Reason != "" {
			return AppendRemoved(nil, m.Room, m.Reason)
		}
		return AppendLeft(nil, m.Room, m.ID)
	case "ack":
		return AppendAck(nil, Ack{m.ID, m.Epoch, m.Offset, m.Duplicate})
	case "history":
		dst := AppendHistoryHead(nil, m.Room, m.Epoch, m.Offset)
		for _, one := range m.Messages {
			one.Room = m.Room
			dst = AppendHistoryMessage(dst, encodeRoomMessage(one))
		}
		return AppendHistoryTail(dst, m.More, m.ID)
	case "presence":
		return AppendPresence(nil, m.Room, int(m.Count), m.members(), m.More, m.ID)
	case "member_joined", "member_left":
		return AppendMembers(nil, m.MsgType == "member_joined", m.Room, int(m.Count), m.members())
	case "gap":
		return AppendGap(nil, Gap{m.Room, m.Count, m.Reason, m.FromOffset, m.ToOffset})
	case "resumed":
		var rooms []ResumedRoom
		for _, name := range slices.Sorted(maps.Keys(m.Rooms)) {
			r := m.Rooms[name]
			rooms = append(rooms, ResumedRoom{name, r.Epoch, r.Offset, *r.Recovered, r.Reason, r.Retry})
		}
		return AppendResumed(nil, m.ID, rooms)
	case "pong":
		return AppendPong(nil, m.Time, m.ID)
	case "error":
		return AppendError(nil, &Error{codeOf(m.Code), m.Message}, ms(m.RetryAfterMS), m.ID)
	case "reconnect":
		return AppendReconnect(nil, ms(m.AfterMS), m.Reason)
	}
	return AppendCustom(nil, m.MsgType, m.From, m.Content, m.ID)
}

func encodeRoomMessage(m message) []byte {
	var key []byte
	if m.Key != nil {
		key = []byte(*m.Key)
	}
	dst := AppendRoomMessageHead(nil, m.From, m.Content, m.Room, m.Time)
	return AppendRoomMessageTail(dst, m.Offset, m.User, key)
}

// members is nil where m has no list.
func (m *message) members() (list []Member) {
	if m.Members != nil {
		list = []Member{}
	}
	for _, one := range m.Members {
		list = append(list, Member{one.ClientID, one.User, one.Data})
	}
	return list
}

func codeOf(name string) Code {
	for c := BadJSON; c <= Internal; c++ {
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
