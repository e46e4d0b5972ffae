package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"example.com/hubbub/internal/protocol"
)

// claims are the JSON object in a token, whose signature is good. Names count to the letter, which a struct of
// encoding/json doesn't hold to: somebody whose issuer lets him have a claim "Sub" must not become another by it.
type claims []claim

type claim struct {
	name string
	raw  json.RawMessage // a part of the token's payload
}

// get is the claim's value, nil for none. RFC 7519 4 lets the last of two of one name count.
func (c claims) get(name string) json.RawMessage {
	for _, of := range slices.Backward(c) {
		if of.name == name {
			return of.raw
		}
	}
	return nil
}

// parseClaims takes an object apart. A map of encoding/json would take several times as long, and so deep a stack that
// the handshake's goroutine had to get a larger one; whether it is JSON at all, that package says.
func parseClaims(b []byte) (c claims, ok bool) {
	b = bytes.Trim(b, space)
	if !json.Valid(b) || b[0] != '{' {
		return nil, false
	}
	c = make(claims, 0, 8)
	for b = trimLeft(b[1:]); b[0] != '}'; b = trimLeft(b) {
		var key, value []byte
		key, b = cutValue(trimLeft(bytes.TrimPrefix(b, []byte(","))))
		value, b = cutValue(trimLeft(trimLeft(b)[1:])) // behind the colon
		var name string
		if !readPlain(key, &name) && json.Unmarshal(key, &name) != nil {
			return nil, false
		}
		c = append(c, claim{name, value})
	}
	return c, true
}

const space = " \t\r\n"

func trimLeft(b []byte) []byte { return bytes.TrimLeft(b, space) }

// cutValue parts valid JSON behind its first value.
func cutValue(b []byte) (value, rest []byte) {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			if quoted = !quoted; !quoted && depth == 0 {
				return b[:i+1], b[i+1:]
			}
		case quoted:
		case c == '{' || c == '[':
			depth++
		case depth > 0 && (c == '}' || c == ']'):
			if depth--; depth == 0 {
				return b[:i+1], b[i+1:]
			}
		case depth == 0 && bytes.IndexByte([]byte(",}]"+space), c) >= 0: // behind a number or a word
			return b[:i], b[i:]
		}
	}
	return b, nil
}

// The claims' methods make them a jwt.Claims, for its Validator.
var _ jwt.Claims = claims(nil)

func (c claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.time("exp") }
func (c claims) GetNotBefore() (*jwt.NumericDate, error)      { return c.time("nbf") }
func (c claims) GetIssuedAt() (*jwt.NumericDate, error)       { return nil, nil } // says nothing about who it is

func (c claims) GetIssuer() (iss string, err error) { return iss, c.read("iss", &iss) }

func (c claims) GetSubject() (sub string, err error) { return sub, c.read("sub", &sub) }

func (c claims) GetAudience() (aud jwt.ClaimStrings, err error) { return aud, c.read("aud", &aud) }

// read leaves what v points to alone where there is no such claim, or it is null.
func (c claims) read(name string, v any) error {
	raw := c.get(name)
	if raw == nil || readPlain(raw, v) {
		return nil
	}
	if json.Unmarshal(raw, v) != nil {
		return &claimError{name: name}
	}
	return nil
}

// readPlain reads what nearly every token has, a text of ASCII and a whole number, for the same reasons. raw is JSON.
func readPlain(raw json.RawMessage, v any) bool {
	switch v := v.(type) {
	case *string:
		if raw[0] != '"' || slices.ContainsFunc(raw, func(b byte) bool { return b == '\\' || b >= utf8.RuneSelf }) {
			return false
		}
		*v = string(raw[1 : len(raw)-1])
		return true
	case **float64:
		var n float64
		for _, b := range raw {
			if b < '0' || b > '9' {
				return false
			}
			n = n*10 + float64(b-'0')
		}
		*v = &n
		return true
	}
	return false
}

// claimError says that a claim has the wrong type, or is no time, and nothing of what it has.
type claimError struct {
	name   string
	noTime bool
}

func (e *claimError) Error() string {
	if e.noTime {
		return fmt.Sprintf("the token's claim %s is no time before the year 10000: it must be in seconds, not milliseconds", e.name)
	}
	return fmt.Sprintf("the token's claim %s is of the wrong type", e.name)
}

// maxDate is the last second of the year 9999: beyond it times are no times.
const maxDate = 253402300799

func (c claims) time(name string) (*jwt.NumericDate, error) {
	var seconds *float64
	if err := c.read(name, &seconds); err != nil || seconds == nil {
		return nil, err
	}
	if *seconds < 0 || *seconds > maxDate {
		return nil, &claimError{name: name, noTime: *seconds > maxDate}
	}
	return jwt.NewNumericDate(time.Unix(int64(*seconds), 0)), nil
}

// identify holds the claims against what is wanted, times first, and makes an identity of them.
func (v *Verifier) identify(payload []byte) (who Identity, err error) {
	c, ok := parseClaims(payload)
	if !ok {
		return who, errors.New("the token's claims are no JSON object")
	}
	if err := inWords(v.validator.Validate(c)); err != nil {
		return who, err
	}
	return c.identity()
}

// inWords says what to do about the first thing that is wrong.
func inWords(err error) error {
	var wrongType *claimError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrTokenExpired):
		return ErrExpired
	case errors.As(err, &wrongType):
		return wrongType
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return errors.New("the token isn't valid yet, by its claim nbf")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return errors.New("the token's claim iss isn't the issuer that --jwt-issuer names")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return errors.New("the token's claim aud isn't the audience that --jwt-audience names")
	}
	for _, name := range []string{"exp", "iss", "aud"} {
		if strings.Contains(err.Error(), name+" claim is required") {
			return fmt.Errorf("the token lacks the claim %s", name)
		}
	}
	return fmt.Errorf("the token's claims: %w", err)
}

// permit reads the claim "hubbub". What else is in it is not for this version.
func (c claims) permit(who *Identity) (err error) {
	raw := c.get("hubbub")
	inner, ok := parseClaims(raw)
	if !ok && string(raw) != "null" {
		return &claimError{name: "hubbub"}
	}
	var data json.RawMessage
	var join, publish, read []string
	var chat, direct bool
	for _, of := range []struct {
		name string
		v    any
	}{
		{"rooms", &who.Rooms}, {"data", &data}, {"join", &join}, {"publish", &publish}, {"read", &read}, {"chat", &chat}, {"direct", &direct},
	} {
		if inner.read(of.name, of.v) != nil {
			return &claimError{name: "hubbub." + of.name}
		}
	}
	if string(data) != "null" {
		who.Data = data
	}
	if len(join)+len(read)+len(publish) > 0 || chat || direct {
		if who.Grants, err = NewGrants(join, read, publish, chat, direct); err != nil {
			return fmt.Errorf("the token's claim hubbub: %w", err)
		}
	}
	return nil
}

// identity makes of claims that are good what the server goes by.
func (c claims) identity() (who Identity, err error) {
	exp, err := c.time("exp")
	if err != nil || exp == nil { // the validator has looked; a Signer has not
		return Identity{}, &claimError{name: "exp"}
	}
	who.Expires = exp.Time
	if err := c.read("sub", &who.User); err != nil {
		return Identity{}, err
	}
	if who.User == "" {
		return Identity{}, errors.New("the token lacks the claim sub, the user's name")
	}
	if strings.ContainsRune(who.User, utf8.RuneError) { // what encoding/json makes of all that is no character: names would become equal
		return Identity{}, errors.New("the token's claim sub has bytes or surrogates that are no characters")
	}
	if c.get("hubbub") != nil {
		if err := c.permit(&who); err != nil {
			return Identity{}, err
		}
	}
	if err := who.Check(); err != nil {
		return Identity{}, fmt.Errorf("the token's claims: %w", err)
	}
	return who, nil
}

// Check looks at the names in an identity that somebody has made up. That it has none of its own is good.
func (i *Identity) Check() error {
	if i.User != "" {
		if err := protocol.CheckUser(i.User); err != nil {
			return err
		}
	}
	for _, room := range i.Rooms {
		if err := protocol.CheckRoom([]byte(room)); err != nil {
			return fmt.Errorf("rooms: %s", err.Message)
		}
	}
	return nil
}
