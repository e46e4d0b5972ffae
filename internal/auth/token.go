package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// MaxToken is how long a token may be, in bytes.
const MaxToken = 32 << 10

var (
	// ErrExpired is in the error of a token that was good: a newer one is what helps.
	ErrExpired = errors.New("the token has expired")
	// ErrUnavailable is in the error where nobody knows whether a token is good, as its provider can't be reached.
	ErrUnavailable = errors.New("the provider's keys can't be had")
)

// Options are what tokens are held against: by a key or by a provider's.
type Options struct {
	Key              *Key
	JWKS             string // URL of a provider's keys, which CheckJWKS has looked at
	Issuer, Audience string // "" for any
	Leeway           time.Duration
	Log              *slog.Logger // of the provider's outages
}

// Verifier says who shows a token. Any goroutine.
type Verifier struct {
	key       *Key      // or
	provider  *provider // the other one is nil
	validator *jwt.Validator

	// last is the header of the last token that was good, and as a rule that of the next: all of one key have the same.
	last atomic.Pointer[parsedHeader]
}

type parsedHeader struct {
	text string
	header
}

// NewVerifier begins to fetch a provider's keys; Close ends that.
func NewVerifier(o Options) *Verifier {
	checks := []jwt.ParserOption{jwt.WithLeeway(o.Leeway), jwt.WithExpirationRequired()}
	if o.Issuer != "" {
		checks = append(checks, jwt.WithIssuer(o.Issuer))
	}
	if o.Audience != "" {
		checks = append(checks, jwt.WithAudience(o.Audience))
	}
	v := &Verifier{key: o.Key, validator: jwt.NewValidator(checks...)}
	if o.JWKS != "" {
		v.provider = newProvider(o.JWKS, o.Log)
	}
	return v
}

// Close lets those go who wait for a provider's keys. Tokens are still verified by the keys that are there.
func (v *Verifier) Close() {
	if v.provider != nil {
		v.provider.close()
	}
}

// header is what is read of a token before its signature is known to be good.
type header struct {
	Alg  string          `json:"alg"`
	Kid  string          `json:"kid"`
	Crit json.RawMessage `json:"crit"`
}

// Verify says whom a token is of. It blocks only where the provider's keys are to be fetched first, and says so by
// calling waits before; for ctx or a few seconds at most. The error doesn't repeat the token.
func (v *Verifier) Verify(ctx context.Context, token string, waits func()) (Identity, error) {
	if len(token) > MaxToken {
		return Identity{}, fmt.Errorf("the token has %d bytes, at most %d are allowed", len(token), MaxToken)
	}
	signed, head, body, signature, err := split(token)
	if err != nil {
		return Identity{}, err
	}
	var h header
	last := v.last.Load()
	known := last != nil && last.text == head
	if known {
		h = last.header
	} else if h, err = parseHeader(head); err != nil {
		return Identity{}, err
	}
	key, err := v.find(ctx, h, waits)
	if err != nil {
		return Identity{}, err
	}
	if algorithms[h.Alg].method.Verify(signed, signature, key) != nil {
		return Identity{}, errors.New("the token's signature is wrong: it was signed with another key, or changed since")
	}
	if !known {
		v.last.Store(&parsedHeader{strings.Clone(head), h})
	}
	payload, err := unbase64(body)
	if err != nil {
		return Identity{}, errors.New("the token's claims are not in base64url")
	}
	return v.identify(payload)
}

func (v *Verifier) find(ctx context.Context, h header, waits func()) (any, error) {
	if v.provider != nil {
		return v.provider.find(ctx, h, waits)
	}
	return v.key.find(h)
}

// split takes a token in the compact form (RFC 7515 3.1) apart: what was signed, which is the header and the claims as
// they stand, and the signature.
func split(token string) (signed, head, body string, signature []byte, err error) {
	last := strings.LastIndexByte(token, '.')
	if last < 0 || strings.Count(token, ".") != 2 {
		return "", "", "", nil, errors.New("the token is no JWT: it must be three parts with points between them")
	}
	signed = token[:last]
	head, body, _ = strings.Cut(signed, ".")
	if signature, err = unbase64(token[last+1:]); err != nil {
		return "", "", "", nil, errors.New("the token's signature is not in base64url")
	}
	return signed, head, body, signature, nil
}

// unbase64 is strict: no token has two spellings.
func unbase64(text string) ([]byte, error) { return base64.RawURLEncoding.Strict().DecodeString(text) }

func parseHeader(text string) (h header, err error) {
	b, err := unbase64(text)
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	switch {
	case err != nil:
		return h, errors.New("the token's header is no JSON object in base64url with the texts alg and kid")
	case algorithms[h.Alg].method == nil:
		return h, fmt.Errorf("the token's algorithm, %.20q, is none of %s", h.Alg, algorithmNames)
	case h.Crit != nil:
		// RFC 7515 4.1.11: "If any of the listed extension Header Parameters are not understood and supported by the
		// recipient, then the JWS is invalid."
		return h, errors.New("the token's header has crit: no extension is understood")
	}
	return h, nil
}
