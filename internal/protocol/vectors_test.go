package protocol

import (
	"encoding/hex"
	"encoding/json"
	"os"
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
			if kindNames[c.Kind] != v.Kind {
				t.Errorf("kind %s, want %s", kindNames[c.Kind], v.Kind)
			}
			wantType := v.Kind
			if v.Type != nil {
				wantType = *v.Type
			}
			if string(c.Type) != wantType {
				t.Errorf("type %q, want %q", c.Type, wantType)
			}
			if string(c.Room) != v.Room || string(c.To) != v.To || string(c.Content) != v.Content {
				t.Errorf("room %q, to %q, content %q; want %q, %q, %q", c.Room, c.To, c.Content, v.Room, v.To, v.Content)
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
	Room            string          `json:"room"`
	User            string          `json:"user"`
	Time            int64           `json:"time"`
	Code            string          `json:"code"`
	Message         string          `json:"message"`
	RetryAfterMS    int64           `json:"retry_after_ms"`
	AfterMS         int64           `json:"after_ms"`
	Reason          string          `json:"reason"`
	ID              json.RawMessage `json:"id"`
}

// encode writes m with the Append function of its kind.
func encode(m message) []byte {
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	switch m.MsgType {
	case "welcome":
		return AppendWelcome(nil, Welcome{m.ClientID, m.MaxMessageBytes, ms(m.PingIntervalMS), ms(m.PongTimeoutMS)})
	case "chat":
		return AppendChat(nil, m.From, m.Content, m.Time, m.User)
	case "direct_message":
		return AppendDirectMessage(nil, m.From, m.Content, m.Time, m.User)
	case "room_message":
		return AppendRoomMessage(nil, m.From, m.Content, m.Room, m.Time, m.User)
	case "joined":
		return AppendJoined(nil, m.Room, m.ID)
	case "left":
		return AppendLeft(nil, m.Room, m.ID)
	case "ack":
		return AppendAck(nil, m.ID)
	case "pong":
		return AppendPong(nil, m.Time, m.ID)
	case "error":
		return AppendError(nil, &Error{codeOf(m.Code), m.Message}, ms(m.RetryAfterMS), m.ID)
	case "reconnect":
		return AppendReconnect(nil, ms(m.AfterMS), m.Reason)
	}
	return AppendCustom(nil, m.MsgType, m.From, m.Content, m.ID)
}

func codeOf(name string) Code {
	for c := BadJSON; c <= Internal; c++ {
		if c.String() == name {
			return c
		}
	}
	return 0
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
