package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// jwks is a document of public keys.
func jwks(t testing.TB, keys ...jose.JSONWebKey) string {
	t.Helper()
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func newEC() *ecdsa.PrivateKey {
	k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return k
}

func ecJWK(kid string, k *ecdsa.PrivateKey) jose.JSONWebKey {
	return jose.JSONWebKey{Key: &k.PublicKey, KeyID: kid, Algorithm: "ES256", Use: "sig"}
}

// byKid is a token that names its key.
func byKid(t testing.TB, method jwt.SigningMethod, key any, kid any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, good(nil))
	token.Header["kid"] = kid
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// idP is a provider of keys that lies in memory: it serves what its fields say. So all of it can be told in virtual
// time.
type idP struct {
	mu     sync.Mutex
	body   string
	status int
	down   bool
	stall  chan struct{} // the answer comes when it is closed
	asked  int
}

func (i *idP) set(change func(*idP)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

func (i *idP) times() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

func (i *idP) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.asked++
	body, status, down, stall := i.body, i.status, i.down, i.stall
	i.mu.Unlock()
	if stall != nil {
		select {
		case <-stall:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	if down {
		return nil, errors.New("it is down")
	}
	w := httptest.NewRecorder()
	w.WriteHeader(max(200, status))
	w.WriteString(body)
	return w.Result(), nil
}

// from is a Verifier by that provider, in a bubble of synctest.
func from(t *testing.T, i *idP) *Verifier {
	p := &provider{url: "https://id.example/keys", client: &http.Client{Transport: i, Timeout: fetchTimeout}, log: slog.New(slog.DiscardHandler)}
	p.stop, p.cancel = context.WithCancel(t.Context())
	p.fetch()
	v := NewVerifier(Options{})
	v.provider = p
	return v
}

func taken(t *testing.T, v *Verifier, token string) {
	t.Helper()
	if _, err := verify(t, v, token); err != nil {
		t.Errorf("it is refused: %v", err)
	}
}

func TestAKeyThatIsNewIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newEC(), newEC()
		i := &idP{body: jwks(t, ecJWK("old", old))}
		v := from(t, i)
		defer v.Close()
		taken(t, v, byKid(t, jwt.SigningMethodES256, old, "old")) // it waits for the first fetch
		i.set(func(i *idP) { i.body = jwks(t, ecJWK("old", old), ecJWK("next", next)) })
		refused(t, v, byKid(t, jwt.SigningMethodES256, next, "next"), "no key") // too soon
		if n := i.times(); n != 1 {
			t.Fatalf("%d fetches", n)
		}
		time.Sleep(fetchPace)
		taken(t, v, byKid(t, jwt.SigningMethodES256, next, "next"))
		taken(t, v, byKid(t, jwt.SigningMethodES256, old, "old"))
		if n := i.times(); n != 2 {
			t.Errorf("%d fetches", n)
		}
		i.set(func(i *idP) { i.body = jwks(t, ecJWK("next", next)) })
		time.Sleep(staleAfter + 1)
		taken(t, v, byKid(t, jwt.SigningMethodES256, old, "old")) // nobody waits for what is only old
		synctest.Wait()
		refused(t, v, byKid(t, jwt.SigningMethodES256, old, "old"), "no key") // it was withdrawn
	})
}

func TestUnknownKeysDontFloodTheProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newEC()
		i := &idP{body: jwks(t, ecJWK("k", k))}
		v := from(t, i)
		defer v.Close()
		for n := range 1000 {
			refused(t, v, byKid(t, jwt.SigningMethodES256, k, fmt.Sprint("../../", n)), "no key")
			time.Sleep(100 * time.Millisecond)
		}
		if n := i.times(); n > 11 {
			t.Errorf("%d fetches in 100 s", n)
		}
	})
}

// While the provider is slow, only those wait whose key isn't known.
func TestASlowProviderHoldsNobodyElseUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, next := newEC(), newEC()
		i := &idP{body: jwks(t, ecJWK("k", k))}
		v := from(t, i)
		taken(t, v, byKid(t, jwt.SigningMethodES256, k, "k"))
		time.Sleep(fetchPace)
		stall := make(chan struct{})
		i.set(func(i *idP) { i.stall, i.body = stall, jwks(t, ecJWK("k", k), ecJWK("next", next)) })
		var waits, in atomic.Int32
		for range 100 {
			go func() {
				if _, err := v.Verify(t.Context(), byKid(t, jwt.SigningMethodES256, next, "next"), func() { waits.Add(1) }); err == nil {
					in.Add(1)
				}
			}()
		}
		synctest.Wait()
		began := time.Now()
		taken(t, v, byKid(t, jwt.SigningMethodES256, k, "k"))
		if waits.Load() != 100 || in.Load() != 0 || time.Since(began) != 0 {
			t.Errorf("%d wait, %d are in, after %s", waits.Load(), in.Load(), time.Since(began))
		}
		close(stall)
		synctest.Wait()
		if n := i.times(); in.Load() != 100 || n != 2 {
			t.Errorf("%d are in, after %d fetches", in.Load(), n)
		}
		// Who hangs up waits no more, and at the end nobody does.
		time.Sleep(fetchPace)
		i.set(func(i *idP) { i.stall = make(chan struct{}) })
		ctx, hangUp := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		for _, ctx := range []context.Context{ctx, t.Context()} {
			go func() {
				_, err := v.Verify(ctx, byKid(t, jwt.SigningMethodES256, k, "other"), func() {})
				ended <- err
			}()
		}
		synctest.Wait()
		hangUp()
		if err := <-ended; !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		v.Close()
		if err := <-ended; !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		taken(t, v, byKid(t, jwt.SigningMethodES256, k, "k")) // the keys are still there
	})
}

func TestKeysOutliveTheProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newEC()
		i := &idP{down: true}
		v := from(t, i)
		defer v.Close()
		if err := refused(t, v, byKid(t, jwt.SigningMethodES256, k, "k")); !errors.Is(err, ErrUnavailable) {
			t.Errorf("down from the start: %v", err)
		}
		time.Sleep(fetchPace)
		i.set(func(i *idP) { i.down, i.body = false, jwks(t, ecJWK("k", k)) })
		taken(t, v, byKid(t, jwt.SigningMethodES256, k, "k"))
		for _, outage := range []func(*idP){
			func(i *idP) { i.down = true },
			func(i *idP) { i.down, i.status = false, 503 },
			func(i *idP) { i.status = 302 },
			func(i *idP) { i.status, i.body = 200, "" },
			func(i *idP) { i.body = `{"keys":[]}` },
			func(i *idP) { i.body = strings.Repeat(" ", 10<<20) },
			func(i *idP) { i.body, i.stall = "", make(chan struct{}) },
		} {
			i.set(outage)
			before := i.times()
			time.Sleep(24 * time.Hour)
			taken(t, v, byKid(t, jwt.SigningMethodES256, k, "k"))
			synctest.Wait()
			if n := i.times(); n != before+1 {
				t.Errorf("%d fetches", n-before)
			}
			time.Sleep(fetchPace)
			// Whether there is such a key now, nobody knows.
			if err := refused(t, v, byKid(t, jwt.SigningMethodES256, k, "other")); !errors.Is(err, ErrUnavailable) {
				t.Error(err)
			}
		}
	})
}

// The same over real sockets: what is refused of an answer.
func TestWhatAProviderMayAnswer(t *testing.T) {
	k := newEC()
	keys := jwks(t, ecJWK("k", k))
	mux := http.NewServeMux()
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(keys)) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/keys", http.StatusFound) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(strings.Repeat(" ", 10<<20) + keys))
	})
	mux.HandleFunc("/full", func(w http.ResponseWriter, _ *http.Request) { // to the last byte that it may have
		w.Write([]byte(strings.Repeat(" ", maxDocument-len(keys)) + keys))
	})
	mux.HandleFunc("/more", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(strings.Repeat(" ", maxDocument-len(keys)+1) + keys))
	})
	mux.HandleFunc("/html", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) })
	s := httptest.NewServer(mux)
	defer s.Close()
	for path, words := range map[string]string{
		"/keys": "", "/full": "", "/more": "more than", "/moved": "redirects are not followed", "/large": "more than", "/html": "no JWK Set", "/nothing": "404",
	} {
		var log strings.Builder
		v := NewVerifier(Options{JWKS: s.URL + path, Log: slog.New(slog.NewTextHandler(&log, nil))})
		_, err := verify(t, v, byKid(t, jwt.SigningMethodES256, k, "k"))
		v.Close()
		if good := path == "/keys" || path == "/full"; good != (err == nil) || !good && !errors.Is(err, ErrUnavailable) || !strings.Contains(log.String(), words) {
			t.Errorf("%s: %v %s", path, err, log.String())
		}
	}
}

// The log says where the provider is, and no more of its address, whatever has gone wrong: it may have secrets in it.
func TestALogHasNoSecretPartOfTheProvidersAddress(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hush/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/hush/large":
			w.Write([]byte(strings.Repeat(" ", maxDocument+1)))
		case "/hush/cut":
			panic(http.ErrAbortHandler)
		case "/hush/half":
			w.Header().Set("Content-Length", "9")
			w.Write([]byte("{"))
		case "/hush/html":
			w.Write([]byte("<html>"))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	for _, path := range []string{"moved", "large", "cut", "half", "html", "nothing"} {
		var log strings.Builder
		at := strings.Replace(s.URL, "://", "://hush:hush@", 1) + "/hush/" + path + "?k=hush"
		v := NewVerifier(Options{JWKS: at, Log: slog.New(slog.NewTextHandler(&log, nil))})
		<-v.provider.fetch()
		v.Close()
		if text := log.String(); strings.Contains(text, "hush") || !strings.Contains(text, s.URL) {
			t.Errorf("%s: %s", path, text)
		}
	}
}

func TestWhichKeyATokenNames(t *testing.T) {
	a, b := newEC(), newEC()
	secretJWK := jose.JSONWebKey{Key: []byte(secret), KeyID: "s"}
	set := jwks(t, ecJWK("a", a), ecJWK("b", b), jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "a", Algorithm: "RS256"},
		jose.JSONWebKey{Key: edKey().Public(), KeyID: "ed"}, secretJWK,
		jose.JSONWebKey{Key: &newEC().PublicKey, KeyID: "enc", Use: "enc"})
	synctest.Test(t, func(t *testing.T) {
		v := from(t, &idP{body: set})
		defer v.Close()
		taken(t, v, byKid(t, jwt.SigningMethodES256, a, "a"))
		taken(t, v, byKid(t, jwt.SigningMethodRS256, rsaKey(), "a")) // RFC 7517 4.5: keys of two types may have one kid
		taken(t, v, byKid(t, jwt.SigningMethodEdDSA, edKey(), "ed"))
		taken(t, v, sign(t, jwt.SigningMethodEdDSA, edKey(), good(nil))) // there is one of its kind
		refused(t, v, sign(t, jwt.SigningMethodES256, a, good(nil)), "names no key")
		refused(t, v, byKid(t, jwt.SigningMethodES256, a, "b"), "signature")
		refused(t, v, byKid(t, jwt.SigningMethodPS256, rsaKey(), "a"), "no key") // that one is for RS256
		refused(t, v, byKid(t, jwt.SigningMethodHS256, []byte(secret), "s"), "for a secret")
		refused(t, v, byKid(t, jwt.SigningMethodES256, a, ""), "names no key")
		for _, kid := range []string{"../a", "/a", "A", "a ", "a\x00", "file:///a", "https://evil.example/keys"} {
			refused(t, v, byKid(t, jwt.SigningMethodES256, a, kid), "no key")
		}
		for _, kid := range []any{7, true, []string{"a"}, map[string]any{}} {
			refused(t, v, byKid(t, jwt.SigningMethodES256, a, kid), "header")
		}
	})
	for doc, words := range map[string]string{
		"": "no JWK Set", "[]": "no JWK Set", "{}": "no keys", `{"keys":{}}`: "no JWK Set", `{"keys":[7,{"kty":"x"}]}`: "none of its keys",
		jwks(t, secretJWK): "none of its keys", `{"keys":[` + strings.Repeat("{},", 100) + "{}]}": "101 keys",
	} {
		if _, err := parseSet([]byte(doc)); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%.60q: %v", doc, err)
		}
	}
	// A private key that was put there by mistake counts by its public half.
	found, err := parseSet([]byte(jwks(t, jose.JSONWebKey{Key: a, KeyID: "a"})))
	if err != nil || found[0].kind != kindEC {
		t.Errorf("%v %v", found, err)
	}
}

func TestWhereKeysMayComeFrom(t *testing.T) {
	for _, good := range []string{"https://id.example/keys", "https://id.example:8443/a?b=c", "http://localhost:1/keys", "http://127.0.0.1/k", "http://127.9.9.9/", "http://[::1]:80/k"} {
		if err := CheckJWKS(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "keys", "/keys", "http://id.example/keys", "http://localhost.evil.example/", "http://127.0.0.1.evil.example/", "http://10.0.0.1/", "http://[::]/", "http://0.0.0.0/",
		"ftp://id.example/", "file:///etc/keys", "https:keys", "https:///keys", "HTTP://id.example", "https://%zz", "javascript:1", "http://127.0.0.1@evil.example/",
	} {
		if CheckJWKS(bad) == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func FuzzJWKS(f *testing.F) {
	f.Add(jwks(f, ecJWK("a", newEC()), jose.JSONWebKey{Key: &rsaKey().PublicKey}, jose.JSONWebKey{Key: edKey().Public()}))
	f.Add(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"oct","k":"AA"},{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`)
	f.Fuzz(func(t *testing.T, doc string) {
		set, err := parseSet([]byte(doc))
		if err == nil && len(set) == 0 {
			t.Error("no keys and no error")
		}
		for _, k := range set {
			if kind, err := kindOf(k.key); err != nil || kind != k.kind || kind == kindSecret {
				t.Errorf("%v %v", kind, err)
			}
			for _, a := range algorithms {
				if a.kind == k.kind {
					a.method.Verify("a.b", make([]byte, 64), k.key)
				}
			}
		}
	})
}
