package room

import (
	"strconv"
	"time"
	"unicode/utf8"

	"example.com/hubbub/internal/protocol"
)

// What is appended is one JSON object without white space. The keys come in this order: msg_type, from, content, then
// as docs/protocol.md names them. Content, data and id are raw JSON and are written byte for byte; an id that is nil is
// left out.

// AppendMessage appends a chat, a room_message or a direct_message.
func (*Dialect) AppendMessage(dst []byte, m *protocol.Message) []byte {
	switch m.Kind {
	case protocol.Chat:
		dst = append(dst, `{"msg_type":"chat"`...)
	case protocol.DirectMessage:
		dst = append(dst, `{"msg_type":"direct_message"`...)
	default:
		dst = append(dst, `{"msg_type":"room_message"`...)
	}
	dst = appendFrom(dst, m.From, m.Content)
	if m.Kind == protocol.RoomMessage {
		dst = appendText(dst, `,"room":`, m.Room)
	}
	return appendMessageTail(dst, m)
}

func appendMessageTail(dst []byte, m *protocol.Message) []byte {
	dst = appendInt(dst, `,"time":`, m.Time)
	if m.Offset != 0 {
		dst = appendUint(dst, `,"offset":`, m.Offset)
	}
	dst = appendUser(dst, m.User)
	if m.Key != nil {
		dst = appendText(dst, `,"key":`, m.Key)
	}
	return append(dst, '}')
}

// AppendAnswer appends what a says; nothing for a ping, since the WebSocket has its own.
func (*Dialect) AppendAnswer(dst []byte, a *protocol.Answer) []byte {
	switch a.Kind {
	case protocol.AnswerWelcome:
		return appendWelcome(dst, &a.Welcome)
	case protocol.AnswerJoined:
		return appendJoined(dst, a)
	case protocol.AnswerLeft:
		return appendLeft(dst, a)
	case protocol.AnswerAck:
		return appendAck(dst, a)
	case protocol.AnswerResumed:
		return appendResumed(dst, a)
	case protocol.AnswerHistory:
		return appendHistory(dst, a)
	case protocol.AnswerPresence:
		return appendPresence(dst, a)
	case protocol.AnswerPong:
		dst = appendInt(dst, `{"msg_type":"pong","time":`, a.Time)
		return appendEnd(dst, a.ID)
	case protocol.AnswerError:
		return appendError(dst, a)
	case protocol.AnswerReply:
		return appendReply(dst, a)
	case protocol.AnswerGap:
		return appendGap(dst, a)
	case protocol.AnswerReconnect:
		dst = appendInt(dst, `{"msg_type":"reconnect","after_ms":`, milliseconds(a.After))
		dst = appendText(dst, `,"reason":`, a.Reason)
		return append(dst, '}')
	case protocol.AnswerMemberJoined:
		return appendMembers(dst, `{"msg_type":"member_joined","room":`, a)
	case protocol.AnswerMemberLeft:
		return appendMembers(dst, `{"msg_type":"member_left","room":`, a)
	case protocol.AnswerDeleted:
		return appendDeleted(dst, a)
	case protocol.AnswerRefreshed:
		dst = appendID(append(dst, `{"msg_type":"refreshed"`...), a.ID)
		return append(appendExpires(dst, a.Expires), '}')
	case protocol.AnswerResponse:
		dst = append(append(dst, `{"msg_type":"response","content":`...), orNull(a.Content)...)
		return appendEnd(dst, a.ID)
	}
	return dst
}

func appendWelcome(dst []byte, w *protocol.Welcome) []byte {
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
	dst = appendUser(dst, w.User)
	return append(appendExpires(dst, w.Expires), '}')
}

func appendExpires(dst []byte, at int64) []byte {
	if at == 0 {
		return dst
	}
	return appendInt(dst, `,"expires_at":`, at)
}

func appendJoined(dst []byte, a *protocol.Answer) []byte {
	dst = appendText(dst, `{"msg_type":"joined","room":`, a.Room)
	dst = appendID(dst, a.ID)
	dst = appendPosition(dst, a.Epoch, a.Offset)
	if a.Since {
		dst = appendRecovered(dst, a.Recovered, a.Reason)
	}
	return append(dst, '}')
}

func appendLeft(dst []byte, a *protocol.Answer) []byte {
	dst = appendText(dst, `{"msg_type":"left","room":`, a.Room)
	if a.Reason != "" {
		dst = appendText(dst, `,"reason":`, a.Reason)
	}
	return appendEnd(dst, a.ID)
}

func appendAck(dst []byte, a *protocol.Answer) []byte {
	dst = append(dst, `{"msg_type":"ack"`...)
	dst = appendID(dst, a.ID)
	dst = appendPosition(dst, a.Epoch, a.Offset)
	if a.Duplicate {
		dst = append(dst, `,"duplicate":true`...)
	}
	return append(dst, '}')
}

func appendResumed(dst []byte, a *protocol.Answer) []byte {
	dst = append(dst, `{"msg_type":"resumed"`...)
	dst = appendID(dst, a.ID)
	dst = append(dst, `,"rooms":{`...)
	for i, r := range a.Rooms {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, r.Room), ':')
		at := len(dst)
		dst = appendPosition(dst, r.Epoch, r.Offset)
		dst = appendRecovered(dst, r.Recovered, r.Reason)
		if r.Retry {
			dst = append(dst, `,"retry":true`...)
		}
		dst[at] = '{' // where the comma before the first of them stands
		dst = append(dst, '}')
	}
	return append(dst, "}}"...)
}

func appendPosition(dst []byte, epoch string, offset uint64) []byte {
	if epoch == "" {
		return dst
	}
	dst = appendText(dst, `,"epoch":`, epoch)
	return appendUint(dst, `,"offset":`, offset)
}

func appendRecovered(dst []byte, recovered bool, reason string) []byte {
	dst = appendBool(dst, `,"recovered":`, recovered)
	if !recovered {
		dst = appendText(dst, `,"reason":`, reason)
	}
	return dst
}

func appendHistory(dst []byte, a *protocol.Answer) []byte {
	dst = appendText(dst, `{"msg_type":"history","room":`, a.Room)
	dst = appendPosition(dst, a.Epoch, a.Offset)
	dst = AppendMessages(append(dst, `,"messages":`...), a.Messages)
	dst = appendBool(dst, `,"more":`, a.More)
	return appendEnd(dst, a.ID)
}

func appendPresence(dst []byte, a *protocol.Answer) []byte {
	dst = appendText(dst, `{"msg_type":"presence","room":`, a.Room)
	dst = appendInt(dst, `,"count":`, a.Count)
	if a.Members != nil {
		dst = appendMemberList(dst, a.Members)
		dst = appendBool(dst, `,"more":`, a.More)
	}
	return appendEnd(dst, a.ID)
}

func appendMembers(dst []byte, head string, a *protocol.Answer) []byte {
	dst = appendText(dst, head, a.Room)
	dst = appendInt(dst, `,"count":`, a.Count)
	return append(appendMemberList(dst, a.Members), '}')
}

func appendMemberList(dst []byte, members []protocol.Member) []byte {
	return AppendMembers(append(dst, `,"members":`...), members)
}

func appendError(dst []byte, a *protocol.Answer) []byte {
	dst = append(dst, `{"msg_type":"error","code":"`...)
	dst = append(dst, a.Err.Code.String()...)
	dst = appendText(dst, `","message":`, a.Err.Message)
	dst = appendBool(dst, `,"retry":`, a.Err.Code.Retry())
	if a.After > 0 {
		dst = appendInt(dst, `,"retry_after_ms":`, milliseconds(a.After))
	}
	return appendEnd(dst, a.ID)
}

// appendReply appends what the application answers.
func appendReply(dst []byte, a *protocol.Answer) []byte {
	dst = appendText(dst, `{"msg_type":`, a.Type)
	return appendEnd(appendFrom(dst, "server", orNull(a.Content)), a.ID)
}

var null = []byte("null")

// orNull writes a content that is empty as null, so that the object stays whole.
func orNull(content []byte) []byte {
	if len(content) == 0 {
		return null
	}
	return content
}

func appendGap(dst []byte, a *protocol.Answer) []byte {
	dst = append(dst, `{"msg_type":"gap"`...)
	if a.Room != "" {
		dst = appendText(dst, `,"room":`, a.Room)
	}
	if a.Count != 0 {
		dst = appendInt(dst, `,"count":`, a.Count)
	}
	dst = appendText(dst, `,"reason":`, a.Reason)
	if a.Epoch != "" {
		dst = appendText(dst, `,"epoch":`, a.Epoch)
	} else if a.To != 0 {
		dst = appendUint(dst, `,"from_offset":`, a.From)
	}
	if a.To != 0 {
		dst = appendUint(dst, `,"to_offset":`, a.To)
	}
	return append(dst, '}')
}

func appendDeleted(dst []byte, a *protocol.Answer) []byte {
	dst = appendText(dst, `{"msg_type":"deleted","room":`, a.Room)
	if a.To != 0 {
		dst = appendUint(dst, `,"to_offset":`, a.To)
	} else {
		dst = appendUint(dst, `,"offset":`, a.From)
	}
	return append(dst, '}')
}

func appendFrom(dst []byte, from string, content []byte) []byte {
	dst = appendText(dst, `,"from":`, from)
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

// AppendString appends s as a JSON string. It escapes only what RFC 8259 section 7 demands: the quote, the backslash
// and U+0000 to U+001F. Bytes that aren't UTF-8 become U+FFFD.
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
