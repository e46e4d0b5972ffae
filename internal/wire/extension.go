package wire

import (
	"errors"
	"strconv"
	"strings"
)

// Offer is one extension that a client would like, as it stands in the header Sec-WebSocket-Extensions.
type Offer struct {
	name   string
	params []param
}

type param struct {
	name, value string
	valued      bool
}

var errExtensions = errors.New("malformed Sec-WebSocket-Extensions")

// ParseExtensions reads the lines of Sec-WebSocket-Extensions, which are one list (RFC 6455 9.1). An error has to fail
// the handshake: "If a value is received [...] that does not conform to the ABNF below, the recipient of such malformed
// data MUST immediately _Fail the WebSocket Connection_."
func ParseExtensions(lines []string) (offers []Offer, err error) {
	for _, line := range lines {
		s := scanner{line}
		for {
			for s.skip(',') { // RFC 2616 2.1: empty elements of a list are allowed
			}
			if s.end() {
				break
			}
			o, ok := s.offer()
			if !ok || !s.end() && !s.at(',') {
				return nil, errExtensions
			}
			offers = append(offers, o)
		}
	}
	return offers, nil
}

// scanner reads a header's value from its front. White space may stand between any two parts.
type scanner struct{ rest string }

func (s *scanner) space()         { s.rest = strings.TrimLeft(s.rest, " \t") }
func (s *scanner) end() bool      { s.space(); return s.rest == "" }
func (s *scanner) at(c byte) bool { s.space(); return s.rest != "" && s.rest[0] == c }

func (s *scanner) skip(c byte) bool {
	if !s.at(c) {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// offer reads: extension-token *( ";" extension-param ).
func (s *scanner) offer() (o Offer, ok bool) {
	if o.name, ok = s.token(); !ok {
		return o, false
	}
	for s.skip(';') {
		var p param
		if p.name, ok = s.token(); !ok {
			return o, false
		}
		if p.valued = s.skip('='); p.valued {
			if p.value, ok = s.value(); !ok {
				return o, false
			}
		}
		o.params = append(o.params, p)
	}
	return o, true
}

func (s *scanner) token() (string, bool) {
	s.space()
	n := 0
	for n < len(s.rest) && tokenByte(s.rest[n]) {
		n++
	}
	t := s.rest[:n]
	s.rest = s.rest[n:]
	return t, n > 0
}

// value reads a token or a quoted string. RFC 6455 9.1: "When using the quoted-string syntax variant, the value after
// quoted-string unescaping MUST conform to the 'token' ABNF."
func (s *scanner) value() (string, bool) {
	if !s.skip('"') {
		return s.token()
	}
	var v []byte
	for i := 0; i < len(s.rest); i++ {
		c := s.rest[i]
		switch {
		case c == '"':
			s.rest = s.rest[i+1:]
			return string(v), len(v) > 0
		case c == '\\' && i+1 < len(s.rest):
			i++
			c = s.rest[i]
		}
		if !tokenByte(c) {
			return "", false
		}
		v = append(v, c)
	}
	return "", false
}

// IsToken says whether s is a token (RFC 2616 2.2), as the name of a subprotocol has to be (RFC 6455 4.1).
func IsToken(s string) bool {
	for i := range len(s) {
		if !tokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// tokenByte says whether c may stand in a token (RFC 2616 2.2).
func tokenByte(c byte) bool {
	return c > ' ' && c < 0x7F && !strings.ContainsRune(`()<>@,;:\"/[]?={}`, rune(c))
}

// Deflate is what was agreed on for one connection (RFC 7692). The zero value: nothing is compressed.
type Deflate struct {
	// ServerBits is the window of what the server sends, 8 to 15, and ClientBits that of what it receives; 0 without
	// compression.
	ServerBits, ClientBits uint8
	// ServerTakeover and ClientTakeover say that a message may refer to those before it.
	ServerTakeover, ClientTakeover bool
}

const (
	minBits = 8
	maxBits = 15
	// takeoverBits bounds the windows that are kept with context takeover, where the protocol lets us: 8 KiB a
	// connection and direction.
	takeoverBits = 13
)

// AcceptDeflate takes the first offer of permessage-deflate that it can, and gives the value of the answer's header;
// the empty one when there is none. The offers come in the client's order of preference (RFC 7692 5.1). Contexts are
// taken over only with takeover.
func AcceptDeflate(offers []Offer, takeover bool) (d Deflate, answer string) {
	for _, o := range offers {
		if w, ok := o.deflate(); ok {
			return w.accept(takeover)
		}
	}
	return Deflate{}, ""
}

// wish is a valid offer of permessage-deflate. Bits that are 0 were not offered.
type wish struct {
	serverFresh, clientFresh bool // without takeover
	serverBits, clientBits   uint8
	clientAny                bool // client_max_window_bits without a value
}

// deflate reads an offer. RFC 7692 7.1: decline where it "contains an extension parameter not defined for use in an
// offer", "with an invalid value", or "multiple extension parameters with the same name".
func (o Offer) deflate() (w wish, ok bool) {
	if o.name != "permessage-deflate" {
		return w, false
	}
	for _, p := range o.params {
		bits, valid := windowBits(p.value)
		switch {
		case p.name == "server_no_context_takeover" && !p.valued && !w.serverFresh:
			w.serverFresh = true
		case p.name == "client_no_context_takeover" && !p.valued && !w.clientFresh:
			w.clientFresh = true
		case p.name == "server_max_window_bits" && valid && w.serverBits == 0:
			w.serverBits = bits
		case p.name == "client_max_window_bits" && (valid || !p.valued) && w.clientBits == 0 && !w.clientAny:
			w.clientBits, w.clientAny = bits, !p.valued
		default:
			return w, false
		}
	}
	return w, true
}

// windowBits reads "a decimal integer value without leading zeroes between 8 to 15, inclusive" (RFC 7692 7.1.2.1).
func windowBits(s string) (uint8, bool) {
	n, err := strconv.Atoi(s)
	if err != nil || n < minBits || n > maxBits || strconv.Itoa(n) != s {
		return 0, false
	}
	return uint8(n), true
}

// accept says what is agreed, and the answer that says it.
func (w wish) accept(takeover bool) (Deflate, string) {
	d := Deflate{
		ServerBits: maxBits, ClientBits: maxBits,
		ServerTakeover: takeover && !w.serverFresh, ClientTakeover: takeover && !w.clientFresh,
	}
	answer := "permessage-deflate"
	// RFC 7692 7.1.1: a server may ask for both without an offer.
	if !d.ServerTakeover {
		answer += "; server_no_context_takeover"
	}
	if !d.ClientTakeover {
		answer += "; client_no_context_takeover"
	}
	// 7.1.2.1: accepting means to answer "with the same or smaller value".
	if w.serverBits != 0 {
		d.ServerBits = w.serverBits
		answer += "; server_max_window_bits=" + strconv.Itoa(int(d.ServerBits))
	}
	// 7.1.2.2: the answer may have it only where the offer did. A client that names 8 is not held to it: zlib's raw
	// deflate has no such window, so a client that rests on it would have to hang up when it reads that in our answer.
	if w.clientBits != 0 {
		d.ClientBits = w.clientBits
	}
	if d.ClientTakeover && (w.clientAny || w.clientBits != 0) {
		d.ClientBits = min(d.ClientBits, takeoverBits)
	}
	if w.clientBits > minBits || d.ClientBits == takeoverBits {
		answer += "; client_max_window_bits=" + strconv.Itoa(int(d.ClientBits))
	}
	return d, answer
}
