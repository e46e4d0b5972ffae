package auth

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// maxKeys bounds what is kept of a provider's keys.
const maxKeys = 100

// keySet are the keys of a provider's document, a JWK Set (RFC 7517 5). Immutable.
type keySet []providedKey

type providedKey struct {
	id   string // "" where it has none
	alg  string // the one algorithm that it is for; "" for all of its kind
	kind kind
	key  any
}

// parseSet reads a document. Keys that no token here can be signed with are left out: of other kinds, for encryption,
// broken ones, and secrets, which a document that is there for all to read can't have.
func parseSet(b []byte) (keySet, error) {
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("it is no JWK Set: %w", err)
	}
	if len(doc.Keys) > maxKeys {
		return nil, fmt.Errorf("it has %d keys, at most %d are taken", len(doc.Keys), maxKeys)
	}
	var set keySet
	why := errors.New("it has no keys")
	for i, raw := range doc.Keys {
		k, err := parseProvided(raw)
		if err != nil {
			why = fmt.Errorf("none of its keys can be used; of key %d: %w", i, err)
			continue
		}
		set = append(set, k)
	}
	if len(set) == 0 {
		return nil, why
	}
	return set, nil
}

func parseProvided(raw json.RawMessage) (k providedKey, err error) {
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(raw, &jwk); err != nil {
		return k, err
	}
	if jwk.Use != "" && jwk.Use != "sig" {
		return k, fmt.Errorf("it is not for signatures: its use is %.20q", jwk.Use)
	}
	if !jwk.IsPublic() {
		jwk = jwk.Public() // which is none of a secret
	}
	kind, err := kindOf(jwk.Key)
	if err != nil {
		return k, err
	}
	if alg := jwk.Algorithm; alg != "" && algorithms[alg].kind != kind {
		return k, fmt.Errorf("its algorithm is %.20q, and it is %s", alg, kind)
	}
	return providedKey{jwk.KeyID, jwk.Algorithm, kind, jwk.Key}, nil
}

// errNoSuchKey says that a newer document may have the key.
var errNoSuchKey = errors.New("the provider has no key for the token: none with its kid and for its algorithm")

// find gives the key that the token names. A token without a kid is for the only key of its algorithm.
func (s keySet) find(h header) (any, error) {
	var found any
	for _, k := range s {
		if k.kind != algorithms[h.Alg].kind || k.alg != "" && k.alg != h.Alg || h.Kid != "" && k.id != h.Kid {
			continue
		}
		if h.Kid != "" {
			return k.key, nil
		}
		if found != nil {
			return nil, errors.New("the token names no key (kid), and the provider has several for its algorithm")
		}
		found = k.key
	}
	if found == nil {
		return nil, errNoSuchKey
	}
	return found, nil
}
