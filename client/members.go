package client

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
)

// list is who is in a room; guarded by hub.mu.
type list struct {
	watchers int
	known    bool // the server has answered since the client came
	asked    bool
	again    bool  // something was missed since: ask once more
	err      error // the server doesn't tell, nobody knows
	count    int
	members  map[string]Member
	more     bool
	version  int
}

// Members ranges over who is in the room, where its policy tells: the list of now, then a new one whenever somebody has
// come or gone; who is slower gets the newest. While nobody may know, it ends with the error. It waits for a
// join, and ends with ctx or Close. The members are in the order of their client ids.
func (r *Room) Members(ctx context.Context) iter.Seq2[Presence, error] {
	return func(yield func(Presence, error) bool) {
		r.watch(1)
		defer r.watch(-1)
		for shown := -1; ctx.Err() == nil; {
			now, err, version, changed := r.members(shown)
			switch {
			case err != nil:
				yield(Presence{}, err)
				return
			case changed == nil: // closed
				return
			case version != shown:
				if shown = version; !yield(now, nil) {
					return
				}
			default:
				select {
				case <-changed:
				case <-ctx.Done():
				}
			}
		}
	}
}

// members is the list where it is another than that shown, and else what tells of the next.
func (r *Room) members(shown int) (now Presence, err error, version int, changed <-chan struct{}) {
	h, l := r.hub, &r.list
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.status.State == Closed:
		return now, nil, shown, nil
	case l.err != nil:
		return now, l.err, shown, nil
	case l.known && l.version != shown:
		return l.presence(), nil, l.version, h.changed
	}
	return now, nil, shown, h.changed
}

// watch counts who wants the list.
func (r *Room) watch(n int) {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	switch r.list.watchers += n; r.list.watchers {
	case 0:
		r.unlist(nil)
	case 1:
		if n > 0 {
			r.askMembers()
		}
	}
}

func (l *list) presence() Presence {
	p := Presence{Count: l.count, More: l.more}
	if l.members != nil {
		p.Members = slices.SortedFunc(maps.Values(l.members), func(a, b Member) int { return strings.Compare(a.ClientID, b.ClientID) })
	}
	return p
}

// askMembers asks for the list, where somebody wants it. hub.mu is held.
func (r *Room) askMembers() {
	l := &r.list
	l.again = l.asked
	if l.watchers == 0 || l.asked || !r.joined || r.away || r.hub.conn == nil {
		return
	}
	l.asked = true
	r.hub.beforeQueue(&call{message: outgoing{Type: "presence", Room: r.name}, answered: func(m incoming, err error) []delivery {
		l.asked = false
		var no *Error
		switch {
		case err == nil && (l.again || l.watchers == 0 || !r.joined): // nothing would keep it true
			r.askMembers()
		case err == nil:
			l.known, l.err, l.count, l.more, l.members = true, nil, m.Count, m.More, nil
			if m.Members != nil {
				l.members = map[string]Member{}
			}
			for _, one := range m.Members {
				l.members[one.ClientID] = one
			}
			r.listChanged()
		case errors.As(err, &no) && no.Retry:
			if conn := r.hub.conn; conn != nil {
				conn.later("members "+r.name, max(time.Second, no.RetryAfter), r.askMembers)
			}
		case no != nil:
			r.unlist(err)
		}
		return nil
	}})
}

// news are members who came or went. Before the list is known they are in it. hub.mu is held.
func (r *Room) news(m incoming) {
	l := &r.list
	if !l.known || l.members == nil {
		return
	}
	l.count = m.Count
	for _, one := range m.Members {
		if m.Type == "member_left" {
			delete(l.members, one.ClientID)
		} else {
			l.members[one.ClientID] = one
		}
	}
	r.listChanged()
}

// unlist forgets the list. hub.mu is held.
func (r *Room) unlist(err error) {
	l := &r.list
	l.known, l.members, l.count, l.more, l.err = false, nil, 0, false, err
	r.listChanged()
}

func (r *Room) listChanged() {
	r.list.version++
	r.hub.change()
}
