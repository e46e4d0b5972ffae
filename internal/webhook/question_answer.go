package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/protocol/room"
)

// What the backend answers decides who gets in and what is said, so it is taken to the letter: a field that isn't known
// is a fault and no wish for something else. All here are functions of bytes.

// maxMessage bounds what the backend has a client told, in bytes.
const maxMessage = 1024

// answerToConnect gives what is known of the client by {"user", ...}. {"reject"} is a *protocol.Error.
func answerToConnect(raw []byte, maxRooms int, now time.Time) (who auth.Identity, err error) {
	var data, reject json.RawMessage
	var rooms, join, publish, read []string
	var chat, direct bool
	var expires int64
	given, err := object(raw, fields{
		"user": &who.User, "data": &data, "rooms": &rooms, "join": &join, "publish": &publish, "read": &read,
		"chat": &chat, "direct": &direct, "expires_at": &expires, "reject": &reject,
	})
	switch {
	case err != nil:
		return who, err
	case given["reject"] && len(given) > 1:
		return who, errors.New("reject: there are other fields beside it")
	case given["reject"]:
		return who, rejection(reject)
	}
	if given["user"] {
		if err := protocol.CheckUser(who.User); err != nil {
			return who, fmt.Errorf("user: %w; leave it out for a client without a name", err)
		}
	}
	if given["data"] {
		if len(data) > protocol.MaxData {
			return who, fmt.Errorf("data: it has %d bytes, at most %d are allowed", len(data), protocol.MaxData)
		}
		who.Data = data
	}
	if who.Rooms, err = roomsOf(rooms, maxRooms); err != nil {
		return who, err
	}
	if given["expires_at"] {
		who.Expires = time.UnixMilli(expires)
		if !who.Expires.After(now) || expires > lastTime {
			return who, fmt.Errorf("expires_at: %d is no time to come, in milliseconds since 1970", expires)
		}
	}
	if given["join"] || given["publish"] || given["read"] || given["chat"] || given["direct"] {
		if slices.Contains(slices.Concat(join, publish, read), "") {
			return who, errors.New("join, publish, read: a pattern is empty")
		}
		who.Grants, err = auth.NewGrants(join, read, publish, chat, direct)
	}
	return who, err
}

// lastTime is the end of the year 9999, in milliseconds: what is beyond was no time.
const lastTime = 253402300799999

func roomsOf(names []string, most int) ([]string, error) {
	if len(names) > most {
		return nil, fmt.Errorf("rooms: there are %d, and a client may be in %d at most", len(names), most)
	}
	for i, name := range names {
		if no := protocol.CheckRoom([]byte(name)); no != nil {
			return nil, fmt.Errorf("rooms: %s: %s", protocol.Quote([]byte(name)), no.Message)
		}
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("rooms: %s is there twice", protocol.Quote([]byte(name)))
		}
	}
	return names, nil
}

// rejection is the error that {"reason", "retry"} stands for.
func rejection(raw []byte) error {
	no := &protocol.Error{Code: protocol.Forbidden, Message: "refused"}
	var retry bool
	if _, err := object(raw, fields{"reason": &no.Message, "retry": &retry}); err != nil {
		return fmt.Errorf("reject: %w", err)
	}
	if len(no.Message) > maxMessage {
		return fmt.Errorf("reject: reason: it has %d bytes, at most %d are allowed", len(no.Message), maxMessage)
	}
	if retry {
		no.Code = protocol.Unavailable
	}
	return no
}

// answerToJoin takes {} or {"error"}, which is a *protocol.Error.
func answerToJoin(raw []byte) error {
	var no json.RawMessage
	given, err := object(raw, fields{"error": &no})
	if err != nil || !given["error"] {
		return err
	}
	return refusal(no)
}

// answerToPublish takes {}, a changed {"content"}, or {"error"}, which is a *protocol.Error.
func answerToPublish(raw []byte, maxContent int) (changed []byte, err error) {
	var no, content json.RawMessage
	given, err := object(raw, fields{"error": &no, "content": &content})
	switch {
	case err != nil:
		return nil, err
	case given["error"] && content != nil:
		return nil, errors.New("error: content is there too")
	case given["error"]:
		return nil, refusal(no)
	case content != nil && !given["content"]:
		// It may stand for "as it was" or for the value null, and what the client wrote may be what must not be said.
		return nil, errors.New("content: it is null; leave it out where the content stays as it is")
	}
	return content, checkLength(content, maxContent)
}

// answerToRequest takes {"content"} or {"error"}, which is a *protocol.Error.
func answerToRequest(raw []byte, maxContent int) (content []byte, err error) {
	var no, reply json.RawMessage
	given, err := object(raw, fields{"error": &no, "content": &reply})
	switch {
	case err != nil:
		return nil, err
	case given["error"] && reply != nil:
		return nil, errors.New("error: content is there too")
	case given["error"]:
		return nil, refusal(no)
	case reply == nil:
		return nil, errors.New("content: it is missing")
	}
	return reply, checkLength(reply, maxContent)
}

func checkLength(content []byte, most int) error {
	if len(content) > most {
		return fmt.Errorf("content: it has %d bytes, at most %d are allowed", len(content), most)
	}
	return nil
}

// refusal is the error that {"code", "message"} stands for.
func refusal(raw []byte) error {
	var code string
	no := &protocol.Error{Message: "refused"}
	if _, err := object(raw, fields{"code": &code, "message": &no.Message}); err != nil {
		return fmt.Errorf("error: %w", err)
	}
	known := false
	if no.Code, known = protocol.ParseCode(code); !known {
		return fmt.Errorf("error: code: %s is no code of the protocol", protocol.Quote([]byte(code)))
	}
	if len(no.Message) > maxMessage {
		return fmt.Errorf("error: message: it has %d bytes, at most %d are allowed", len(no.Message), maxMessage)
	}
	return no
}

// fields are where to put the values of an object, by their names.
type fields map[string]any

// object reads one JSON object, all of whose fields must be known and there once. given are those that are there and
// not null; a RawMessage gets its null, too.
func object(raw []byte, into fields) (given map[string]bool, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("it is no JSON object")
	}
	given, seen := map[string]bool{}, map[string]bool{}
	for d.More() {
		key, err := d.Token()
		name, isText := key.(string)
		if err != nil || !isText {
			return nil, errors.New("it is broken JSON")
		}
		var value json.RawMessage
		target := into[name]
		switch {
		case target == nil:
			return nil, fmt.Errorf("the field %s is not known", protocol.Quote([]byte(name)))
		case seen[name]:
			return nil, fmt.Errorf("%s: it is there twice", name)
		case d.Decode(&value) != nil:
			return nil, errors.New("it is broken JSON")
		}
		seen[name] = true
		checked, err := room.CheckContent(value) // a client's own values have to be as good
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := put(checked, target); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if string(checked) != "null" {
			given[name] = true
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, errors.New("it is broken JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	return given, nil
}

// put gives a target its value, or says what it has to be. A null leaves all but a RawMessage as it is.
func put(value []byte, target any) error {
	want := ""
	switch target.(type) {
	case *json.RawMessage:
	case *string:
		want = "it is no text"
	case *[]string:
		want = "it is no list of texts"
	case *bool:
		want = "it is neither true nor false"
	case *int64:
		want = "it is no whole number"
	}
	if json.Unmarshal(value, target) != nil {
		return errors.New(want)
	}
	return nil
}
