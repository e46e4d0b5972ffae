package nats

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
)

// Dial connects to NATS servers that have JetStream: one cluster's, by URLs with commas between them. The schemes are nats,
// tls, ws and wss; a user and a password, or a token, stand before the host. It waits until one answers, at most 10 seconds for each. An error
// says what is wrong with them, and bears no password.
func Dial(urls string, cfg Config) (*Broker, error) {
	if err := checkURLs(urls); err != nil {
		return nil, err
	}
	// Else two refusals in a row would be the end: credentials that are replaced are wrong for a moment.
	options := []client.Option{client.IgnoreAuthErrorAbort()}
	if cfg.Creds != "" {
		options = append(options, client.UserCredentials(cfg.Creds))
	}
	if cfg.CA != "" {
		options = append(options, client.RootCAs(cfg.CA))
	}
	return connect(nil, cfg, urls, options...)
}

// CheckFiles says all that is wrong with the files of the settings, each in the words of its flag. Nothing of what is in
// them is in the error.
func (c *Config) CheckFiles() error {
	var errs []error
	if c.Creds != "" {
		b, err := os.ReadFile(c.Creds)
		if err != nil {
			errs = append(errs, fmt.Errorf("nats-creds: %w", err))
		} else if key, err := nkeys.ParseDecoratedNKey(b); err != nil {
			errs = append(errs, fmt.Errorf("nats-creds %s has no credentials: a file is wanted such as nsc makes, with a token and a key", c.Creds))
		} else {
			key.Wipe()
		}
	}
	if c.CA != "" {
		_, err := readCA("nats-ca", c.CA)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func checkURLs(urls string) error {
	for s := range strings.SplitSeq(urls, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		switch {
		case err != nil:
			return fmt.Errorf("a NATS URL can't be read: it must be like nats://host:4222; in a password %%, / and @ are written %%25, %%2F and %%40")
		case u.Scheme != "nats" && u.Scheme != "tls" && u.Scheme != "ws" && u.Scheme != "wss" || u.Hostname() == "":
			return fmt.Errorf("%q isn't a NATS URL: it must be like nats://host:4222 or tls://host:4222", redacted(s))
		}
	}
	return nil
}

// redacted are URLs without what is secret in them.
func redacted(urls string) string {
	var all []string
	for s := range strings.SplitSeq(urls, ",") {
		if u, err := url.Parse(strings.TrimSpace(s)); err != nil {
			s = "(a URL that can't be read)"
		} else if u.User != nil {
			u.User = url.User("...") // a name may be a token
			s = u.String()
		}
		all = append(all, strings.TrimSpace(s))
	}
	return strings.Join(all, ",")
}

// unreachable says in words for the operator why there is no connection.
func unreachable(urls string, err error) error {
	urls = redacted(urls)
	switch {
	case refused(err):
		return fmt.Errorf("NATS at %s refuses the credentials: %w", urls, err)
	case errors.Is(err, client.ErrSecureConnRequired):
		return fmt.Errorf("NATS at %s wants TLS: set tls:// before the host: %w", urls, err)
	case errors.Is(err, client.ErrSecureConnWanted):
		return fmt.Errorf("NATS at %s has no TLS: set nats:// before the host: %w", urls, err)
	}
	return fmt.Errorf("NATS at %s: %w", urls, err)
}

// refused says whether an error is that a server doesn't take a node's credentials.
func refused(err error) bool {
	return errors.Is(err, client.ErrAuthorization) || errors.Is(err, client.ErrAuthExpired) || errors.Is(err, client.ErrAuthRevoked)
}

func withoutJetStream(urls string, err error) error {
	urls = redacted(urls)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, client.ErrNoResponders):
		return fmt.Errorf("NATS at %s has no JetStream, which keeps the rooms' history: start the servers with it (--js): %w", urls, err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("NATS at %s has no JetStream for this account: allow it there: %w", urls, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("NATS at %s: JetStream doesn't answer: fewer than half of the servers may be there, or the account may lack permissions for $JS.API: %w", urls, err)
	}
	return fmt.Errorf("JetStream at %s: %w", urls, err)
}

// tooOld says whether a server of a version can't answer for many messages or rooms at once.
func tooOld(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return false // nobody knows
	}
	return major < 2 || major == 2 && minor < 11
}
