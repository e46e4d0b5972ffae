package hubbub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/outbox"
	"example.com/hubbub/internal/protocol"
	"example.com/hubbub/internal/webhook"
)

// Webhooks are what the application's backend is told, by signed requests (docs/webhooks.md): who connects and who has
// gone, who joins and leaves, which rooms are occupied and vacated, and what is published.
type Webhooks struct {
	// URL is where they go, http or https. A redirect is not followed. Default: nowhere, and nothing is told.
	URL string
	// Secrets sign each request by the Standard Webhooks specification: "whsec_" and base64 of 24 to 64 bytes. Several,
	// while the backend changes from one to the next. There must be one.
	Secrets []string
	// Events are the names of what is told, such as "room.occupied"; "node.started" always is. Default: all but
	// "message.published".
	Events []string
	// Rooms are patterns of the rooms whose messages are told, where Events has "message.published". Default: all.
	Rooms []string
}

// validateWebhooks looks at Webhooks and NodeName. An error never repeats a secret, nor the address, of which a
// part may be one.
func (c Config) validateWebhooks() (bad faults) {
	w := c.Webhooks
	if w.URL == "" {
		if len(w.Events) > 0 {
			bad.add("webhook-events %s: nothing is told without --webhook-url (Webhooks.URL)", strings.Join(w.Events, ","))
		}
		if len(w.Rooms) > 0 {
			bad.add("webhook-rooms %s: nothing is told without --webhook-url (Webhooks.URL)", strings.Join(w.Rooms, ","))
		}
		if len(w.Secrets) > 0 {
			bad.add("webhook-secret: there is nothing to sign without --webhook-url (Webhooks.URL) or --hook-url (Questions.URL)")
		}
	} else {
		bad = append(bad, w.validate()...)
	}
	if err := checkNodeName(c.NodeName); err != nil {
		bad.add("node-name %q: %w", c.NodeName, err)
	}
	return bad
}

func (w Webhooks) validate() (bad faults) {
	if err := webhook.CheckURL(w.URL); err != nil {
		bad.add("webhook-url: %w", err)
	}
	bad = append(bad, validateSecrets(w.Secrets)...)
	if len(w.Secrets) == 0 {
		bad.add(`webhook-url: it needs --webhook-secret (Webhooks.Secrets), by which the backend knows who tells; make one: echo "whsec_$(openssl rand -base64 32)"`)
	}
	events, err := outbox.Select(w.Events)
	if err != nil {
		bad.add("webhook-events %w", err)
	}
	if len(w.Rooms) > 0 && !events.Messages() && err == nil {
		bad.add("webhook-rooms %s: they are for message.published, which --webhook-events (Webhooks.Events) doesn't name", strings.Join(w.Rooms, ","))
	}
	if len(w.Rooms) > maxRules {
		bad.add("webhook-rooms: %d patterns, at most %d are allowed", len(w.Rooms), maxRules)
	}
	for _, text := range w.Rooms {
		if err := protocol.CheckRoom([]byte(text)); err != nil { // what a name may not have, a pattern may not have either
			bad.add("webhook-rooms %q: no room has such a name: %s", text, err.Message)
		} else if strings.Contains(text, glob.User) || glob.Unknown(text) != "" {
			bad.add("webhook-rooms %q: no name is put in here; did you mean *, any run of characters?", text)
		}
	}
	return bad
}

func validateSecrets(texts []string) (bad faults) {
	if _, err := webhook.ParseSecrets(texts); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			bad.add("webhook-secret: %s", line)
		}
	}
	return bad
}

// checkNodeName takes "", for a name that is made up.
func checkNodeName(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"
	switch {
	case len(name) > 128:
		return fmt.Errorf("it has %d bytes, at most 128 are allowed", len(name))
	case strings.Trim(name, letters) != "":
		return errors.New("it has more than letters, digits and -._")
	}
	return nil
}

// target is where the backend is told what. Validate has looked at all.
func (w *Webhooks) target() outbox.Target {
	secrets, _ := webhook.ParseSecrets(w.Secrets)
	events, _ := outbox.Select(w.Events)
	return outbox.Target{URL: w.URL, Secrets: secrets, Events: events}
}

// openWebhooks starts the outbox; nil where the settings want none.
func (s *Server) openWebhooks(cfg *Config) (o *outbox.Outbox, err error) {
	if cfg.Webhooks.URL == "" {
		return nil, nil
	}
	dir := ""
	if s.dataDir != nil {
		dir, err = s.dataDir.Folder("webhooks")
	}
	if err == nil {
		o, err = outbox.Open(outbox.Config{Target: cfg.Webhooks.target(), Node: s.node, Dir: dir, Tracer: s.tracer, Log: s.log})
	}
	if err != nil {
		return nil, fmt.Errorf("data-dir %s: %w", cfg.DataDir, err)
	}
	return o, nil
}

// closeWebhooks tells the backend what there is still to tell, as long as ctx lets it.
func (s *Server) closeWebhooks(ctx context.Context) {
	if o := s.cfg().webhooks; o != nil {
		o.Close(ctx)
	}
	s.reloads.Lock()
	cut := s.reloads.cut
	s.reloads.Unlock()
	if cut != nil {
		defer context.AfterFunc(ctx, cut)()
	}
	s.reloads.closing.Wait() // one that a reload has taken out
}

// tellWebhooks has the hub's events come to the outbox.
func (set *settings) tellWebhooks(h *hub.Config) {
	if set.webhooks == nil {
		return
	}
	h.Sinks = append(h.Sinks, set.webhooks)
	w := set.Webhooks
	if events, _ := outbox.Select(w.Events); !events.Messages() {
		return
	}
	var rooms []*glob.Pattern
	for _, text := range w.Rooms {
		rooms = append(rooms, glob.New(text))
	}
	h.Tells = func(room string) bool {
		return len(rooms) == 0 || slices.ContainsFunc(rooms, func(p *glob.Pattern) bool { return p.Match(room) })
	}
}
