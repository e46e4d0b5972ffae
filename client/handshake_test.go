package client

import (
	"testing"
	"time"
)

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"0": 0, "7": 7 * time.Second, "99999999": maxRetryAfter,
		"Thu, 01 Jan 2026 12:00:30 GMT": 30 * time.Second, "Thu, 01 Jan 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfter(header, now); got < want || got > want+time.Second {
			t.Errorf("%q: %s, want %s and less than a second", header, got, want)
		}
	}
	for _, header := range []string{"", "-1", "soon", "1.5", "99999999999999999999"} {
		if got := retryAfter(header, now); got >= 0 {
			t.Errorf("%q: %s, want none", header, got)
		}
	}
}
