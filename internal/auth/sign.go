package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"example.com/hubbub/internal/glob"
)

// Signer makes tokens, for trying: an application makes its own.
type Signer struct {
	method jwt.SigningMethod
	key    any
}

// ReadSigner takes a setting as ReadKey does, but of a private key as PEM.
func ReadSigner(setting string) (*Signer, error) {
	b, err := readSetting(setting)
	if err != nil {
		return nil, err
	}
	if !isPEM(b) {
		secret, err := secretOf(b)
		if err == nil {
			_, err = kindOf(secret)
		}
		return &Signer{jwt.SigningMethodHS256, secret}, err
	}
	key, err := privateOf(b)
	if err != nil {
		return nil, err
	}
	public := key.Public()
	if _, err := kindOf(public); err != nil {
		return nil, err
	}
	s := &Signer{key: key}
	switch public.(type) {
	case *rsa.PublicKey:
		s.method = jwt.SigningMethodRS256
	case *ecdsa.PublicKey:
		s.method = jwt.SigningMethodES256
	case ed25519.PublicKey:
		s.method = jwt.SigningMethodEdDSA
	}
	return s, nil
}

// privateOf takes the first private key of a PEM file.
func privateOf(b []byte) (key crypto.Signer, err error) {
	for {
		block, rest := pem.Decode(b)
		var parsed any
		switch {
		case block == nil:
			return nil, errors.New("the PEM has no private key, and a token is signed with one: of a public key that is the other half")
		case block.Type == "PRIVATE KEY":
			parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case block.Type == "RSA PRIVATE KEY":
			parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case block.Type == "EC PRIVATE KEY":
			parsed, err = x509.ParseECPrivateKey(block.Bytes)
		case block.Type == "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("the private key is encrypted: openssl pkey -in FILE writes it as it is")
		default:
			b = rest
			continue
		}
		if err != nil {
			return nil, err
		}
		key, ok := parsed.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("a key of type %T can't sign", parsed)
		}
		return key, nil
	}
}

// Draft is what a token shall say.
type Draft struct {
	User                       string
	Expires                    time.Time
	Issuer, Audience           string // "" for none
	Data                       json.RawMessage
	Rooms, Join, Publish, Read []string
	Chat, Direct               bool
}

// permitted is the claim "hubbub" of a Draft.
type permitted struct {
	Rooms   []string        `json:"rooms,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
	Join    []string        `json:"join,omitempty"`
	Publish []string        `json:"publish,omitempty"`
	Read    []string        `json:"read,omitempty"`
	Chat    bool            `json:"chat,omitempty"`
	Direct  bool            `json:"direct,omitempty"`
}

// Sign makes the token. The error says what no server would take.
func (s *Signer) Sign(d Draft) (string, error) {
	for _, p := range slices.Concat(d.Join, d.Publish, d.Read) {
		if unknown := glob.Unknown(p); unknown != "" {
			return "", fmt.Errorf("%s: there is no %s; did you mean %s, the client's own name?", p, unknown, glob.User)
		}
	}
	c := struct {
		jwt.RegisteredClaims
		Hubbub permitted `json:"hubbub"`
	}{
		jwt.RegisteredClaims{Subject: d.User, Issuer: d.Issuer, IssuedAt: jwt.NewNumericDate(time.Now()), ExpiresAt: jwt.NewNumericDate(d.Expires)},
		permitted{d.Rooms, d.Data, d.Join, d.Publish, d.Read, d.Chat, d.Direct},
	}
	if d.Audience != "" {
		c.Audience = jwt.ClaimStrings{d.Audience}
	}
	token, err := jwt.NewWithClaims(s.method, c).SignedString(s.key)
	if err != nil {
		return "", err
	}
	if len(token) > MaxToken {
		return "", fmt.Errorf("the token has %d bytes, at most %d are allowed", len(token), MaxToken)
	}
	_, _, body, _, err := split(token)
	if err != nil {
		return "", err
	}
	payload, err := unbase64(body)
	if err != nil {
		return "", err
	}
	read, _ := parseClaims(payload)
	_, err = read.identity()
	return token, err
}
