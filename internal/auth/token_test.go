package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const secret = "0123456789abcdef0123456789abcdef"

// Keys of each kind, made once.
var (
	rsaKey = sync.OnceValue(func() *rsa.PrivateKey { k, _ := rsa.GenerateKey(rand.Reader, 2048); return k })
	ecKey  = sync.OnceValue(func() *ecdsa.PrivateKey { k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); return k })
	edKey  = sync.OnceValue(func() ed25519.PrivateKey { _, k, _ := ed25519.GenerateKey(rand.Reader); return k })
)

// publicPEM is the public half of a key, as a setting.
func publicPEM(t testing.TB, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// good are claims that nothing is wrong with, with some changed; nil takes one out.
func good(change jwt.MapClaims) jwt.MapClaims {
	c := jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func sign(t testing.TB, method jwt.SigningMethod, key any, c jwt.MapClaims) string {
	t.Helper()
	text, err := jwt.NewWithClaims(method, c).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// bySecret is a token that is signed with the secret.
func bySecret(t testing.TB, change jwt.MapClaims) string {
	t.Helper()
	return sign(t, jwt.SigningMethodHS256, []byte(secret), good(change))
}

func with(t testing.TB, setting string, o Options) *Verifier {
	t.Helper()
	key, err := ReadKey(setting)
	if err != nil {
		t.Fatal(err)
	}
	o.Key = key
	return NewVerifier(o)
}

func verify(t testing.TB, v *Verifier, token string) (Identity, error) {
	t.Helper()
	return v.Verify(t.Context(), token, func() {})
}

// refused wants an error with these words, which doesn't repeat the token.
func refused(t testing.TB, v *Verifier, token string, words ...string) error {
	t.Helper()
	who, err := verify(t, v, token)
	if err == nil {
		t.Fatalf("it is taken, as %+v", who)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q lacks %q", err, w)
		}
	}
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 8 && strings.Contains(err.Error(), part) {
			t.Errorf("%q repeats the token", err)
		}
	}
	return err
}

func TestEachAlgorithmFitsItsKeyAlone(t *testing.T) {
	settings := map[kind]string{kindSecret: secret, kindRSA: publicPEM(t, rsaKey()), kindEC: publicPEM(t, ecKey()), kindEd25519: publicPEM(t, edKey())}
	signers := map[kind]any{kindSecret: []byte(secret), kindRSA: rsaKey(), kindEC: ecKey(), kindEd25519: edKey()}
	for alg, a := range algorithms {
		token := sign(t, a.method, signers[a.kind], good(nil))
		for kind, setting := range settings {
			v := with(t, setting, Options{})
			if kind != a.kind {
				refused(t, v, token, alg, "doesn't fit", string(kind))
				continue
			}
			if who, err := verify(t, v, token); err != nil || who.User != "ann" {
				t.Errorf("%s: %+v %v", alg, who, err)
			}
		}
	}
}

// What is public must never do as a secret: not the key's PEM, not its bytes.
func TestAPublicKeyIsNoSecret(t *testing.T) {
	for _, key := range []crypto.Signer{rsaKey(), ecKey(), edKey()} {
		setting := publicPEM(t, key)
		der, _ := x509.MarshalPKIXPublicKey(key.Public())
		v := with(t, setting, Options{})
		for _, asSecret := range [][]byte{[]byte(setting), []byte(strings.TrimSpace(setting)), der} {
			refused(t, v, sign(t, jwt.SigningMethodHS256, asSecret, good(nil)), "HS256", "doesn't fit")
		}
		bare := base64.StdEncoding.EncodeToString(der)
		for _, form := range []string{string(der), bare, bare + "\n", bare[:40] + "\n" + bare[40:]} {
			if len(form) < minSecret {
				continue
			}
			if _, err := ReadKey(form); err == nil || !strings.Contains(err.Error(), "public key") {
				t.Errorf("%T in another form is taken for a secret: %v", key, err)
			}
		}
	}
}

// forge is a token of that header and those claims, as they stand.
func forge(header, claims, signature string) string {
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(header)) + "." + e([]byte(claims)) + "." + e([]byte(signature))
}

func TestAHeaderThatLies(t *testing.T) {
	v := with(t, secret, Options{})
	body := `{"sub":"ann","exp":9999999999}`
	for _, alg := range []string{"none", "None", "NONE", "", "HS1", "hs256", "RS384", "RS512", "PS512", "ES384", "ES512", "HS256 "} {
		refused(t, v, forge(`{"alg":"`+alg+`"}`, body, ""), "algorithm", "HS256")
	}
	for _, head := range []string{"", "{", "[]", `"x"`, `{"alg":7}`, `{"alg":["HS256"]}`, `{"alg":"HS256","kid":{"a":1}}`} {
		refused(t, v, forge(head, body, ""), "header")
	}
	refused(t, v, sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good(nil)), "none")
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, good(nil))
	token.Header["crit"] = []string{"b64"}
	text, _ := token.SignedString([]byte(secret))
	refused(t, v, text, "crit")
	delete(token.Header, "crit")
	for _, kid := range []string{"../../../dev/null", "/dev/null", "file:///etc/passwd", "' OR 1=1 --", "http://127.0.0.1:1/"} {
		token.Header["kid"] = kid // which means nothing where there is one key
		text, _ := token.SignedString([]byte(secret))
		if who, err := verify(t, v, text); err != nil || who.User != "ann" {
			t.Errorf("kid %s: %v", kid, err)
		}
		text, _ = token.SignedString([]byte{}) // what is in /dev/null
		refused(t, v, text, "signature")
	}
}

func TestATokenThatIsNone(t *testing.T) {
	v := with(t, secret, Options{})
	whole := bySecret(t, nil)
	head, rest, _ := strings.Cut(whole, ".")
	body, signature, _ := strings.Cut(rest, ".")
	for _, token := range []string{
		"", ".", "..", "a.b", "a.b.c.d", whole + ".", "." + whole, whole + "=", whole + " ", " " + whole, whole[1:],
		head + "." + body + ".", head + ".." + signature, "." + body + "." + signature, head + "." + body + "." + signature[:20],
		strings.Replace(whole, ".", ".=", 1), strings.ToUpper(whole), "\x00", "é.é.é", strings.Repeat(".", MaxToken),
	} {
		refused(t, v, token)
	}
	// The last letter of 32 bytes in base64 has two bits that mean nothing: no token has two spellings.
	last := signature[len(signature)-1]
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	twin := letters[strings.IndexByte(letters, last)^1]
	refused(t, v, whole[:len(whole)-1]+string(twin), "base64url")
	refused(t, v, sign(t, jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), good(nil)), "signature")
}

func TestATokenAtItsLongest(t *testing.T) {
	v := with(t, secret, Options{})
	padded := func(n int) string { return bySecret(t, jwt.MapClaims{"pad": strings.Repeat("x", n)}) }
	n := 0
	for len(padded(n)) < MaxToken-4 {
		n += max(1, (MaxToken-4-len(padded(n)))/2)
	}
	if _, err := verify(t, v, padded(n)); err != nil {
		t.Errorf("%d bytes: %v", len(padded(n)), err)
	}
	refused(t, v, padded(n+8), "at most")
	refused(t, v, padded(64<<10), "at most")
}

// Nothing of a token is read before its signature is known to be good.
func TestTheSignatureComesFirst(t *testing.T) {
	v := with(t, secret, Options{Issuer: "https://id.example", Audience: "hubbub"})
	for _, claims := range []string{`{"sub":"ann","exp":1}`, "{", strings.Repeat("[", 5000), `{"sub":7}`} {
		refused(t, v, forge(`{"alg":"HS256"}`, claims, strings.Repeat("x", 32)), "signature")
	}
	e := base64.RawURLEncoding.EncodeToString
	for _, claims := range []string{"{", "[]", "null", "7", `"x"`, strings.Repeat("[", 20000), "\xff"} {
		signed := e([]byte(`{"alg":"HS256"}`)) + "." + e([]byte(claims))
		signature, _ := jwt.SigningMethodHS256.Sign(signed, []byte(secret))
		refused(t, v, signed+"."+e(signature), "no JSON object")
	}
}

func TestTimesAtTheirEdges(t *testing.T) {
	const leeway = 10 * time.Second
	v := with(t, secret, Options{Leeway: leeway})
	now := time.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	if who, err := verify(t, v, bySecret(t, jwt.MapClaims{"exp": at(-leeway / 2)})); err != nil || who.Expires.Unix() != at(-leeway/2) {
		t.Errorf("within the leeway: %v %v", who.Expires, err)
	}
	for _, exp := range []any{at(-leeway), at(-time.Hour), 0, 1, 1.5} {
		if err := refused(t, v, bySecret(t, jwt.MapClaims{"exp": exp})); !errors.Is(err, ErrExpired) {
			t.Errorf("exp %v: %v", exp, err)
		}
	}
	for _, exp := range []any{nil, json.RawMessage("null")} {
		refused(t, v, bySecret(t, jwt.MapClaims{"exp": exp}), "lacks the claim exp")
	}
	for _, exp := range []any{"9999999999", "soon", true, -1, json.RawMessage("1e999"), []int{1}} {
		if err := refused(t, v, bySecret(t, jwt.MapClaims{"exp": exp}), "exp", "type"); errors.Is(err, ErrExpired) {
			t.Errorf("exp %v is called expired", exp)
		}
	}
	for _, exp := range []any{1e300, 253402300800, now.Add(time.Hour).UnixMilli()} {
		if err := refused(t, v, bySecret(t, jwt.MapClaims{"exp": exp}), "exp", "in seconds, not milliseconds"); errors.Is(err, ErrExpired) {
			t.Errorf("exp %v is called expired", exp)
		}
	}
	if who, err := verify(t, v, bySecret(t, jwt.MapClaims{"exp": 253402300799})); err != nil || who.Expires.Year() != 9999 {
		t.Errorf("the end of time: %v %v", who.Expires, err)
	}
	if _, err := verify(t, v, bySecret(t, jwt.MapClaims{"nbf": at(leeway / 2)})); err != nil {
		t.Errorf("nbf within the leeway: %v", err)
	}
	refused(t, v, bySecret(t, jwt.MapClaims{"nbf": at(leeway + time.Minute)}), "nbf")
	refused(t, v, bySecret(t, jwt.MapClaims{"nbf": "now"}), "nbf", "type")
	// A newer token helps, whatever else is wrong.
	if err := refused(t, v, bySecret(t, jwt.MapClaims{"exp": 1, "nbf": at(time.Hour)})); !errors.Is(err, ErrExpired) {
		t.Error(err)
	}
	strict := with(t, secret, Options{})
	refused(t, strict, bySecret(t, jwt.MapClaims{"exp": at(-time.Second)}), "expired")
}

func TestIssuerAndAudience(t *testing.T) {
	v := with(t, secret, Options{Issuer: "https://id.example", Audience: "hubbub"})
	in := jwt.MapClaims{"iss": "https://id.example", "aud": "hubbub"}
	change := func(name string, to any) jwt.MapClaims {
		c := maps.Clone(in)
		c[name] = to
		return c
	}
	for _, aud := range []any{"hubbub", []string{"hubbub"}, []string{"other", "hubbub"}} {
		if _, err := verify(t, v, bySecret(t, change("aud", aud))); err != nil {
			t.Errorf("aud %v: %v", aud, err)
		}
	}
	for _, aud := range []any{nil, "", "Hubbub", "hubbub2", []string{}, []string{"other"}, 7, map[string]any{"hubbub": true}, []any{"hubbub", 7}} {
		refused(t, v, bySecret(t, change("aud", aud)), "aud")
	}
	for _, iss := range []any{nil, "", "https://id.example/", "HTTPS://id.example", 7, []string{"https://id.example"}} {
		refused(t, v, bySecret(t, change("iss", iss)), "iss")
	}
	// Without the settings nothing is wanted.
	if _, err := verify(t, with(t, secret, Options{}), bySecret(t, jwt.MapClaims{"iss": "x", "aud": "y"})); err != nil {
		t.Error(err)
	}
}

func TestTheUsersName(t *testing.T) {
	v := with(t, secret, Options{})
	for _, name := range []string{"a", "ann*", "Ann Ö 😀", strings.Repeat("x", 255)} {
		if who, err := verify(t, v, bySecret(t, jwt.MapClaims{"sub": name})); err != nil || who.User != name {
			t.Errorf("%q: %q %v", name, who.User, err)
		}
	}
	for _, name := range []any{
		nil, "", strings.Repeat("x", 256), "a\nb", "a\x00", "\x7f", "a\u0085b", 7, true, []string{"ann"}, map[string]any{"name": "ann"},
		json.RawMessage("null"), json.RawMessage(`"\ud800"`), json.RawMessage(`"\ufffd"`),
	} {
		refused(t, v, bySecret(t, jwt.MapClaims{"sub": name}))
	}
	// Another claim whose name only looks like it says nothing.
	if who, err := verify(t, v, bySecret(t, jwt.MapClaims{"SUB": "root", "Sub": "root", "user": "root"})); err != nil || who.User != "ann" {
		t.Errorf("%+v %v", who, err)
	}
	refused(t, v, bySecret(t, jwt.MapClaims{"sub": nil, "Sub": "root"}), "sub")
}

func TestWhatATokenGrants(t *testing.T) {
	v := with(t, secret, Options{})
	who, err := verify(t, v, bySecret(t, jwt.MapClaims{"hubbub": json.RawMessage(
		`{"rooms":["lobby","chat/ann"],"data":{"color":"red"},"join":["chat.*"],"publish":["chat.a"],"read":["news.*","log"],"chat":true,"direct":false,"later":[1]}`)}))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(who.Rooms, []string{"lobby", "chat/ann"}) || string(who.Data) != `{"color":"red"}` {
		t.Errorf("%+v", who)
	}
	g := who.Grants
	if len(g.Join) != 1 || !g.Join[0].Match("chat.x", "ann") || len(g.Publish) != 1 || len(g.Read) != 2 || !g.Chat || g.Direct {
		t.Errorf("%+v", g)
	}
	for claim, grants := range map[string]Grants{`{"chat":true}`: {Chat: true}, `{"direct":true}`: {Direct: true}, `{"chat":false,"direct":false}`: {}} {
		who, err := verify(t, v, bySecret(t, jwt.MapClaims{"hubbub": json.RawMessage(claim)}))
		if g := who.Grants; err != nil || (g != nil) != (grants.Chat || grants.Direct) || g != nil && (g.Chat != grants.Chat || g.Direct != grants.Direct) {
			t.Errorf("%s: %+v %v", claim, who, err)
		}
	}
	for _, claim := range []any{nil, json.RawMessage("null"), json.RawMessage("{}"), json.RawMessage(`{"data":null,"join":null,"rooms":[]}`), json.RawMessage(`{"Join":["*"],"CHAT":true}`)} {
		who, err := verify(t, v, bySecret(t, jwt.MapClaims{"hubbub": claim}))
		if err != nil || who.Grants != nil || who.Data != nil || len(who.Rooms) > 0 {
			t.Errorf("%s: %+v %v", claim, who, err)
		}
	}
	for _, claim := range []string{
		`"x"`, `[]`, `7`, `{"join":"chat.*"}`, `{"join":[7]}`, `{"rooms":{}}`, `{"rooms":[""]}`, `{"rooms":["a\u0000"]}`, `{"chat":"yes"}`, `{"direct":1}`,
	} {
		refused(t, v, bySecret(t, jwt.MapClaims{"hubbub": json.RawMessage(claim)}))
	}
}

func TestKeysOfSettings(t *testing.T) {
	dir, files := t.TempDir(), 0
	file := func(text string) string {
		files++
		path := filepath.Join(dir, strconv.Itoa(files))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "@" + path
	}
	for _, setting := range []string{secret, file(secret), file(secret + "\n"), file(secret + "\r\n")} {
		if _, err := verify(t, with(t, setting, Options{}), bySecret(t, nil)); err != nil {
			t.Errorf("%q: %v", setting, err)
		}
	}
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)}))
	for _, setting := range []string{pkcs1, file(publicPEM(t, rsaKey())), "\n# a comment\n" + publicPEM(t, rsaKey())} {
		if _, err := verify(t, with(t, setting, Options{}), sign(t, jwt.SigningMethodPS256, rsaKey(), good(nil))); err != nil {
			t.Error(err)
		}
	}
	private, _ := x509.MarshalPKCS8PrivateKey(ecKey())
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	short, _ := rsa.GenerateKey(rand.Reader, 1024)
	for setting, words := range map[string]string{
		"":                                    "at least 32",
		secret[1:]:                            "at least 32",
		file(secret[1:]):                      "at least 32",
		"@" + filepath.Join(dir, "gone"):      "gone",
		"@" + dir:                             "directory",
		"@":                                   "no such file",
		file(strings.Repeat("x", 65<<10)):     "larger",
		"-----BEGIN PUBLIC KEY-----\nMIIB\n":  "PEM",
		"-----BEGIN PUBLIC KEY-----MIIB-----": "PEM",
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl": "PEM",
		`{"kty":"RSA","n":"AQAB","e":"AQAB"}xxxxxxxxxxx`:                                   "PEM",
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})):        "private key",
		string(pem.EncodeToMemory(&pem.Block{Type: "MESSAGE", Bytes: private})):            "MESSAGE",
		string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: private})):         "",
		publicPEM(t, p384):  "P-256",
		publicPEM(t, short): "1024 bits",
	} {
		_, err := ReadKey(setting)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%.40q: %v, want %q", setting, err, words)
		}
		if err != nil && len(setting) > 16 && !strings.HasPrefix(setting, "@") && strings.Contains(err.Error(), setting) {
			t.Errorf("%q repeats the key", err)
		}
	}
}

func FuzzToken(f *testing.F) {
	mine := map[string]bool{}
	var all []*Verifier
	for k, m := range map[any]jwt.SigningMethod{rsaKey(): jwt.SigningMethodRS256, ecKey(): jwt.SigningMethodES256} {
		token := sign(f, m, k, good(nil))
		mine[token] = true
		f.Add(token)
		all = append(all, with(f, publicPEM(f, k.(crypto.Signer)), Options{}))
	}
	token := bySecret(f, jwt.MapClaims{"exp": 9999999999, "hubbub": map[string]any{"join": []string{"*"}}}) // the same in each process that fuzzes
	mine[token] = true
	f.Add(token)
	f.Add(forge(`{"alg":"none"}`, `{"sub":"ann","exp":9999999999}`, ""))
	all = append(all, with(f, secret, Options{Audience: ""}))
	f.Fuzz(func(t *testing.T, token string) {
		for _, v := range all {
			if who, err := verify(t, v, token); err == nil && !mine[token] {
				t.Errorf("%q is taken, as %+v", token, who)
			}
		}
	})
}

// What is in a token is the issuer's, whose users may have put much of it there.
func FuzzClaims(f *testing.F) {
	f.Add(`{"sub":"ann","exp":9999999999,"aud":["a"],"hubbub":{"rooms":["a"],"data":[1],"join":["*"],"chat":true}}`)
	f.Add(`{"sub":"ann","exp":1e9,"nbf":0}`)
	f.Add(" { \"s\\u0075b\" : \"a\" , \"a\":{\"b\":[1,\"}\\\"\"]},\"sub\":\"b\"}\n")
	f.Add(`{}`)
	v := with(f, secret, Options{})
	f.Fuzz(func(t *testing.T, payload string) {
		c, ok := parseClaims([]byte(payload))
		var want map[string]json.RawMessage
		if is := json.Unmarshal([]byte(payload), &want) == nil && want != nil; is != ok {
			t.Fatalf("%q is an object: %v, want %v", payload, ok, is)
		}
		for _, of := range c {
			if got := c.get(of.name); string(got) != string(want[of.name]) {
				t.Errorf("%q in %q: %q, want %q", of.name, payload, got, want[of.name])
			}
		}
		for name := range want {
			if ok && c.get(name) == nil {
				t.Errorf("%q is missing of %q", name, payload)
			}
		}
		who, err := v.identify([]byte(payload))
		if err == nil && (who.Check() != nil || who.User == "" || who.Expires.IsZero()) {
			t.Errorf("%q makes %+v", payload, who)
		}
	})
}
