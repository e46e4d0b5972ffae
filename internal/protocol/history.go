package protocol

import "bytes"

// Joined is the answer to a join.
type Joined struct {
	Room   string
	ID     []byte
	Epoch  string // "" for a room without history: neither it nor Offset is told
	Offset uint64 // of the room's latest message at the join

	Since     bool   // the join had a since, so the next two are told
	Recovered bool   // all that was missed follows
	Reason    string // one of the Reason constants, where not Recovered
}

// AppendJoined appends the answer to a join.
func AppendJoined(dst []byte, j Joined) []byte {
	dst = appendText(dst, `{"msg_type":"joined","room":`, j.Room)
	dst = appendID(dst, j.ID)
	dst = appendPosition(dst, j.Epoch, j.Offset)
	if j.Since {
		dst = appendRecovered(dst, j.Recovered, j.Reason)
	}
	return append(dst, '}')
}

// Ack is the answer to a publish.
type Ack struct {
	ID        []byte
	Epoch     string // "" for a room without history: neither it nor Offset is told
	Offset    uint64
	Duplicate bool // it was published before, at this position
}

// AppendAck appends the answer to a publish.
func AppendAck(dst []byte, a Ack) []byte {
	dst = append(dst, `{"msg_type":"ack"`...)
	dst = appendID(dst, a.ID)
	dst = appendPosition(dst, a.Epoch, a.Offset)
	if a.Duplicate {
		dst = append(dst, `,"duplicate":true`...)
	}
	return append(dst, '}')
}

// ResumedRoom is what became of one room of a resume.
type ResumedRoom struct {
	Room      string
	Epoch     string // "" for a room without history: neither it nor Offset is told
	Offset    uint64
	Recovered bool
	Reason    string // one of the Reason constants or the name of a Code, where not Recovered
	Retry     bool   // the client is not in the room; a join with the same since may succeed later
}

// AppendResumed appends the answer to a resume.
func AppendResumed(dst, id []byte, rooms []ResumedRoom) []byte {
	dst = append(dst, `{"msg_type":"resumed"`...)
	dst = appendID(dst, id)
	dst = append(dst, `,"rooms":{`...)
	for i, r := range rooms {
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

// Gap says which messages will not come.
type Gap struct {
	Room     string // "" for chat
	Count    int64
	Reason   string // the name of a flow policy, or one of the Gap constants
	From, To uint64 // offsets of the first and the last of them; 0 and 0 where they have none
}

// AppendGap appends word of messages that will not come.
func AppendGap(dst []byte, g Gap) []byte {
	dst = append(dst, `{"msg_type":"gap"`...)
	if g.Room != "" {
		dst = appendText(dst, `,"room":`, g.Room)
	}
	dst = appendInt(dst, `,"count":`, g.Count)
	dst = appendText(dst, `,"reason":`, g.Reason)
	if g.To != 0 {
		dst = appendUint(dst, `,"from_offset":`, g.From)
		dst = appendUint(dst, `,"to_offset":`, g.To)
	}
	return append(dst, '}')
}

// AppendHistoryHead begins the answer to a history: AppendHistoryMessage follows for each message,
// then AppendHistoryTail. The offset is that of the room's latest message.
func AppendHistoryHead(dst []byte, room, epoch string, offset uint64) []byte {
	dst = appendText(dst, `{"msg_type":"history","room":`, room)
	dst = appendPosition(dst, epoch, offset)
	return append(dst, `,"messages":[`...)
}

// AppendHistoryMessage appends one message of a page, made from the bytes of a room_message that
// this package has encoded: without its msg_type and its room.
func AppendHistoryMessage(dst, roomMessage []byte) []byte {
	if dst[len(dst)-1] != '[' {
		dst = append(dst, ',')
	}
	// The content may hold anything, this too. Behind the room's name it can't stand: of what comes there only user
	// and key hold texts, inside a text the quote is escaped, and no text ends before a letter.
	const room = `,"room":`
	at := bytes.LastIndex(roomMessage, []byte(room))
	end, _, _ := scanString(roomMessage, at+len(room))
	dst = append(append(dst, '{'), roomMessage[len(`{"msg_type":"room_message",`):at]...)
	return append(dst, roomMessage[end:]...)
}

// AppendHistoryTail ends a page; more says that there are messages beyond it, the way that was asked for.
func AppendHistoryTail(dst []byte, more bool, id []byte) []byte {
	dst = appendBool(dst, `],"more":`, more)
	return appendEnd(dst, id)
}
