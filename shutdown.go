package hubbub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"example.com/hubbub/internal/audit"
)

// Shutdown ends the Server without a stampede. At once /readyz says 503; after Config.ShutdownDelay upgrades get 503,
// and the clients are closed at a pace: 500 a second, or faster so that three quarters of the time until ctx's deadline
// suffice. Each gets what is queued for it, a reconnect with a delay of its own, and 1001; the others are served
// meanwhile. Shutdown returns when all are gone and the last hook has returned, or when ctx ends: then what is left is
// cut off and the error is ctx's. Hooks can't be cut off: where some still run a second later the error is
// ErrHooksRunning too, and ErrStoreRunning where the store of Config.DataDir hasn't closed its files another ten seconds
// later, as on a full disk it may not. Where there are other nodes, they are answered to the end, and get the sessions of those who
// may come back. The Server can't be used afterwards. A second call waits like the first.
//
// A hook or Handler may call it. It waits then for all others, but neither for that one nor for what is to come behind
// it: the Disconnect of its client, or the next hooks of its room. It would wait for itself in another goroutine than
// the hook's own; a hook must not wait for such a one.
func (s *Server) Shutdown(ctx context.Context) error {
	s.endReloads()
	defer func() { s.cfg().questions.Close() }()
	if !s.draining.Swap(true) {
		time.AfterFunc(s.cfg().ShutdownDelay, func() { close(s.delayed) })
	}
	select {
	case <-s.delayed:
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	s.stopIdentifying()
	s.stopSampling()
	clients := s.loop.Connections()
	over := time.Duration(clients) * time.Second / drainPace
	if deadline, ok := ctx.Deadline(); ok {
		over = min(over, time.Until(deadline)*3/4)
	}
	s.hub.ComeBackWithin(max(2*time.Second, time.Duration(clients)*time.Second/drainPace))
	s.loop.Stop(over)
	gone := make(chan struct{})
	go func() {
		s.loop.Wait()
		close(gone)
	}()
	var err error
	select {
	case <-gone:
	case <-ctx.Done():
		err = ctx.Err()
		s.loop.Kill()
		<-gone
	}
	s.hub.Leave(ctx) // those who might have resumed find their sessions on other nodes
	s.hub.Stop()     // who has none leaves its rooms, and nothing is published any more
	told := make(chan struct{})
	go func() { // beside the hooks
		s.closeWebhooks(ctx)
		s.closeLinks()
		close(told)
	}()
	s.closeListeners()
	s.quiet.Stop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), hooksGrace)
	defer cancel()
	s.hub.WaitHooks(ctx)
	left := s.hub.WaitHooks(grace)
	if !endsWithin(ctx, told, storeGrace) {
		err = errors.Join(err, fmt.Errorf("hubbub: shut down: %w", ErrStoreRunning))
	}
	if left > 0 {
		return errors.Join(err, fmt.Errorf("hubbub: shut down: %w: %d of them", ErrHooksRunning, left))
	}
	if errors.Is(err, ErrStoreRunning) {
		return err
	}
	return errors.Join(err, s.settled())
}

// storeGrace is for webhooks, nodes and the store behind Shutdown's deadline: NATS's server was seen to hang in its own
// shutdown for minutes when the disk was full (2.15.3).
const storeGrace = 10 * time.Second

// endsWithin waits until something is done, for the grace where ctx ends before. It says whether it was.
func endsWithin(ctx context.Context, done <-chan struct{}, grace time.Duration) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	select {
	case <-done:
		return true
	case <-time.After(grace):
		return false
	}
}

// settled says which accounts are not back at zero though all has ended: a fault of Hubbub's own.
func (s *Server) settled() error {
	if s.hub.InHook() {
		return nil
	}
	accounts := append(s.loop.Unsettled(), s.hub.Unsettled()...)
	accounts = append(accounts, s.ips.Unsettled()...)
	if o := s.cfg().webhooks; o != nil {
		accounts = append(accounts, o.Unsettled()...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.gates {
		accounts = append(accounts, g.Unsettled()...)
	}
	if len(accounts) == 0 {
		return nil
	}
	return fmt.Errorf("hubbub: shut down: %w: %s", ErrUnsettled, strings.Join(accounts, "; "))
}

func init() {
	audit.Server = func(server any) []string { return server.(*Server).hub.Audit() }
}

// hooksGrace is how long Shutdown waits for hooks when all clients are gone, also past its context: those who were cut
// off have a Disconnect too, and their rooms a Left.
const hooksGrace = time.Second

// drainPace is how many clients a second are closed, and so about how many come back to the other nodes.
const drainPace = 500

// closeListeners comes last: until then upgrades are told 503, and probes that the server isn't ready.
func (s *Server) closeListeners() {
	s.mu.Lock()
	var servers []*http.Server
	for srv := range s.listening {
		servers = append(servers, srv)
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var all sync.WaitGroup
	for _, srv := range servers {
		all.Go(func() {
			if srv.Shutdown(ctx) != nil {
				srv.Close() // a request that goes on
			}
		})
	}
	all.Wait()
}
