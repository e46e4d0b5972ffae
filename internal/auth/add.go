package auth

import (
	"fmt"
	"slices"
)

// Add adds what another way of identifying says of the same client: its rooms and grants are those of both, the earlier
// end counts, and so does the later one's data. A user's name that is set can't become another; then the error names
// both, and nothing is added.
func (i *Identity) Add(more Identity) error {
	if more.User != "" && i.User != "" && i.User != more.User {
		return fmt.Errorf("user: %q, but it has been identified as %q already", more.User, i.User)
	}
	if more.BeyondName() {
		var beside Identity
		if i.Beside != nil {
			beside = *i.Beside
		}
		beside.merge(&more)
		i.Beside = &beside
	}
	i.merge(&more)
	return nil
}

func (i *Identity) merge(more *Identity) {
	if more.User != "" {
		i.User = more.User
	}
	if i.Expires.IsZero() || !more.Expires.IsZero() && more.Expires.Before(i.Expires) {
		i.Expires = more.Expires
	}
	if more.Data != nil {
		i.Data = more.Data
	}
	for _, room := range more.Rooms {
		if !slices.Contains(i.Rooms, room) {
			i.Rooms = append(slices.Clip(i.Rooms), room)
		}
	}
	i.Grants = i.Grants.and(more.Grants)
}

// and is what both grant together. Neither is changed, and nil is none.
func (g *Grants) and(more *Grants) *Grants {
	if g == nil || more == nil {
		if g == nil {
			return more
		}
		return g
	}
	return &Grants{
		Join:    slices.Concat(g.Join, more.Join),
		Read:    slices.Concat(g.Read, more.Read),
		Publish: slices.Concat(g.Publish, more.Publish),
		Chat:    g.Chat || more.Chat,
		Direct:  g.Direct || more.Direct,
	}
}
