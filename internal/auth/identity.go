package auth

import (
	"net/netip"
	"time"

	"example.com/hubbub/internal/glob"
)

// Identity is what is known of a client when it is let in, or when it has shown a new token. Immutable then, so of use
// to any goroutine.
type Identity struct {
	User    string     // "" for none
	Expires time.Time  // zero: never
	Data    []byte     // its presence data in every room, one JSON value, which it can't change; nil: its joins say
	Rooms   []string   // it is put into these at once
	Grants  *Grants    // nil for none
	Address netip.Addr // of the client, where its connection's peer is a proxy; else not valid
}

// BeyondName says that there is more to the client than a name, which the server must keep.
func (i *Identity) BeyondName() bool {
	return !i.Expires.IsZero() || i.Data != nil || len(i.Rooms) > 0 || i.Grants != nil || i.Address.IsValid()
}

// Grants are what a client may do where a room's policy says "granted": the patterns of rooms for each verb.
type Grants struct {
	Join, Read, Publish []*glob.Pattern
	Chat, Direct        bool
}

// NewGrants compiles patterns of rooms. The error names the pattern that can't be one.
func NewGrants(join, read, publish []string, chat, direct bool) (*Grants, error) {
	compile := func(texts []string) (all []*glob.Pattern) {
		for _, text := range texts {
			all = append(all, glob.New(text))
		}
		return all
	}
	return &Grants{compile(join), compile(read), compile(publish), chat, direct}, nil
}
