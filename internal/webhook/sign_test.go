package webhook

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	oldSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	newSecret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDb2Z2c3RhcnM="
)

func secrets(t *testing.T, texts ...string) Secrets {
	t.Helper()
	all, err := ParseSecrets(texts)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The example of the specification's own libraries.
func TestASignatureIsThatOfTheSpecification(t *testing.T) {
	h := Sign(secrets(t, oldSecret), "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	want := http.Header{
		"Webhook-Id":        {"msg_p5jXN8AQM9LWM0D4loKWxJek"},
		"Webhook-Timestamp": {"1614265330"},
		"Webhook-Signature": {"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
	}
	for name := range want {
		if h.Get(name) != want.Get(name) {
			t.Errorf("%s is %q, not %q", name, h.Get(name), want.Get(name))
		}
	}
	if len(h) != len(want) {
		t.Errorf("headers %v", h)
	}
}

func TestWhoHasEitherOfTwoSecretsTakesASignature(t *testing.T) {
	body := []byte(`{"type":"hubbub.events"}`)
	h := Sign(secrets(t, oldSecret, newSecret), "one", time.Now(), body)
	for _, secret := range []string{oldSecret, newSecret} {
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(body, h); err != nil {
			t.Error(err)
		}
		if verifier.Verify([]byte(`{"type":"hubbub.eventz"}`), h) == nil {
			t.Error("another body has the same signature")
		}
	}
	stranger, _ := standardwebhooks.NewWebhookRaw([]byte("a secret that nobody has told us"))
	if stranger.Verify(body, h) == nil {
		t.Error("a third secret's owner takes it for signed with that")
	}
}

func TestASecretThatCantBeOneIsNamedAndNotRepeated(t *testing.T) {
	encoded := func(n int) string { return base64.StdEncoding.EncodeToString([]byte(strings.Repeat("s", n))) }
	for text, says := range map[string]string{
		"":                                  `doesn't begin with "whsec_"`,
		encoded(32):                         `doesn't begin with "whsec_"`,
		"whsk_" + encoded(32):               `doesn't begin with "whsec_"`,
		"whsec_":                            "it has 0 bytes",
		"whsec_" + encoded(23):              "it has 23 bytes, not between 24 and 64",
		"whsec_" + encoded(65):              "it has 65 bytes",
		"whsec_" + encoded(24) + "\n":       "not base64",
		"whsec_" + encoded(24) + " ":        "not base64",
		"whsec_c3Nzc3Nzc3Nzc3Nz_-":          "not base64",
		"whsec_" + encoded(25)[:34]:         "not base64", // without its padding
		"whsec_" + encoded(25)[:33] + "x==": "not base64", // bits that count for nothing
	} {
		_, err := ParseSecrets([]string{newSecret, text})
		if err == nil || !strings.Contains(err.Error(), "secret 2: ") || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, and not %q", text, err, says)
			continue
		}
		if rest := strings.TrimPrefix(text, "whsec_"); len(rest) > 8 && strings.Contains(err.Error(), rest[:8]) {
			t.Errorf("%q: the error repeats it: %v", text, err)
		}
	}
	if _, err := ParseSecrets([]string{oldSecret, newSecret, oldSecret}); err == nil || !strings.Contains(err.Error(), "secret 3: it stands there twice") {
		t.Errorf("a secret that stands there twice: %v", err)
	}
	if _, err := ParseSecrets([]string{"one", oldSecret, "two"}); err == nil || !strings.Contains(err.Error(), "secret 1") || !strings.Contains(err.Error(), "secret 3") {
		t.Errorf("not both are named: %v", err)
	}
}

func FuzzParseSecrets(f *testing.F) {
	f.Add(oldSecret)
	f.Add("whsec_")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ParseSecrets([]string{text})
		if err != nil {
			return
		}
		verifier, err := standardwebhooks.NewWebhook(text)
		if err != nil {
			t.Fatalf("the specification's library doesn't take it: %v", err)
		}
		now := time.Now()
		if err := verifier.Verify([]byte("{}"), Sign(all, "id", now, []byte("{}"))); err != nil {
			t.Fatal(err)
		}
	})
}
