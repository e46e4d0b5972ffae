package protocol

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// Every Append function appends one JSON object without white space. The keys come in this
// order: msg_type, from, content, then as docs/protocol.md names them. Content and id are raw
// JSON and are written byte for byte; an id that is nil is left out.

// Welcome is what the server tells a client before all else.
type Welcome struct {
	ClientID        string
	MaxMessageBytes int
	PingInterval    time.Duration
	PongTimeout     time.Duration

	// ResumeToken is "" for a server without resume; ResumeWindow and Resumed go with it.
	ResumeToken  string
	ResumeWindow time.Duration
	Resumed      bool // this is the session of the token that the client came with
}

// AppendWelcome appends the first message of a connection.
func AppendWelcome(dst []byte, w Welcome) []byte {
	dst = appendText(dst, `{"msg_type":"welcome","client_id":`, w.ClientID)
	dst = appendInt(dst, `,"protocol":`, Version)
	dst = appendInt(dst, `,"max_message_bytes":`, int64(w.MaxMessageBytes))
	dst = appendInt(dst, `,"ping_interval_ms":`, milliseconds(w.PingInterval))
	dst = appendInt(dst, `,"pong_timeout_ms":`, milliseconds(w.PongTimeout))
	if w.ResumeToken != "" {
		dst = appendText(dst, `,"resume_token":`, w.ResumeToken)
		dst = appendInt(dst, `,"resume_window_ms":`, milliseconds(w.ResumeWindow))
		dst = appendBool(dst, `,"resumed":`, w.Resumed)
	}
	return append(dst, '}')
}

// AppendChat appends a message to everyone. Here and below user is the name by which the sender is known, "" for none.
func AppendChat(dst []byte, from string, content []byte, unixMilli int64, user string) []byte {
	dst = append(dst, `{"msg_type":"chat"`...)
	dst = appendFrom(dst, from, content)
	dst = appendInt(dst, `,"time":`, unixMilli)
	return append(appendUser(dst, user), '}')
}

// AppendDirectMessage appends a message to one client.
func AppendDirectMessage(dst []byte, from string, content []byte, unixMilli int64, user string) []byte {
	dst = append(dst, `{"msg_type":"direct_message"`...)
	dst = appendFrom(dst, from, content)
	dst = appendInt(dst, `,"time":`, unixMilli)
	return append(appendUser(dst, user), '}')
}

// AppendRoomMessageHead appends a message to the members of a room up to where its offset stands,
// which is known last, under the room's lock; AppendRoomMessageTail goes on from there.
func AppendRoomMessageHead(dst []byte, from string, content []byte, room string, unixMilli int64) []byte {
	dst = append(dst, `{"msg_type":"room_message"`...)
	dst = appendFrom(dst, from, content)
	dst = appendText(dst, `,"room":`, room)
	return appendInt(dst, `,"time":`, unixMilli)
}

// AppendRoomMessageTail ends what AppendRoomMessageHead began. Offset 0 is none; a key that is nil
// is left out, and is unescaped.
func AppendRoomMessageTail(dst []byte, offset uint64, user string, key []byte) []byte {
	if offset != 0 {
		dst = appendUint(dst, `,"offset":`, offset)
	}
	dst = appendUser(dst, user)
	if key != nil {
		dst = appendText(dst, `,"key":`, key)
	}
	return append(dst, '}')
}

// AppendLeft appends the answer to a leave.
func AppendLeft(dst []byte, room string, id []byte) []byte {
	dst = appendText(dst, `{"msg_type":"left","room":`, room)
	return appendEnd(dst, id)
}

// AppendRemoved tells a member that the server took it out of the room; reason is one of the Left
// constants.
func AppendRemoved(dst []byte, room, reason string) []byte {
	dst = appendText(dst, `{"msg_type":"left","room":`, room)
	dst = appendText(dst, `,"reason":`, reason)
	return append(dst, '}')
}

// AppendPong appends the answer to a ping.
func AppendPong(dst []byte, unixMilli int64, id []byte) []byte {
	dst = appendInt(dst, `{"msg_type":"pong","time":`, unixMilli)
	return appendEnd(dst, id)
}

// AppendError appends e; retry_after_ms is left out when retryAfter is 0.
func AppendError(dst []byte, e *Error, retryAfter time.Duration, id []byte) []byte {
	dst = append(dst, `{"msg_type":"error","code":"`...)
	dst = append(dst, e.Code.String()...)
	dst = append(dst, `","message":`...)
	dst = AppendString(dst, e.Message)
	dst = append(dst, `,"retry":`...)
	dst = strconv.AppendBool(dst, e.Code.Retry())
	if retryAfter > 0 {
		dst = appendInt(dst, `,"retry_after_ms":`, milliseconds(retryAfter))
	}
	return appendEnd(dst, id)
}

// AppendReconnect appends what is sent before a planned close; after counts from the close on.
func AppendReconnect(dst []byte, after time.Duration, reason string) []byte {
	dst = appendInt(dst, `{"msg_type":"reconnect","after_ms":`, milliseconds(after))
	dst = append(dst, `,"reason":`...)
	dst = AppendString(dst, reason)
	return append(dst, '}')
}

// AppendCustom appends a message of a kind that the program around the server defines. A content
// that is empty is written as null, so that the object stays whole.
func AppendCustom(dst []byte, msgType, from string, content, id []byte) []byte {
	dst = append(dst, `{"msg_type":`...)
	dst = AppendString(dst, msgType)
	if len(content) == 0 {
		content = []byte("null")
	}
	dst = appendFrom(dst, from, content)
	return appendEnd(dst, id)
}

func appendFrom(dst []byte, from string, content []byte) []byte {
	dst = append(dst, `,"from":`...)
	dst = AppendString(dst, from)
	dst = append(dst, `,"content":`...)
	return append(dst, content...)
}

func appendUser(dst []byte, user string) []byte {
	if user != "" {
		dst = appendText(dst, `,"user":`, user)
	}
	return dst
}

// Each of these appends what stands before a value, and the value.

func appendInt(dst []byte, before string, n int64) []byte {
	return strconv.AppendInt(append(dst, before...), n, 10)
}

func appendUint(dst []byte, before string, n uint64) []byte {
	return strconv.AppendUint(append(dst, before...), n, 10)
}

func appendBool(dst []byte, before string, is bool) []byte {
	return strconv.AppendBool(append(dst, before...), is)
}

func appendText[T string | []byte](dst []byte, before string, s T) []byte {
	return appendString(append(dst, before...), s)
}

func appendID(dst, id []byte) []byte {
	if id != nil {
		dst = append(append(dst, `,"id":`...), id...)
	}
	return dst
}

// appendEnd ends an answer.
func appendEnd(dst, id []byte) []byte { return append(appendID(dst, id), '}') }

// milliseconds rounds up: a client that waits as long as it was told is never early.
func milliseconds(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// AppendString appends s as a JSON string. It escapes only what RFC 8259 section 7 demands: the
// quote, the backslash and U+0000 to U+001F. Bytes that aren't UTF-8 become U+FFFD.
func AppendString(dst []byte, s string) []byte { return appendString(dst, s) }

func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b >= ' ' && b < utf8.RuneSelf && b != '"' && b != '\\' {
			i++
			continue
		}
		if b < utf8.RuneSelf {
			dst = appendEscape(append(dst, s[from:i]...), b)
			i++
			from = i
			continue
		}
		r, size := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		if r == utf8.RuneError && size == 1 {
			dst = append(append(dst, s[from:i]...), "\ufffd"...)
			from = i + size
		}
		i += size
	}
	return append(append(dst, s[from:]...), '"')
}

func appendEscape(dst []byte, b byte) []byte {
	switch b {
	case '"', '\\':
		return append(dst, '\\', b)
	case '\b':
		return append(dst, `\b`...)
	case '\f':
		return append(dst, `\f`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	const hex = "0123456789abcdef"
	return append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
}
