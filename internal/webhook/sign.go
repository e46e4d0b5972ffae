package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Secrets sign what is sent to the backend: with each of them, so that the backend may change from one to the next.
// Immutable, so of use to any goroutine.
type Secrets []*standardwebhooks.Webhook

// The specification: "between 24 bytes (192 bits) and 64 bytes (512 bits)".
const (
	secretPrefix = "whsec_"
	leastSecret  = 24
	mostSecret   = 64
)

// ParseSecrets takes texts of the form "whsec_" and base64. The error says which of them, by its number, and what is
// wrong with it; it never repeats any of it.
func ParseSecrets(texts []string) (Secrets, error) {
	var all Secrets
	var errs []error
	for i, text := range texts {
		key, err := parseSecret(text)
		if err == nil && slices.Contains(texts[:i], text) {
			err = errors.New("it stands there twice")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("secret %d: %w", i+1, err))
			continue
		}
		signer, _ := standardwebhooks.NewWebhookRaw(key) // takes any
		all = append(all, signer)
	}
	return all, errors.Join(errs...)
}

func parseSecret(text string) ([]byte, error) {
	const advice = `make one: echo "whsec_$(openssl rand -base64 32)"`
	rest, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return nil, errors.New(`it doesn't begin with "whsec_"; ` + advice)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(rest)
	switch {
	case err != nil || strings.ContainsAny(rest, "\r\n"): // which the decoder passes over, and others don't
		return nil, errors.New(`what follows "whsec_" is not base64, of the alphabet with + and / and with its padding; ` + advice)
	case len(key) < leastSecret || len(key) > mostSecret:
		return nil, fmt.Errorf("it has %d bytes, not between %d and %d; %s", len(key), leastSecret, mostSecret, advice)
	}
	return key, nil
}

// Sign gives the headers that say who has sent a body and when: webhook-id, by which the backend knows one that comes
// twice, webhook-timestamp and webhook-signature, with a signature for each secret. id has neither dots nor spaces.
func Sign(secrets Secrets, id string, at time.Time, body []byte) http.Header {
	signatures := make([]string, len(secrets))
	for i, secret := range secrets {
		signatures[i], _ = secret.Sign(id, at, body) // an HMAC can't fail
	}
	h := http.Header{}
	h.Set(standardwebhooks.HeaderWebhookID, id)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	h.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	return h
}
