package auth

import (
	"fmt"
	"time"

	"example.com/hubbub/internal/glob"
)

// Identity is what is known of a client when it is let in, or when it has shown a new token. Immutable then, so of use
// to any goroutine.
type Identity struct {
	User    string    // "" for none
	Expires time.Time // zero: never
	Data    []byte    // its presence data in every room, one JSON value, which it can't change; nil: its joins say
	Rooms   []string  // it is put into these at once
	Grants  *Grants   // nil for none
	Beside  *Identity // what Add has added, and a new token takes nothing away from; nil for nothing
}

// BeyondName says that there is more to the client than a name, which the server must keep.
func (i *Identity) BeyondName() bool {
	return !i.Expires.IsZero() || i.Data != nil || len(i.Rooms) > 0 || i.Grants != nil
}

// Grants are what a client may do where a room's policy says "granted": the patterns of rooms for each verb, in which
// "${user}" is the client's own name.
type Grants struct {
	Join, Read, Publish []*glob.Template
	Chat, Direct        bool
}

// MaxPatterns is how many patterns one client may have, of all verbs together: each is tried where a room asks for one.
const MaxPatterns = 1000

// NewGrants compiles patterns of rooms. The error says that they are too many.
func NewGrants(join, read, publish []string, chat, direct bool) (*Grants, error) {
	if n := len(join) + len(read) + len(publish); n > MaxPatterns {
		return nil, fmt.Errorf("%d patterns of rooms, at most %d are allowed", n, MaxPatterns)
	}
	compile := func(texts []string) (all []*glob.Template) {
		for _, text := range texts {
			all = append(all, glob.NewTemplate(text))
		}
		return all
	}
	return &Grants{compile(join), compile(read), compile(publish), chat, direct}, nil
}

// Fit says that one of the patterns of a verb stands for the room, for the user of that name.
func Fit(patterns []*glob.Template, room, user string) bool {
	for _, p := range patterns {
		if p.Match(room, user) {
			return true
		}
	}
	return false
}
