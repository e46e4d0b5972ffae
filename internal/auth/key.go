package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Bounds on keys. A secret that is shorter can be guessed from one token; an RSA key that is longer makes each token
// cost more than a handshake.
const (
	minSecret  = 32
	minRSABits = 2048
	maxRSABits = 8192
	maxKeyFile = 64 << 10
)

// kind is what an algorithm needs a key to be. A key of one kind never checks a signature of another: else who knows a
// public key could sign with it as if it were a secret (RFC 8725 3.1).
type kind string

const (
	kindSecret  kind = "a secret"
	kindRSA     kind = "an RSA key"
	kindEC      kind = "a key on the curve P-256"
	kindEd25519 kind = "an Ed25519 key"
)

// algorithms are those that a token may name; "none" is not one.
var algorithms = map[string]struct {
	kind   kind
	method jwt.SigningMethod
}{
	"HS256": {kindSecret, jwt.SigningMethodHS256},
	"HS384": {kindSecret, jwt.SigningMethodHS384},
	"HS512": {kindSecret, jwt.SigningMethodHS512},
	"RS256": {kindRSA, jwt.SigningMethodRS256},
	"PS256": {kindRSA, jwt.SigningMethodPS256},
	"ES256": {kindEC, jwt.SigningMethodES256},
	"EdDSA": {kindEd25519, jwt.SigningMethodEdDSA},
}

const algorithmNames = "HS256, HS384, HS512, RS256, PS256, ES256 and EdDSA"

// kindOf says which algorithms a key is for, or why for none.
func kindOf(key any) (kind, error) {
	switch k := key.(type) {
	case []byte:
		if len(k) < minSecret {
			return "", fmt.Errorf("the secret has %d bytes, at least %d are needed: openssl rand -hex 32 makes one", len(k), minSecret)
		}
		return kindSecret, nil
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return "", fmt.Errorf("the RSA key has %d bits, not between %d and %d", bits, minRSABits, maxRSABits)
		}
		return kindRSA, nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return "", fmt.Errorf("the key is on the curve %s; ES256 needs P-256", k.Curve.Params().Name)
		}
		return kindEC, nil
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return "", fmt.Errorf("the Ed25519 key has %d bytes, not %d", len(k), ed25519.PublicKeySize)
		}
		return kindEd25519, nil
	}
	return "", fmt.Errorf("a key of type %T is for none of %s", key, algorithmNames)
}

// Key is one that was given: it checks every token, whatever key a token names.
type Key struct {
	kind kind
	key  any
}

// ReadKey takes a setting: a secret, a public key as PEM, or after an @ the path of a file with one of them. The error
// doesn't repeat it.
func ReadKey(setting string) (*Key, error) {
	b, err := readSetting(setting)
	if err != nil {
		return nil, err
	}
	var key any
	if isPEM(b) {
		key, err = publicOf(b)
	} else {
		key, err = secretOf(b)
	}
	if err != nil {
		return nil, err
	}
	kind, err := kindOf(key)
	if err != nil {
		return nil, err
	}
	return &Key{kind, key}, nil
}

// Same says whether they are the same key; either may be nil.
func (k *Key) Same(other *Key) bool { return reflect.DeepEqual(k, other) }

// readSetting gives the text itself, or what is in the file that it names.
func readSetting(setting string) ([]byte, error) {
	path, isFile := strings.CutPrefix(setting, "@")
	if !isFile {
		return []byte(setting), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(b) > maxKeyFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxKeyFile)
	}
	return b, err
}

func isPEM(b []byte) bool { return bytes.Contains(b, []byte("-----BEGIN ")) }

// secretOf takes the text of a secret. A line's end behind it, which editors and echo leave in a file, is none of it.
func secretOf(b []byte) ([]byte, error) {
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if looksPublic(b) {
		return nil, errors.New("it is a public key in another form than PEM, and as a secret everybody would know it; write it as PEM, which begins with -----BEGIN PUBLIC KEY-----")
	}
	return b, nil
}

// looksPublic finds what would make a secret that everybody knows.
func looksPublic(b []byte) bool {
	text := strings.TrimSpace(string(b))
	for _, begin := range []string{"ssh-", "ecdsa-sha2-", "{"} { // of OpenSSH, and JWK
		if strings.HasPrefix(text, begin) {
			return true
		}
	}
	der, err := base64.StdEncoding.DecodeString(text) // which skips line breaks
	if err != nil {
		der = b
	}
	if _, err := x509.ParsePKIXPublicKey(der); err == nil {
		return true
	}
	_, err = x509.ParsePKCS1PublicKey(der)
	return err == nil
}

// publicOf takes the first key of a PEM file.
func publicOf(b []byte) (any, error) {
	block, _ := pem.Decode(b)
	switch {
	case block == nil:
		return nil, errors.New("the PEM can't be read: it must be whole, from -----BEGIN to -----END, each in a line of its own")
	case block.Type == "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case block.Type == "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case block.Type == "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	case strings.HasSuffix(block.Type, "PRIVATE KEY"), block.Type == "EC PARAMETERS":
		return nil, errors.New("it is a private key, and a server that checks tokens must not be able to make them: openssl pkey -in FILE -pubout writes the public one")
	}
	return nil, fmt.Errorf("the PEM holds a %.40q, and not a PUBLIC KEY", block.Type)
}

// find gives the key if the algorithm is for its kind.
func (k *Key) find(h header) (any, error) {
	if algorithms[h.Alg].kind != k.kind {
		return nil, fmt.Errorf("the token's algorithm, %s, doesn't fit the server's key, which is %s", h.Alg, k.kind)
	}
	return k.key, nil
}
