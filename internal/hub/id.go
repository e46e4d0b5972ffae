package hub

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
)

// ID is a client's id: a UUID of version 4 (RFC 9562 5.4), not to be guessed.
type ID [16]byte

// NewID makes one.
func NewID() (id ID) {
	rand.Read(id[:])
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// idLen is the length of the text form, 8-4-4-4-12 hexadecimal digits.
const idLen = 36

func (id ID) String() string {
	var b [idLen]byte
	hex.Encode(b[0:8], id[0:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:36], id[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// MarshalText is String.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseID.
func (id *ID) UnmarshalText(b []byte) (err error) {
	var ok bool
	if *id, ok = ParseID(b); !ok {
		err = errors.New("no client's id: " + string(b))
	}
	return err
}

// canonical is the id in the form in which the application knows it, where text is one.
func canonical(text []byte) string {
	if id, ok := ParseID(text); ok {
		return id.String()
	}
	return string(text)
}

// ParseID reads the text form. RFC 9562 4: it is written in small letters, and capitals mean the same.
func ParseID(b []byte) (id ID, ok bool) {
	if len(b) != idLen || b[8] != '-' || b[13] != '-' || b[18] != '-' || b[23] != '-' {
		return ID{}, false
	}
	at := 0
	for _, part := range [][]byte{b[0:8], b[9:13], b[14:18], b[19:23], b[24:36]} {
		n, err := hex.Decode(id[at:], part)
		if err != nil {
			return ID{}, false
		}
		at += n
	}
	return id, true
}
