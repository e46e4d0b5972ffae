package presence

import "example.com/hubbub/internal/protocol"

// Limits are what one page of members holds at most; one member is always held.
type Limits struct {
	Members int
	Bytes   int                         // of all of them
	Size    func(m protocol.Member) int // of one, in bytes
}

// page is the members of one message.
type page struct {
	limits  Limits
	members []protocol.Member
	bytes   int
}

func (p *page) fits(m protocol.Member) bool {
	return len(p.members) == 0 || len(p.members) < p.limits.Members && p.bytes+p.limits.Size(m) <= p.limits.Bytes
}

func (p *page) add(m protocol.Member) {
	p.members = append(p.members, m)
	p.bytes += p.limits.Size(m)
}
