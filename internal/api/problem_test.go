package api

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"example.com/hubbub/internal/hub"
	"example.com/hubbub/internal/protocol"
)

// What a backend is answered for each thing that can go wrong, and whether it may try again.
func TestWhatABackendIsTold(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
		retry  bool
	}{
		{hub.ErrUnknownClient, 404, "unknown_client", false},
		{hub.ErrUnknownUser, 404, "not_found", false},
		{hub.ErrNotMember, 404, "not_member", false},
		{hub.ErrNoHistory, 403, "forbidden", false},
		{hub.ErrNoPresence, 403, "forbidden", false},
		{hub.ErrNoPosition, 400, "bad_position", false},
		{hub.ErrOverloaded, 429, "overloaded", true},
		{hub.ErrLimitReached, 429, "limit_reached", true},
		{hub.ErrTooManyTails, 429, "limit_reached", true},
		{hub.ErrStopped, 503, "unavailable", true},
		{hub.ErrUnavailable, 503, "unavailable", true},
		{hub.ErrTimeout, 504, "timeout", true},
		{context.DeadlineExceeded, 504, "timeout", true},
		{context.Canceled, 504, "timeout", true},
		{errors.New("whatever"), 500, "internal", true},
		{&protocol.Error{Code: protocol.RateLimited}, 429, "rate_limited", true},
	} {
		for _, err := range []error{c.err, fmt.Errorf("around it: %w", c.err)} {
			if p := problemOf(err); p.status != c.status || p.code != c.code || p.retry != c.retry {
				t.Errorf("%v: %d %s, retry %t; want %d %s, %t", err, p.status, p.code, p.retry, c.status, c.code, c.retry)
			}
		}
	}
	for code := protocol.BadJSON; code <= protocol.Internal; code++ {
		p := fault(code, "")
		if p.status < 400 || p.code != code.String() || p.retry != (p.status == 429 || p.status >= 500) {
			t.Errorf("%s: %+v", code, p)
		}
	}
}
