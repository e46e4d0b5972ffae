package model

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// What clients are told of who is in a room. A server knows of joins, leaves and lost connections a little earlier or
// later than the logs do, so at any moment a client is in a room for certain, or out of it, or nobody can say.

const (
	newsTake  = 2 * time.Second // more than news of members are collected for
	unnoticed = 2 * time.Minute // until the server notices a dead line at the latest
	limbo     = 9 * time.Second // in which who comes back must say resume; the server gives a second more
)

const forever = math.MaxInt64

// presence is what the logs say of who is where.
type presence struct {
	*checking
	run     Run
	clients []string
	logs    map[string][]*Log // by client, in the order of their beginnings
}

func (c *checking) checkPresence(run Run) {
	p := &presence{checking: c, run: run, logs: map[string][]*Log{}}
	for _, l := range run.Logs {
		if len(l.Events) == 0 || l.Client == Server {
			continue
		}
		if p.logs[l.Client] == nil {
			p.clients = append(p.clients, l.Client)
		}
		p.logs[l.Client] = append(p.logs[l.Client], l)
	}
	for _, logs := range p.logs {
		slices.SortFunc(logs, func(a, b *Log) int { return cmp.Compare(a.Events[0].At, b.Events[0].At) })
	}
	for _, l := range run.Logs {
		for name, r := range c.rooms {
			if r.policy.Presence != "" && name != Everyone {
				p.checkLog(l, r)
			}
		}
	}
}

// view is what a client makes of the news in a room.
type view struct {
	in         bool              // it is a member
	asked      bool              // here is complete
	here       map[string]string // data by client id
	last       map[string]Event  // the news of each
	count      int               // by the latest news; -1 without
	came, went map[string]int
}

func (p *presence) checkLog(l *Log, r *roomLog) {
	v := &view{came: map[string]int{}, went: map[string]int{}}
	var joined int64            // when the join was sent
	asked := map[string]Event{} // by id
	ended := false
	for _, e := range l.Events {
		ended = ended || e.Kind == Closed
		if e.Room != r.name {
			continue
		}
		switch e.Kind {
		case JoinSent:
			if !v.in {
				joined = e.At
			}
		case Joined:
			if !v.in {
				v.in = true
				v.forget()
			}
		case Left:
			v.in = false
		case Gap:
			v.forget()
		case Asked:
			asked[e.ID] = e
		case Present:
			p.checkAnswer(l, r, asked[e.ID], e)
			if r.policy.Presence == "full" && v.in && asked[e.ID].At > joined {
				v.asked, v.here = true, map[string]string{}
				for _, m := range e.Members {
					v.here[m.Client] = m.Data
				}
			}
		case Came, Went:
			p.checkNews(l, r, v, e)
		}
	}
	if !ended && !l.Waiting && v.in && r.policy.Presence == "full" && !p.run.Now.IsZero() {
		p.checkView(l, r, v)
	}
}

// forget is after a join or a gap: news may be missing.
func (v *view) forget() {
	v.asked, v.here, v.last, v.count = false, map[string]string{}, map[string]Event{}, -1
}

// checkNews holds news against what can have caused them, and against the news before.
func (p *presence) checkNews(l *Log, r *roomLog, v *view, e Event) {
	bad := func(who, format string, args ...any) {
		p.fault(Mistold, l.Name, r, nil, "%s is told that %s %s, "+format, append([]any{l.Name, p.name(who), e.Kind}, args...)...)
	}
	if !v.in || r.policy.Presence != "full" {
		p.fault(Misdelivered, l.Name, r, nil, "%s is told of members: %s", l.Name, e)
		return
	}
	for _, m := range e.Members {
		last := v.last[m.Client]
		if e.Kind == Came {
			if v.came[m.Client]++; v.came[m.Client] > p.joins(m.Client, r.name, e.At) {
				bad(m.Client, "and nobody joined")
			}
			if last.Kind == Came && slices.Contains(last.Members, m) && !p.excused(m, r.name, e.At) {
				bad(m.Client, "and was told so before")
			}
			v.here[m.Client] = m.Data
		} else {
			if v.went[m.Client]++; v.went[m.Client] > p.leaves(m.Client, r.name, e.At) {
				bad(m.Client, "who has never left")
			}
			if last.Kind == Went {
				bad(m.Client, "and was told so before")
			}
			delete(v.here, m.Client)
		}
		v.last[m.Client] = e
	}
	v.count = e.Count
}

// joins is how many joins of the client may have come to the server before at.
func (p *presence) joins(client, room string, at int64) (n int) {
	for _, l := range p.logs[client] {
		for _, e := range l.Events {
			if e.Kind == JoinSent && e.Room == room && e.At < at {
				n++
			}
		}
	}
	return n + p.putIn(client, room)
}

// putIn is how often the client was put into the room: by the application, or by what is known of it, of which its own
// log alone has word.
func (p *presence) putIn(client, room string) (n int) {
	told := 0
	for _, l := range p.logs[client] {
		for _, e := range l.Events {
			if e.Kind == Joined && e.Room == room && e.ID == "" {
				told++
			}
		}
	}
	for _, l := range p.run.Logs {
		for _, e := range l.Events {
			if e.Kind == PutIn && e.Room == room && e.From == client {
				n++
			}
		}
	}
	return max(n, told)
}

// leaves is how often the client may have left the room before at: it said so, or lost its connection and did not come
// back in time.
func (p *presence) leaves(client, room string, at int64) (n int) {
	for i, l := range p.logs[client] {
		for _, e := range l.Events {
			if (e.Kind == LeaveSent || e.Kind == Left && e.ID == "") && e.Room == room && e.At < at {
				n++
			}
		}
		if alive := l.alive(); alive < at && !(i+1 < len(p.logs[client]) && p.logs[client][i+1].keeps(room)) {
			n++
		}
	}
	return n
}

// excused says that m may be told to have come twice: somebody had asked meanwhile, or it came with other data.
func (p *presence) excused(m Member, room string, before int64) bool {
	first := int64(forever) // when it was first there, at the earliest
	for _, l := range p.logs[m.Client] {
		for _, e := range l.Events {
			if e.Kind == JoinSent && e.Room == room && e.At < before {
				if first = min(first, e.At); e.Data != m.Data {
					return true
				}
			}
		}
	}
	for _, l := range p.run.Logs {
		asked := map[string]bool{}
		for _, e := range l.Events {
			switch {
			case e.Room != room:
			case e.Kind == Asked && e.At < before:
				asked[e.ID] = true
			case e.Kind == Present && e.At < first:
				delete(asked, e.ID)
			}
		}
		if len(asked) > 0 {
			return true
		}
	}
	return false
}

// alive is until when the server had the connection for certain: it answered what was sent then.
func (l *Log) alive() int64 {
	at, sent := l.Events[0].At, map[string]int64{}
	if _, closed := l.closed(); !closed && !l.Waiting {
		return forever
	}
	for _, e := range l.Events {
		switch e.Kind {
		case Sent, JoinSent, LeaveSent, Asked:
			sent[e.ID] = e.At
		case Acked, Refused, Joined, Left, Answered, Present:
			if e.ID != "" {
				at = max(at, sent[e.ID])
			}
		}
	}
	return at
}

// leaves is when the client first left the room over this connection, or from when on the server may have removed it.
func (l *Log) leaves(room string) int64 {
	var since int64
	for _, e := range l.Events {
		switch {
		case e.Room != room:
		case e.Kind == Joined:
			since = e.At
		case e.Kind == LeaveSent:
			return e.At
		case e.Kind == Left && e.ID == "":
			return since
		}
	}
	return forever
}

// closed is how the connection ended, if it did.
func (l *Log) closed() (end Event, is bool) {
	i := slices.IndexFunc(l.Events, func(e Event) bool { return e.Kind == Closed })
	if i < 0 {
		return end, false
	}
	return l.Events[i], true
}

// keeps says that a connection which resumed a session named the room as its first message, and in time.
func (l *Log) keeps(room string) bool {
	first, named, resume := "", false, false
	for _, e := range l.Events {
		switch {
		case e.Kind == JoinSent && (e.Room == Everyone || e.Room == Direct(l.Client)):
		case first == "" && (e.Kind == JoinSent || e.Kind == Asked):
			first = e.ID
			named, resume = e.Room == room, e.Kind == Asked
		case first != "" && e.ID == first && e.Kind == JoinSent:
			named = named || e.Room == room
		case first != "" && e.ID == first && e.Kind == Asked:
			resume = true
		case e.Kind == Joined && e.Room == room && e.ID == first && first != "":
			return named && resume && e.Time.Sub(l.Events[0].Time) < limbo
		case first == "" && (e.Kind == Sent || e.Kind == LeaveSent):
			return false
		}
	}
	return false
}

// where says whether the client is a member for certain from one place in the logs to another, and with which data, or
// certainly not; then is the time at the first of these.
func (p *presence) where(client, room string, from, to int64, then time.Time) (in, out bool, data string) {
	logs := p.logs[client]
	if p.putIn(client, room) > 0 {
		return false, false, unknown // it stays over a resume that doesn't name the room
	}
	out = true
	stayed := false // in the connection before
	for i, l := range logs {
		before, was := data, stayed
		var sent, since, leaves int64 // the join, its answer, and the leave after it
		over := false                 // the leave was answered
		joins := map[string]bool{}    // by id, those that were not refused
		gone := true                  // it certainly was not in before the join
		removed := false              // the leave is the server's own doing, and was at any time before it was told
		rejoined := false             // the join is behind a leave over the same connection
		for _, e := range l.Events {
			if e.Room != room {
				continue
			}
			if e.Kind == Left && e.ID == "" && leaves == 0 {
				leaves, removed = e.At, true
			}
			if e.At >= to {
				continue
			}
			switch e.Kind {
			case JoinSent:
				if leaves > 0 {
					clear(joins)
				}
				anew := sent == 0 || leaves > 0 || len(joins) == 0 // else it was in, or was about to be
				joins[e.ID] = true
				if anew {
					gone, rejoined = sent == 0 || over, rejoined || leaves > 0
					sent, since, leaves, over, data = e.At, 0, 0, false, e.Data
				}
			case Refused:
				if !joins[e.ID] {
					continue
				}
				if delete(joins, e.ID); len(joins) > 0 {
					data = unknown // it may be that of another one
				} else if since == 0 && gone {
					sent = 0
				}
			case Joined:
				if joins[e.ID] { // else it is that of a join before the leave
					since = e.At
					if removed { // and joined again by one that was on its way
						leaves, over, removed = 0, false, false
					}
				}
			case LeaveSent:
				leaves = e.At
			case Left:
				over = over || leaves > 0 && e.At < from
			}
		}
		if resumed := i > 0 && l.asked(room, sent); resumed && rejoined {
			data = "" // it had left: then the message resume joins, and brings no data
		} else if resumed && was && l.keeps(room) {
			data = before
		} else if resumed {
			data = unknown
		}
		stayed = since > 0 && leaves == 0
		if sent == 0 || over || p.ended(logs, i, from, then) {
			continue
		}
		out = false
		until := l.alive()
		for _, next := range logs[i+1:] {
			if !next.keeps(room) {
				break
			}
			leave := next.leaves(room)
			if until = max(until, min(leave, next.alive())); leave < to {
				break
			}
		}
		if since > 0 && since < from && leaves == 0 && until >= to {
			return true, false, data
		}
	}
	return false, out, data
}

// unknown is data that may be that of an earlier connection, or none.
const unknown = "?"

// asked says that the join which was sent then is part of a resume.
func (l *Log) asked(room string, sent int64) bool {
	for i, e := range l.Events {
		if e.Kind == JoinSent && e.Room == room && e.At == sent {
			return slices.ContainsFunc(l.Events[i:], func(o Event) bool { return o.Kind == Asked && o.ID == e.ID })
		}
	}
	return false
}

// ended says that what the client was over the connection i, it is no more at from: the session has ended, or another
// connection goes on with it, and has said what it is.
func (p *presence) ended(logs []*Log, i int, from int64, then time.Time) bool {
	for _, next := range logs[i+1:] {
		for _, e := range next.Events {
			if e.At < from && e.ID != "" && (e.Kind == Acked || e.Kind == Refused || e.Kind == Joined || e.Kind == Left || e.Kind == Answered || e.Kind == Present) {
				return true
			}
		}
	}
	for _, l := range logs[i:] { // each begins the window anew
		end, closed := l.closed()
		if !closed || end.At >= from {
			return false
		}
		if end.Code != 1000 && !end.Time.Add(p.run.Window+unnoticed+newsTake).Before(then) {
			return false
		}
	}
	return true
}

// checkAnswer holds the answer to the question who is in a room.
func (p *presence) checkAnswer(l *Log, r *roomLog, asked, e Event) {
	told := map[string]bool{}
	for _, m := range e.Members {
		told[m.Client] = true
	}
	full := r.policy.Presence == "full"
	least, most := 0, 0
	for _, client := range p.clients {
		in, out, _ := p.where(client, r.name, asked.At, e.At, asked.Time)
		if in {
			least++
		}
		if !out {
			most++
		}
		switch {
		case full && in && !told[client]:
			p.fault(Mistold, l.Name, r, nil, "%s is told who is there, and not of %s", l.Name, p.name(client))
		case out && told[client]:
			p.fault(Mistold, l.Name, r, nil, "%s is told that %s is there", l.Name, p.name(client))
		}
	}
	if e.Count < least || e.Count > most || full && e.Count != len(e.Members) {
		p.fault(Mistold, l.Name, r, nil, "%s is told that there are %d, and there are %d to %d", l.Name, e.Count, least, most)
	}
}

// checkView holds what a client believes at the end against what is so, where that has not changed for a while.
func (p *presence) checkView(l *Log, r *roomLog, v *view) {
	then := p.run.Now.Add(-newsTake)
	var from int64 // the first event after that
	for _, o := range p.run.Logs {
		for _, e := range o.Events {
			if e.Time.After(then) && (from == 0 || e.At < from) {
				from = e.At
			}
		}
	}
	if from == 0 {
		from = forever
	}
	least, most := 0, 0
	for _, client := range p.clients {
		in, out, data := p.where(client, r.name, from, forever, then)
		if in {
			least++
		}
		if !out {
			most++
		}
		got, believed := v.here[client]
		switch {
		case client == l.Client:
		case in && (v.asked || believed) && (!believed || got != data && data != unknown):
			p.fault(Mistold, l.Name, r, nil, "%s was not told that %s is there with the data %q", l.Name, p.name(client), data)
		case out && believed:
			p.fault(Mistold, l.Name, r, nil, "%s was not told that %s has left", l.Name, p.name(client))
		}
	}
	if v.count >= 0 && (v.count < least || v.count > most) {
		p.fault(Mistold, l.Name, r, nil, "%s was told last that there are %d, and there are %d to %d", l.Name, v.count, least, most)
	}
}

// name is for people.
func (p *presence) name(client string) string {
	if logs := p.logs[client]; logs != nil {
		return logs[0].Name
	}
	return client
}
