package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"example.com/hubbub/internal/wsclient"
)

// A session is what a client that resumes keeps over its connections.
type session struct {
	token string // of the last welcome
	log   *clientLog
	num   uint32
	at    []place // by want.rooms: how far it has got
	lost  int64   // when its connection was lost; 0 while it has one
	back  int64   // when the last resume was answered
}

// resuming is what came of the resumes of a fleet.
type resuming struct {
	window                time.Duration // of the server
	answered              int
	retried               int            // answers that a room couldn't be opened just now
	denied, tooLate       int            // told resumed: false within the window, and after it
	deniedIn              time.Duration  // the longest from the loss until that
	cutAgain              int            // lost before they were answered
	missed                int            // deliveries of what was published before the resume was answered
	sentAgain, duplicates int            // publishes whose answer was cut off, and how many the server knew already
	longest               time.Duration  // without a connection that is resumed
	unrecovered           map[string]int // rooms, by reason
}

// token is what a client comes back with, or "".
func (c *client) token() string {
	if c.session == nil {
		return ""
	}
	return c.session.token
}

// place is how far a client that resumes has got in a room; nil where that doesn't matter.
func (c *client) place(room uint32) *place {
	if c.session == nil {
		return nil
	}
	return &c.session.at[slices.Index(c.rooms, room)]
}

// begin gives a client a log and has it join its rooms.
func (f *fleet) begin(c *client) {
	c.log, c.num = &clientLog{}, uint32(len(f.logs))
	f.logs = append(f.logs, c.log)
	for _, room := range c.rooms {
		f.join(c, room)
	}
}

func (f *fleet) join(c *client, room uint32) {
	c.log.joins = append(c.log.joins, join{room: room, first: len(c.log.received)})
	c.waiting++
	f.send(c, wsclient.Text, fmt.Appendf(nil, `{"msg_type":"join_room","room":"r%d","id":"j"}`, room))
}

// welcomed says whether the session goes on: then it asks for its rooms. It does so no earlier, since its first message
// takes the old token's force.
func (f *fleet) welcomed(c *client, m serverMessage) bool {
	s, came := c.session, c.token() != ""
	if m.Token == "" || m.Resumed && (!came || m.ClientID != c.log.id) {
		f.faults = append(f.faults, fmt.Sprintf("a welcome that makes no sense: %+.200v", m))
	}
	s.token = m.Token
	if came && m.Resumed {
		c.log.resumed()
		f.text = append(f.text[:0], `{"msg_type":"resume","rooms":{`...)
		for i, room := range c.rooms {
			f.text = fmt.Appendf(f.text, `"r%d":{"epoch":%q,"offset":%d},`, room, s.at[i].Epoch, s.at[i].Offset)
		}
		f.send(c, wsclient.Text, append(f.text[:len(f.text)-1], `},"id":"r"}`...))
		return true
	}
	if came { // the session's log stays closed, and it begins anew
		if took := time.Duration(f.now - s.lost); took < f.resuming.window {
			f.resuming.denied++
			f.resuming.deniedIn = max(f.resuming.deniedIn, took)
		} else {
			f.resuming.tooLate++
		}
		c.waiting = 0
		f.begin(c)
	}
	s.log, s.num, s.lost = c.log, c.num, 0
	return false
}

// resumed takes the answer for every room, and sends again what is unanswered.
func (f *fleet) resumed(c *client, m serverMessage) {
	s := c.session
	if s == nil || s.lost == 0 || c.waiting != 1 {
		f.faults = append(f.faults, "resumed unasked")
		return
	}
	for i, room := range c.rooms {
		got, ok := m.Rooms[fmt.Sprintf("r%d", room)]
		switch {
		case !ok:
			f.faults = append(f.faults, fmt.Sprintf("resumed without room %d", room))
		case !got.Recovered && got.Retry: // it isn't in, and may try once more
			f.resuming.retried++
			c.waiting, s.lost = 0, f.clock()
			f.reset(c)
			return
		case !got.Recovered:
			c.log.unrecovered(room, f.now)
			s.at[i] = got.place
			f.resuming.unrecovered[got.Reason]++
		case got.Epoch != s.at[i].Epoch || got.Offset < s.at[i].Offset:
			f.faults = append(f.faults, fmt.Sprintf("room %d recovered from %v to %v", room, s.at[i], got.place))
		}
	}
	f.resuming.longest = max(f.resuming.longest, time.Duration(f.now-s.lost))
	f.resuming.answered++
	c.waiting, s.lost, s.back = 0, 0, f.now
	for seq := range c.log.sent {
		if msg := &c.log.sent[seq]; msg.answer == unanswered {
			f.resuming.sentAgain++
			msg.again = true
			f.text = appendPublish(f.text[:0], msg.room, c.num, uint32(seq), 200, true)
			f.send(c, wsclient.Text, f.text)
		}
	}
}

// advance moves a client's place with a message that it has got.
func (f *fleet) advance(c *client, d delivery, from uint32) {
	s := c.session
	if s.lost > 0 {
		f.faults = append(f.faults, fmt.Sprintf("client %d got a message of room %d before it was resumed", c.num, d.room))
	}
	i := slices.Index(c.rooms, d.room)
	if i < 0 || from == unknown || int(d.seq) >= len(f.logs[from].sent) {
		return // the checker finds it
	}
	if d.offset <= s.at[i].Offset {
		f.faults = append(f.faults, fmt.Sprintf("client %d got offset %d of room %d after %d", c.num, d.offset, d.room, s.at[i].Offset))
	}
	s.at[i].Offset = d.offset
	what := message{from, d.seq}
	if was, known := f.history[historyPlace{d.room, s.at[i]}]; known && was != what {
		f.faults = append(f.faults, fmt.Sprintf("room %d has two histories: at %v are message %d of %d and %d of %d", d.room, s.at[i], was.seq, was.from, d.seq, from))
	}
	f.history[historyPlace{d.room, s.at[i]}] = what
	if f.logs[from].sent[d.seq].at < s.back {
		f.resuming.missed++
	}
}

// historyPlace is a place in one room's log, and message what a publisher has sent.
type historyPlace struct {
	room uint32
	place
}

type message struct{ from, seq uint32 }

// gap takes word that some of a room's messages won't come.
func (f *fleet) gap(c *client, m serverMessage) {
	if m.Room == "" { // of chats, which nobody sends
		return
	}
	f.gaps[m.Reason]++
	i := slices.IndexFunc(c.rooms, func(room uint32) bool { return "r"+strconv.Itoa(int(room)) == m.Room })
	if i < 0 {
		f.faults = append(f.faults, "a gap in "+m.Room)
		return
	}
	c.log.unrecovered(c.rooms[i], f.now)
	if c.session == nil {
		return
	}
	if at := &c.session.at[i]; m.Epoch != "" {
		*at = place{m.Epoch, m.To}
	} else {
		at.Offset = max(at.Offset, m.To)
	}
}
