package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Rights are what a key of the HTTP API may do: a set.
type Rights uint8

// The rights there are.
const (
	RightPublish Rights = 1 << iota
	RightRead
	RightManage
	RightTail
	AllRights = RightPublish | RightRead | RightManage | RightTail
)

var rightNames = []string{"publish", "read", "manage", "tail"} // by bit

// ParseRights is the set of rights of these names. The error names the one that is none.
func ParseRights(names []string) (set Rights, err error) {
	if len(names) == 0 {
		return 0, fmt.Errorf("none; use some of %s", strings.Join(rightNames, ", "))
	}
	for _, name := range names {
		i := slices.Index(rightNames, name)
		if i < 0 {
			return 0, fmt.Errorf("%q: unknown; use %s", name, strings.Join(rightNames, ", "))
		}
		set |= 1 << i
	}
	return set, nil
}

func (r Rights) String() string {
	var names []string
	for i, name := range rightNames {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// How long a key may be, in bytes. A longer one isn't even hashed.
const (
	minAPIKey = 16
	maxAPIKey = 512
)

// APIKey is one that the HTTP API takes.
type APIKey struct {
	Name   string
	Digest [sha256.Size]byte
	Rights Rights
}

// APIKeys are those that the HTTP API takes. Immutable, so of use to any goroutine.
type APIKeys []APIKey

// Find is the key that a client has sent, or nil. It compares the digest with every key's, so the time that it takes
// says nothing of any of them. What is no key is none's, also where its digest was set: "sha256sum" of nothing has one.
func (k APIKeys) Find(secret string) *APIKey {
	if len(secret) < minAPIKey || len(secret) > maxAPIKey {
		return nil
	}
	digest := sha256.Sum256([]byte(secret))
	found := -1
	for i := range k {
		same := subtle.ConstantTimeCompare(digest[:], k[i].Digest[:])
		found = subtle.ConstantTimeSelect(same, i, found)
	}
	if found < 0 {
		return nil
	}
	return &k[found]
}

// DigestOf is what is kept of a key. The error says why it can't be one, and nothing of it.
func DigestOf(secret string) (digest [sha256.Size]byte, err error) {
	if len(secret) < minAPIKey || len(secret) > maxAPIKey {
		return digest, fmt.Errorf("it has %d bytes; a key has %d to %d (hubbub key makes one)", len(secret), minAPIKey, maxAPIKey)
	}
	for i := range len(secret) {
		if secret[i] <= ' ' || secret[i] > '~' {
			return digest, errors.New("it has more than visible ASCII characters, which alone a header may carry: the key itself is wanted, such as hub_…, without the header before it (hubbub key makes one)")
		}
	}
	return sha256.Sum256([]byte(secret)), nil
}

// ParseDigest reads a digest in hexadecimal digits.
func ParseDigest(text string) (digest [sha256.Size]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(digest) {
		return digest, fmt.Errorf("it must be the %d hexadecimal digits of a key's SHA-256 (hubbub key prints them)", 2*len(digest))
	}
	return [sha256.Size]byte(b), nil
}

// NewSecret makes a key of 130 random bits.
func NewSecret() string { return "hub_" + rand.Text() }
