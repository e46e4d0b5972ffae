package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/protocol/room"
)

// reader reads a body once, from left to right, into what the caller asks for. encoding/json takes names in any letter
// case and the last of two equal ones, and three times as long (BenchmarkReadPublish). What is no JSON breaks the whole body;
// what is wrong with a field is noted, the first of them, and the rest is read all the same: in a batch it is the fault
// of one call alone.
type reader struct {
	b      []byte
	at     int
	within string   // what the place of a field begins with, such as "calls[3].publish."
	broken *problem // of the whole body; nothing more is read then
	wrong  *problem // of a field
}

// maxDepth is how deep a content may nest: its message's own object, which members get, is the 128th level.
const maxDepth = 127

// breaks says what is no JSON.
func (r *reader) breaks(what string) {
	if r.broken == nil {
		r.broken = fault(protocol.BadJSON, "the body is broken JSON at byte "+strconv.Itoa(r.at)+": "+what)
	}
}

// fault notes what is wrong with a field.
func (r *reader) fault(field, format string, args ...any) {
	r.faultOf(protocol.BadMessage, field, format, args...)
}

func (r *reader) faultOf(code protocol.Code, field, format string, args ...any) {
	if r.wrong == nil {
		r.wrong = fault(code, r.place(field)+" "+fmt.Sprintf(format, args...))
	}
}

// place is where a field is; of "" what all of its kind are in: "calls[3]".
func (r *reader) place(field string) string {
	if at := strings.TrimSuffix(r.within+field, "."); at != "" {
		return at
	}
	return "the body"
}

// peek is the byte that comes, 0 at the end.
func (r *reader) peek() byte {
	if r.at < len(r.b) {
		return r.b[r.at]
	}
	return 0
}

func (r *reader) space() { r.at = room.SkipSpace(r.b, r.at) }

// end says whether nothing but white space comes.
func (r *reader) end() {
	if r.space(); r.at < len(r.b) {
		r.breaks("something follows the value")
	}
}

// scalar reads a string, a number or a literal. lone says that a surrogate in it stands alone.
func (r *reader) scalar() (raw []byte, lone, ok bool) {
	if r.broken != nil {
		return nil, false, false
	}
	end, at, wrong := room.ScanScalar(r.b, r.at)
	if wrong != "" {
		r.at = end
		r.breaks(wrong)
		return nil, false, false
	}
	raw = r.b[r.at:end]
	r.at = end
	return raw, at >= 0, true
}

// key reads an object's key and the colon.
func (r *reader) key() (raw []byte, ok bool) {
	if r.peek() != '"' {
		r.breaks("a key in double quotes is expected")
		return nil, false
	}
	raw, lone, ok := r.scalar()
	if !ok {
		return nil, false
	}
	if r.space(); r.peek() != ':' {
		r.breaks("a colon is expected after a key")
		return nil, false
	}
	r.at++
	r.space()
	if lone {
		raw = []byte(`"\ufffd"`) // no field has such a name
	}
	return raw, true
}

// skip reads one value, whatever it is, and says how deep it nests, 0 for a scalar, and whether a surrogate in it stands
// alone. It does not recurse: an attacker's nesting costs a byte for each level and no stack.
func (r *reader) skip() (deepest int, alone bool) {
	var few [64]byte
	open := few[:0] // the brackets that will close
	for r.broken == nil {
		if c := r.peek(); c == '{' || c == '[' {
			open = append(open, c+2) // in ASCII its closing one
			deepest = max(deepest, len(open))
			r.at++
			if r.space(); r.peek() != c+2 {
				if c == '{' {
					r.key()
				}
				continue
			}
		} else if _, lone, ok := r.scalar(); ok {
			alone = alone || lone
		} else {
			break
		}
		// A value has ended, or an empty bracket is about to.
		for len(open) > 0 {
			if r.space(); r.peek() != open[len(open)-1] {
				break
			}
			r.at++
			open = open[:len(open)-1]
		}
		if len(open) == 0 {
			return deepest, alone
		}
		if r.peek() != ',' {
			r.breaks("a comma or a closing bracket is expected")
			break
		}
		r.at++
		if r.space(); open[len(open)-1] == '}' {
			r.key()
		}
	}
	return deepest, alone
}

// list walks over what stands in brackets.
type list struct {
	*reader
	closing byte
	begun   bool
	seen    uint32 // of an object's fields, by their indexes
}

// object is the one that begins here, or ok is false, and what there is was skipped and noted as a fault.
func (r *reader) object(field string) (o list, ok bool) { return r.bracket(field, '{', "an object") }

func (r *reader) array(field string) (l list, ok bool) { return r.bracket(field, '[', "a list") }

func (r *reader) bracket(field string, opening byte, what string) (l list, ok bool) {
	if r.broken != nil {
		return l, false
	}
	if r.peek() != opening {
		if r.skip(); r.broken == nil {
			r.fault(field, "must be %s", what)
		}
		return l, false
	}
	return list{reader: r, closing: opening + 2}, true
}

// next says whether another item or key comes.
func (l *list) next() bool {
	if l.broken != nil {
		return false
	}
	if l.space(); l.begun {
		switch l.peek() {
		case l.closing:
			l.at++
			return false
		case ',':
			l.at++
			l.space()
			return true
		}
		l.breaks("a comma or a closing bracket is expected")
		return false
	}
	l.begun = true
	l.at++
	if l.space(); l.peek() == l.closing {
		l.at++
		return false
	}
	return true
}

// field is the next of an object's fields, of which these may be there, once each; "" at its end. Others are faults, and
// skipped.
func (l *list) field(names []string) string {
	for l.next() {
		raw, ok := l.key()
		if !ok {
			break
		}
		name := room.Unquote(raw)
		i := slices.Index(names, name)
		switch {
		case i < 0:
			l.fault(shown(name), "is no field here; there are %s", strings.Join(names, ", "))
		case l.seen&(1<<i) != 0:
			l.fault(name, "is given twice")
		default:
			l.seen |= 1 << i
			return names[i]
		}
		l.skip()
	}
	return ""
}

// shown is a name that somebody else gave, for an error.
func shown(name string) string { return strings.Trim(protocol.Quote([]byte(name)), "'") }

// text reads a string of so many bytes at least and at most.
func (r *reader) text(field string, least, most int) (text string) {
	if r.broken != nil || r.peek() != '"' {
		if r.skip(); r.broken == nil {
			r.fault(field, "must be a string")
		}
		return ""
	}
	raw, lone, ok := r.scalar()
	switch {
	case !ok:
	case lone:
		r.faultOf(protocol.BadJSON, field, "has an escaped surrogate that stands alone")
	default:
		text = room.Unquote(raw)
		if len(text) < least || len(text) > most {
			r.fault(field, "must have %d to %d bytes, not %d", least, most, len(text))
		}
	}
	return text
}

// room reads the name of one.
func (r *reader) room(field string) string {
	name := r.text(field, 0, len(r.b))
	if r.wrong == nil && r.broken == nil {
		if err := protocol.CheckRoom([]byte(name)); err != nil {
			r.faultOf(err.Code, field, "can't be used: %s", err.Message)
		}
	}
	return name
}

// integer reads a whole number of at least and at most.
func (r *reader) integer(field string, least, most uint64) (n uint64) {
	from := r.at
	r.skip()
	if r.broken != nil {
		return 0
	}
	n, err := strconv.ParseUint(string(r.b[from:r.at]), 10, 64)
	if err != nil || n < least || n > most {
		r.fault(field, "must be a whole number from %d to %d", least, most)
	}
	return n
}

// yes reads true, the only value that the field may have.
func (r *reader) yes(field string) bool {
	from := r.at
	r.skip()
	if r.broken != nil {
		return false
	}
	if string(r.b[from:r.at]) != "true" {
		r.fault(field, "must be true, or not be there")
		return false
	}
	return true
}

// content reads the content of a message, byte for byte.
func (r *reader) content(field string, most int) []byte {
	from := r.at
	depth, lone := r.skip()
	if r.broken != nil {
		return nil
	}
	raw := r.b[from:r.at]
	switch {
	case len(raw) > most:
		if r.wrong == nil {
			r.wrong = tooLarge(fmt.Sprintf("%s has %d bytes, at most %d are allowed (--max-message-bytes)", r.place(field), len(raw), most))
		}
	case depth > maxDepth:
		r.faultOf(protocol.TooDeep, field, "nests deeper than %d levels", maxDepth)
	case lone:
		r.faultOf(protocol.BadJSON, field, "has an escaped surrogate that stands alone")
	}
	return raw
}
