package protocol

import "time"

// Answer is what the server says to clients, but for messages: to one of them, or of a room to its members. Which
// fields count depends on the kind, where they are named; the others are zero.
type Answer struct {
	Kind AnswerKind
	ID   []byte // raw, as it came with the command; nil for none
	Room string

	// Epoch and Offset are the room's position; Epoch is "" for a room without history, and neither is told.
	Epoch  string
	Offset uint64

	Since     bool   // the join had a since, so Recovered and Reason are told
	Recovered bool   // all that was missed follows
	Reason    string // why not: one of the Reason constants; of a Left one of the Left constants, of a Gap see there, of a Reconnect "drain"
	Duplicate bool   // it was published before, at this position

	Rooms    []ResumedRoom
	Messages []*Message // oldest first
	Members  []Member   // of a Presence nil where the room only counts them
	More     bool       // there are others beside these Messages or Members
	Count    int64

	// Of a Gap: the offsets of the first and the last message; 0 and 0 where they have none. Of a Deleted one of them.
	From, To uint64

	Time    int64         // Unix milliseconds
	Err     *Error        // of an Error
	After   time.Duration // of a Reconnect from the close on; of an Error 0 where it isn't told
	Type    string        // of a Reply
	Content []byte        // of a Reply and a Response: one JSON value, nil for null
	Expires int64         // of a Refreshed: Unix milliseconds, 0 for never

	Welcome Welcome
}

// AnswerKind is what an Answer says, and which of its fields count.
type AnswerKind uint8

// The kinds there are.
const (
	AnswerWelcome      AnswerKind = iota + 1 // Welcome: before all else
	AnswerJoined                             // Room, ID, Epoch, Offset, Since, Recovered, Reason
	AnswerLeft                               // Room, ID; Reason where the server removed the member
	AnswerAck                                // ID, Epoch, Offset, Duplicate: of a publish
	AnswerResumed                            // ID, Rooms
	AnswerHistory                            // ID, Room, Epoch, Offset, Messages, More
	AnswerPresence                           // ID, Room, Count, Members, More
	AnswerPong                               // ID, Time
	AnswerPing                               // asks for a sign of life; a dialect without a word for it uses the WebSocket's own
	AnswerError                              // ID, Err, After
	AnswerReply                              // ID, Type, Content: what the application answers a message of its own kind
	AnswerGap                                // Room ("" of chats), Count, 0 where nobody knows, Reason (a policy's name, a Gap constant or ReasonEpoch, then with Epoch), From, To
	AnswerReconnect                          // After, Reason: before a planned close
	AnswerMemberJoined                       // Room, Count, Members: who has joined; Count is of all who are there now
	AnswerMemberLeft                         // as AnswerMemberJoined
	AnswerDeleted                            // Room, To: all up to there was taken back; or From: this message was
	AnswerRefreshed                          // ID, Expires
	AnswerResponse                           // ID, Content: what the application answers a request
)

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

	User    string // "" for none
	Expires int64  // when what the client has shown expires: Unix milliseconds, 0 for never
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

// Member is one who is in a room.
type Member struct {
	ClientID string
	User     string // "" for none
	Data     []byte // raw JSON, as it came with the join; nil for none
}
