package protocol

import (
	"encoding/binary"
	"errors"
)

// A record is what the log of a room has at an offset where it lies elsewhere: a message, or word that some were taken
// back. It is the same for every node, whatever dialects are spoken there.

const (
	recordTraced   = 0 // its Trace, and a recordMessage
	recordMessage  = 1
	recordDeletion = 2 // what topics tell of members begins with this or more: no message may
)

// AppendRecord appends m as a record, all but its room and its place.
func (m *Message) AppendRecord(b []byte) []byte {
	if m.Trace != nil {
		b = appendField(append(b, recordTraced), *m.Trace)
	}
	b = binary.AppendVarint(append(b, recordMessage), m.Time)
	b = appendField(b, m.From)
	b = appendField(b, m.User)
	b = appendField(b, m.Except)
	key := "" // behind a 1, or one that is empty were none
	if m.Key != nil {
		key = "\x01" + string(m.Key)
	}
	b = appendField(b, key)
	return append(b, m.Content...)
}

// AppendDeletion appends word that the message at the offset from was taken back, or all up to the offset to: one of
// them is 0.
func AppendDeletion(b []byte, from, to uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(append(b, recordDeletion), from), to)
}

func appendField(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

var errRecord = errors.New("the record can't be read: it may be of a newer version")

// ReadRecord reads a record of a room's log: a message without its place, or what was taken back. A message keeps b.
func ReadRecord(room string, b []byte) (m *Message, from, to uint64, err error) {
	r := fields{rest: b}
	var trace *string
	kind := r.byte()
	if kind == recordTraced {
		parent := string(r.field())
		trace, kind = &parent, r.byte()
		r.bad = r.bad || kind != recordMessage
	}
	switch kind {
	case recordMessage:
		m = &Message{Kind: RoomMessage, Room: room, Time: r.varint(), Trace: trace}
		m.From, m.User, m.Except = string(r.field()), string(r.field()), string(r.field())
		if key := r.field(); len(key) > 0 {
			m.Key = key[1:]
		}
		if m.Content = r.rest; len(m.Content) == 0 {
			r.bad = true
		}
	case recordDeletion:
		from, to = r.uvarint(), r.uvarint()
		if len(r.rest) > 0 || (from == 0) == (to == 0) {
			r.bad = true
		}
	default:
		r.bad = true
	}
	if r.bad {
		return nil, 0, 0, errRecord
	}
	return m, from, to, nil
}

// fields reads what a record has, one after the other; bad says that something was missing.
type fields struct {
	rest []byte
	bad  bool
}

func (r *fields) byte() byte {
	if len(r.rest) == 0 {
		r.bad = true
		return 0
	}
	c := r.rest[0]
	r.rest = r.rest[1:]
	return c
}

func (r *fields) varint() int64 {
	n, used := binary.Varint(r.rest)
	r.skip(used)
	return n
}

func (r *fields) uvarint() uint64 {
	n, used := binary.Uvarint(r.rest)
	r.skip(used)
	return n
}

func (r *fields) field() []byte {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	f := r.rest[:n:n]
	r.rest = r.rest[n:]
	return f
}

func (r *fields) skip(used int) {
	if used <= 0 {
		r.bad, used = true, 0
	}
	r.rest = r.rest[used:]
}
