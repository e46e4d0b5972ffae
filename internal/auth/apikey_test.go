package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

func TestAPIKeysAreFoundByTheirDigests(t *testing.T) {
	var keys APIKeys
	for _, secret := range []string{"the first of the keys", "the second of the keys"} {
		keys = append(keys, APIKey{Name: secret, Digest: sha256.Sum256([]byte(secret))})
	}
	for _, secret := range []string{"the first of the keys", "the second of the keys"} {
		if got := keys.Find(secret); got == nil || got.Name != secret {
			t.Errorf("%s: %+v", secret, got)
		}
	}
	for _, secret := range []string{"", "the first of the key", "the first of the keys ", strings.Repeat("x", maxAPIKey+1)} {
		if got := keys.Find(secret); got != nil {
			t.Errorf("%q: %+v", secret, got)
		}
	}
	for _, secret := range []string{"", "fifteen letters"} { // by its digest nobody can tell how long a key is
		keys := APIKeys{{Name: "short", Digest: sha256.Sum256([]byte(secret))}}
		if got := keys.Find(secret); got != nil {
			t.Errorf("%q, of which there is the digest, is a key: %+v", secret, got)
		}
	}
	for n, found := range map[int]bool{minAPIKey - 1: false, minAPIKey: true, maxAPIKey: true, maxAPIKey + 1: false} {
		secret := strings.Repeat("k", n)
		keys := APIKeys{{Name: "edge", Digest: sha256.Sum256([]byte(secret))}}
		if got := keys.Find(secret); (got != nil) != found {
			t.Errorf("a key of %d bytes is found: %t", n, got != nil)
		}
	}
	if APIKeys(nil).Find("") != nil {
		t.Error("no keys, and one is found")
	}
}

func TestRightsByName(t *testing.T) {
	for _, name := range rightNames {
		if r, err := ParseRights([]string{name}); err != nil || r.String() != name {
			t.Error(name, r, err)
		}
	}
	if r, err := ParseRights(strings.Split(AllRights.String(), ", ")); err != nil || r != AllRights {
		t.Error(r, err)
	}
	for _, names := range [][]string{nil, {""}, {"publish", "all"}} {
		if _, err := ParseRights(names); err == nil || !strings.Contains(err.Error(), "publish, read, manage, tail") {
			t.Error(names, err)
		}
	}
}

func TestDigests(t *testing.T) {
	secret := NewSecret()
	digest, err := DigestOf(secret)
	if err != nil || NewSecret() == secret {
		t.Fatal(err)
	}
	if again, err := ParseDigest(strings.ToUpper(hex.EncodeToString(digest[:]))); err != nil || again != digest {
		t.Error(err)
	}
	for _, text := range []string{"", "ab", strings.Repeat("xy", 32), strings.Repeat("ab", 33)} {
		if _, err := ParseDigest(text); err == nil {
			t.Errorf("%q", text)
		}
	}
}
