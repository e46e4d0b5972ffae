package hubbubtest

import (
	"bytes"
	"encoding/json"
)

// Position is a place in a room's order of messages. Where a room has no history the Epoch is "".
type Position struct {
	Epoch  string `json:"epoch"`
	Offset int64  `json:"offset"`
}

// Message is what the server sent, of any kind: docs/protocol.md says which fields a kind has. The others are zero.
type Message struct {
	Type    string          `json:"msg_type"`
	ID      json.RawMessage `json:"id"` // of the request that it answers
	Room    string          `json:"room"`
	From    string          `json:"from"`
	User    string          `json:"user"`
	Content json.RawMessage `json:"content"`
	Key     string          `json:"key"`
	Time    int64           `json:"time"` // Unix milliseconds

	Position         // of a room_message, joined, ack, history: the Offset is 0 where the room has no history
	Recovered  bool  `json:"recovered"`
	Duplicate  bool  `json:"duplicate"`
	Count      int   `json:"count"`
	FromOffset int64 `json:"from_offset"` // of a gap
	ToOffset   int64 `json:"to_offset"`

	Code    string `json:"code"`    // of an error
	Text    string `json:"message"` // of an error
	Reason  string `json:"reason"`
	Retry   bool   `json:"retry"` // of an error, and of a room of resumed
	AfterMS int64  `json:"after_ms"`

	RetryAfterMS int64 `json:"retry_after_ms"` // of an error

	ClientID string             `json:"client_id"`
	Members  json.RawMessage    `json:"members"`
	Messages []Message          `json:"messages"` // a page of history
	More     bool               `json:"more"`
	Rooms    map[string]Message `json:"rooms"` // of resumed

	ResumeToken string `json:"resume_token"` // of welcome
	Resumed     bool   `json:"resumed"`      // of welcome: it is the session of Options.Token

	Raw json.RawMessage `json:"-"` // all of it, as it came
}

func (m Message) String() string { return string(m.Raw) }

// parse reads a message.
func parse(raw []byte) (m Message, err error) {
	err = json.Unmarshal(raw, &m)
	m.Raw = raw
	return m, err
}

// text is a content as it stands in a log: JSON without white space.
func text(content any) string {
	raw, err := json.Marshal(content)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// compact takes the white space out of JSON.
func compact(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return b.String()
}
