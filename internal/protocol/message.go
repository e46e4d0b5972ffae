package protocol

// Message is what somebody has published, whatever dialect it came in by and goes out by. It is immutable once it has
// its place, and may be read by any goroutine then.
type Message struct {
	Kind    Kind   // RoomMessage, Chat or DirectMessage
	Room    string // of a RoomMessage
	From    string // a client's id, or who the application says
	User    string // the name by which a client is known; "" for none
	Content []byte // one JSON value
	Key     []byte // nil for none
	Time    int64  // Unix milliseconds
	Except  string // the client that doesn't get it; "" for nobody

	// The message's place in the log of a room with history, and that of the room's message before it; 0 where there is
	// none.
	Offset, Prev uint64

	// Trace is the traceparent of the span that has published it; nil where nobody traces it. 55 bytes.
	Trace *string

	size int // see Place
}

// Place gives the message its place; 0 and 0 for none. Whoever made it calls, once, before anybody else has it.
func (m *Message) Place(prev, offset uint64) {
	m.Prev, m.Offset = prev, offset
	m.size = m.measure()
}

// Size is how many bytes the message takes on the wire in the room protocol, with its header: what bounds on messages
// count, whatever dialect it goes out by.
func (m *Message) Size() int {
	if m.size > 0 {
		return m.size
	}
	return m.measure()
}

func (m *Message) measure() (n int) {
	switch m.Kind {
	case Chat:
		n = len(`{"msg_type":"chat"`)
	case DirectMessage:
		n = len(`{"msg_type":"direct_message"`)
	default:
		n = len(`{"msg_type":"room_message","room":`) + TextSize(m.Room)
	}
	n += len(`,"from":,"content":,"time":}`) + TextSize(m.From) + len(m.Content) + digits(uint64(max(0, m.Time)))
	if m.Offset != 0 {
		n += len(`,"offset":`) + digits(m.Offset)
	}
	if m.User != "" {
		n += len(`,"user":`) + TextSize(m.User)
	}
	if m.Key != nil {
		n += len(`,"key":`) + TextSize(m.Key)
	}
	switch { // RFC 6455 5.2
	case n < 126:
		return n + 2
	case n < 1<<16:
		return n + 4
	}
	return n + 10
}

// TextSize is how many bytes valid UTF-8 takes as a JSON string (RFC 8259 section 7).
func TextSize[T string | []byte](s T) int {
	n := len(`""`) + len(s)
	for i := range len(s) {
		switch b := s[i]; {
		case b == '"' || b == '\\' || b == '\b' || b == '\f' || b == '\n' || b == '\r' || b == '\t':
			n++
		case b < ' ':
			n += len(`\u0000`) - 1
		}
	}
	return n
}

func digits(n uint64) (count int) {
	for count = 1; n >= 10; count++ {
		n /= 10
	}
	return count
}
