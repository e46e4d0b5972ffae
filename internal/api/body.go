package api

import (
	"fmt"
	"math/bits"
	"strings"
	"unicode/utf8"

	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
)

// What one call may ask for.
const (
	maxRooms  = 1000
	maxCalls  = 1000
	maxFrom   = 64  // bytes
	maxReason = 123 // bytes: what a Close frame has room for beside its code (RFC 6455 5.5)
)

// publication is what a publish says. Its content lies in the body.
type publication struct {
	room, user, from, key, publishID string
	rooms                            []string // their names are looked at one by one
	client, exclude                  string
	everyone                         bool
	content                          []byte
}

// The fields of bodies; the first four of publish are where it goes.
var (
	publishFields    = []string{"room", "rooms", "client", "user", "everyone", "content", "from", "key", "publish_id", "exclude"}
	batchFields      = []string{"calls"}
	memberFields     = []string{"room", "client"}
	disconnectFields = []string{"client", "user", "code", "reason"}
	deleteFields     = []string{"room", "offset", "epoch"}
)

const targets = 5 // of publishFields

// publication reads one. most bounds the content, in bytes.
func (r *reader) publication(most int) (p publication) {
	o, ok := r.object("")
	for ok {
		switch field := o.field(publishFields); field {
		case "room":
			p.room = r.room(field)
		case "rooms":
			p.rooms = r.rooms(field)
		case "client":
			p.client = r.text(field, 1, protocol.MaxUser)
		case "user":
			p.user = r.text(field, 1, protocol.MaxUser)
		case "everyone":
			p.everyone = r.yes(field)
		case "content":
			p.content = r.content(field, most)
		case "from":
			p.from = r.text(field, 1, maxFrom)
		case "key":
			p.key = r.text(field, 1, protocol.MaxKey)
		case "publish_id":
			p.publishID = r.text(field, 1, protocol.MaxPublishID)
		case "exclude":
			p.exclude = r.text(field, 1, protocol.MaxUser)
		default:
			r.checkPublication(&p, o.seen)
			return p
		}
	}
	return p
}

// checkPublication looks at what no field says alone. given are the fields that were there.
func (r *reader) checkPublication(p *publication, given uint32) {
	where := given & (1<<targets - 1)
	switch {
	case r.wrong != nil || r.broken != nil:
	case bits.OnesCount32(where) != 1:
		r.fault("", "must say where to by one of %s, not %s", strings.Join(publishFields[:targets], ", "), chosen(where))
	case p.content == nil:
		r.fault("content", "is missing")
	case p.publishID != "" && p.room == "" && p.rooms == nil:
		r.fault("publish_id", "goes with room or rooms alone")
	case p.key != "" && p.room == "" && p.rooms == nil:
		r.fault("key", "goes with room or rooms alone")
	case p.user != "" && protocol.CheckUser(p.user) != nil:
		r.fault("user", "can't be used: %v", protocol.CheckUser(p.user))
	}
	if err := hub.CheckFrom(p.from); err != nil {
		r.fault("from", "can't be used: %v", err)
	}
	if _, is := hub.ParseID([]byte(p.exclude)); p.exclude != "" && !is {
		r.fault("exclude", "is no client's id: %s", shown(p.exclude))
	}
}

// chosen are the fields that say where to.
func chosen(fields uint32) string {
	var names []string
	for i, name := range publishFields[:targets] {
		if fields&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, " and ")
}

func (r *reader) rooms(field string) []string {
	names := []string{}
	count := 0
	for l, ok := r.array(field); ok && l.next(); count++ {
		if count >= maxRooms {
			r.skip()
			continue
		}
		item := field
		if r.peek() != '"' {
			item = fmt.Sprintf("%s[%d]", field, count)
		}
		names = append(names, r.text(item, 0, len(r.b)))
	}
	if r.broken == nil && (count == 0 || count > maxRooms) {
		r.fault(field, "must have 1 to %d rooms, not %d", maxRooms, count)
	}
	return names
}

// readPublish reads the body of POST /publish.
func readPublish(b []byte, most int) (p publication, wrong *problem) {
	r := reader{b: b}
	r.space()
	p = r.publication(most)
	return p, r.verdict()
}

// verdict is what is wrong with the whole of it.
func (r *reader) verdict() *problem {
	if r.broken == nil {
		r.end()
	}
	if r.broken != nil {
		return r.broken
	}
	return r.wrong
}

// operation is one call of a batch.
type operation struct {
	name  string   // "publish", "join", and so on; "" where nobody knows
	wrong *problem // it can't be done

	publication
	target string // of a join, leave or disconnect the client
	code   int
	reason string
	epoch  string
	offset uint64 // of a delete; 0 for the whole history
}

// operationRights are the calls that a batch may have, and which right each needs.
var operationRights = map[string]auth.Rights{
	"publish": auth.RightPublish, "join": auth.RightManage, "leave": auth.RightManage, "disconnect": auth.RightManage, "delete": auth.RightManage,
}

var operationNames = []string{"publish", "join", "leave", "disconnect", "delete"}

// readBatch reads the body of POST /batch.
func readBatch(b []byte, most int) (all []operation, wrong *problem) {
	r := reader{b: b}
	r.space()
	o, ok := r.object("")
	for ok && o.field(batchFields) != "" {
		var whole *problem
		l, isList := r.array("calls")
		for isList && l.next() {
			if len(all) == maxCalls {
				whole = bad("calls has more than %d", maxCalls)
				r.skip()
				continue
			}
			r.within = fmt.Sprintf("calls[%d].", len(all))
			all = append(all, r.operation(most))
			r.within = ""
		}
		if r.wrong == nil {
			r.wrong = whole
		}
	}
	if ok && o.seen == 0 && r.wrong == nil {
		r.fault("calls", "is missing")
	}
	return all, r.verdict()
}

// operation reads one call. What is wrong with it is its own fault.
func (r *reader) operation(most int) (op operation) {
	before := r.wrong // of the whole
	r.wrong = nil
	within := r.within
	o, ok := r.object("")
	for ok {
		name := o.field(operationNames)
		if name == "" {
			if op.name == "" {
				r.fault("", "has no call; it needs one of %s", strings.Join(operationNames, ", "))
			}
			break
		}
		if op.name != "" {
			r.fault(name, "is a second call, behind %s; each stands in braces of its own", op.name)
			r.skip()
			continue
		}
		r.within = within + name + "."
		op = r.operationOf(name, most)
		r.within = within
	}
	op.wrong = r.wrong
	r.wrong = before
	return op
}

func (r *reader) operationOf(name string, most int) operation {
	op := operation{name: name}
	switch name {
	case "publish":
		op.publication = r.publication(most)
	case "join", "leave":
		o, ok := r.object("")
		for ok {
			switch field := o.field(memberFields); field {
			case "room":
				op.room = r.room(field)
			case "client":
				op.target = r.text(field, 1, protocol.MaxUser)
			default:
				r.needs(o.seen, memberFields)
				return op
			}
		}
	case "disconnect":
		r.disconnection(&op)
	case "delete":
		r.deletion(&op)
	}
	return op
}

func (r *reader) disconnection(op *operation) {
	op.code = protocol.CloseKicked
	o, ok := r.object("")
	for ok {
		switch field := o.field(disconnectFields); field {
		case "client":
			op.target = r.text(field, 1, protocol.MaxUser)
		case "user":
			op.user = r.text(field, 1, protocol.MaxUser)
		case "code":
			op.code = int(r.integer(field, 4000, 4999))
		case "reason":
			op.reason = r.text(field, 0, maxReason)
		default:
			if given := o.seen & 3; given == 0 || given == 3 {
				r.fault("", "needs client or user, one of them")
			}
			return
		}
	}
}

func (r *reader) deletion(op *operation) {
	o, ok := r.object("")
	for ok {
		switch field := o.field(deleteFields); field {
		case "room":
			op.room = r.room(field)
		case "offset":
			op.offset = r.integer(field, 1, maxOffset)
		case "epoch":
			op.epoch = r.text(field, 1, protocol.MaxEpoch)
		default:
			r.needs(o.seen, deleteFields[:1])
			if op.epoch != "" && op.offset == 0 {
				r.fault("epoch", "goes with offset alone")
			}
			return
		}
	}
}

// maxOffset is the largest integer that JavaScript holds exactly.
const maxOffset = 1<<53 - 1

// needs notes the first of these fields that wasn't given.
func (r *reader) needs(given uint32, fields []string) {
	for i, name := range fields {
		if given&(1<<i) == 0 {
			r.fault(name, "is missing")
		}
	}
}

// checkShort refuses what a header or a path gives and a body's text may not be.
func checkShort(text, what string, least, most int) *problem {
	if len(text) < least || len(text) > most || !utf8.ValidString(text) {
		return bad("%s must be UTF-8 of %d to %d bytes", what, least, most)
	}
	return nil
}
