package hubbub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/hubbub/internal/api"
	"example.com/hubbub/internal/auth"
)

// reloads are what Reload needs. One reload goes on at a time.
type reloads struct {
	sync.Mutex                // held for a whole reload
	ended      bool           // Shutdown was called; guarded by the mutex, as is what follows
	tokens     *auth.Verifier // the last one that was replaced: somebody may still wait for its keys
	closing    sync.WaitGroup // outboxes that were taken out
	cut        func()         // ends the last of them; what it has not told stays on the disk, if there is one. nil for none

	failed atomic.Bool  // the last one; as the next, any goroutine
	loaded atomic.Int64 // when the settings that count were taken, in milliseconds since 1970
}

// told keeps for the metrics what became of one. A server that stops says no more of its settings.
func (r *reloads) told(err error) {
	switch {
	case err == nil:
		r.loaded.Store(time.Now().UnixMilli())
		r.failed.Store(false)
	case !errors.Is(err, ErrReloadStopping):
		r.failed.Store(true)
	}
}

// ErrReloadStopping is what Reload returns once Shutdown was called.
var ErrReloadStopping = errors.New("the server is stopping")

// Reload has the Server go by next, as far as it can at run time, and says by their names what has changed and what was
// kept as it was: Diff has said the same. It is all or nothing: where next can't be used, or not beside what is kept, the
// error names every setting that is wrong, as New's does, and nothing has changed. Nobody is disconnected, and nothing is
// lost:
//
// A room's members get the new policy with its next message. A request, a hook or a question that has begun goes on by what
// it began with. Where a limit is less than what is there already, that stays, and more is refused. Who was let in by a
// token stays until the token's own expiry, whether its key still counts or not. What waits for the backend goes to the new
// URL, signed with the new secrets. A file of JWT.Key is read again. Where the logs of rooms lie elsewhere than in memory
// (DataDir, Cluster, NATS, Broker), Rooms is kept where another log would be that of some room. Of several nodes each has
// to be told.
//
// Reload blocks while it looks at every room, some milliseconds for ten thousand of them, and longer where Webhooks begin
// or end. Calls wait for each other; a Handler or hook may call it.
func (s *Server) Reload(next Config) (changed, kept []string, err error) {
	s.reloads.Lock()
	defer s.reloads.Unlock()
	defer func() { s.reloads.told(err) }()
	if s.reloads.ended {
		return nil, nil, fmt.Errorf("hubbub: reload: %w", ErrReloadStopping)
	}
	if err := next.Validate(); err != nil {
		return nil, nil, fmt.Errorf("hubbub: reload: %w", err)
	}
	was := s.cfg()
	changed, kept, cfg := was.Config.reloaded(next.withDefaults())
	if err := cfg.Validate(); err != nil {
		return nil, nil, fmt.Errorf("hubbub: reload: beside what can't change at run time (%s): %w", strings.Join(kept, ", "), err)
	}
	is, err := s.prepare(was, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("hubbub: reload: %w", err)
	}
	is.written = next
	if is.tokens != was.tokens && is.JWT == was.JWT {
		changed = append(changed, "jwt-key") // in its file
	}
	if len(changed) > 0 {
		s.goBy(was, is)
		if is.openToAll() && !was.openToAll() {
			s.log.Warn("the server is open to all from now on: a reload has taken away what said who clients are", "changed", strings.Join(changed, ","))
		}
	}
	return changed, kept, nil
}

// prepare makes all that the new settings need and that can fail. What stays the same is the same thing.
func (s *Server) prepare(was *settings, cfg Config) (is *settings, err error) {
	is = newSettings(cfg)
	if is.key, err = is.JWT.readKey(); err != nil {
		return nil, err
	}
	is.questions = was.questions
	if !sameQuestions(&was.Config, &cfg) {
		is.questions = cfg.newQuestions(s.node, was.questions)
	}
	is.webhooks = was.webhooks
	switch {
	case cfg.Webhooks.URL == "":
		is.webhooks = nil
	case was.webhooks == nil:
		s.awaitTakenOut()
		if is.webhooks, err = s.openWebhooks(&cfg); err != nil {
			return nil, err
		}
	}
	is.tokens = was.tokens
	if is.JWT != was.JWT || !is.key.Same(was.key) {
		is.tokens = is.verifier(is.key) // last: nothing has to end it again
	}
	return is, nil
}

// goBy puts the new settings in the place of the old ones, which nothing fails of.
func (s *Server) goBy(was, is *settings) {
	if is.webhooks != nil && is.webhooks == was.webhooks && !sameWebhooks(&was.Config, &is.Config) {
		is.webhooks.Reload(is.Webhooks.target())
	}
	s.settings.Store(is)
	s.ips.Limit(is.MaxConnectionsPerIP)
	s.mu.Lock()
	for _, g := range s.gates {
		g.Descriptors(is.descriptors())
	}
	s.mu.Unlock()
	s.api.Reload(is.apiSettings())
	s.loop.Reload(s.loopConfig(&is.Config))
	s.hub.Reload(s.hubConfig(is))
	if was.tokens != nil && was.tokens != is.tokens {
		if before := s.reloads.tokens; before != nil {
			before.Close()
		}
		s.reloads.tokens = was.tokens
	}
	if was.questions != is.questions {
		was.questions.Close()
	}
	if o := was.webhooks; o != nil && is.webhooks == nil {
		ctx, cut := context.WithCancel(context.Background())
		s.reloads.cut = cut
		s.reloads.closing.Go(func() {
			defer cut()
			o.Close(ctx)
		})
	}
}

// awaitTakenOut waits for an outbox that a reload took out, so that its backend never hears of two at a time, whose numbers
// mean nothing to each other. On the disk that takes no time: what it leaves there the next one tells.
func (s *Server) awaitTakenOut() {
	if s.dataDir != nil && s.reloads.cut != nil {
		s.reloads.cut()
	}
	s.reloads.closing.Wait()
}

// endReloads has a reload that is under way end, and none begin any more.
func (s *Server) endReloads() {
	s.reloads.Lock()
	defer s.reloads.Unlock()
	s.reloads.ended = true
}

// ReadAgain is what POST /api/v1/reload does, for a program that reloads for other reasons too, such as a signal: it calls
// Config.ReadAgain, and where that fails before it comes to Reload, /metrics says so as if Reload had failed. It blocks for
// as long as that does. Any goroutine.
func (s *Server) ReadAgain(ctx context.Context) (changed, kept []string, err error) {
	read := s.cfg().ReadAgain
	if read == nil {
		return nil, nil, api.ErrNoReload
	}
	before := s.reloads.loaded.Load()
	if changed, kept, err = read(ctx); err != nil && s.reloads.loaded.Load() == before { // else a later one has succeeded
		s.reloads.told(err)
	}
	return changed, kept, err
}

// readAgain is POST /api/v1/reload.
func (s *Server) readAgain(ctx context.Context) (done api.Reloaded, err error) {
	done.Changed, done.Kept, err = s.ReadAgain(ctx)
	return done, err
}

// namedSame says whether all settings with one of these beginnings are alike.
func (c *Config) namedSame(next *Config, prefixes ...string) bool {
	changed, _, _ := c.reloaded(*next)
	for _, name := range changed {
		for _, p := range prefixes {
			if strings.HasPrefix(name, p) {
				return false
			}
		}
	}
	return true
}

// sameQuestions says that the same is asked of the same backend, with the same bounds.
func sameQuestions(was, is *Config) bool {
	return was.namedSame(is, "hook-", "webhook-secret", "Questions.", "max-message-bytes", "max-rooms-per-client")
}

// sameWebhooks says that the same backend is told of the same.
func sameWebhooks(was, is *Config) bool { return was.namedSame(is, "webhook-") }
