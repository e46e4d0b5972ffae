package doctor

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

// peerOf is the URL of a machine whose clock is so far ahead of ours. It goes by 0.0.0.0, which leads to this one and
// doesn't count as such: the clock of who is known to be here is ours.
func peerOf(t *testing.T, ahead time.Duration) string {
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
	}))
	t.Cleanup(peer.Close)
	return strings.Replace(peer.URL, "127.0.0.1", "0.0.0.0", 1)
}

func TestThePeersClock(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Hour, -time.Hour} {
		began := time.Now()
		off, from := (&Subject{PublicURL: peerOf(t, ahead)}).peerClock(t.Context())
		if !strings.HasPrefix(from, "0.0.0.0:") || (off-ahead).Abs() > time.Second+time.Since(began) {
			t.Errorf("%q is %s from ours, want %s", from, off, ahead)
		}
	}
	provider := Call{"--jwt-jwks", peerOf(t, time.Hour) + "/keys", false}
	if off, _ := (&Subject{PublicURL: "http://localhost:1", Calls: []Call{provider}}).peerClock(t.Context()); off < time.Minute {
		t.Errorf("a provider of keys isn't asked: %s", off)
	}
	provider.Signed = true
	if _, from := (&Subject{URL: strings.Replace(provider.URL, "0.0.0.0", "127.0.0.1", 1), Calls: []Call{provider}}).peerClock(t.Context()); from != "" {
		t.Errorf("%s is asked: a backend that wants signed requests, or this machine", from)
	}
}

func TestClocksThatDiffer(t *testing.T) {
	const hours = 90*time.Minute + 30*time.Second // a Date is cut to seconds
	look := func(ahead time.Duration, tokens bool) []Finding {
		return clock(t.Context(), &Subject{PublicURL: peerOf(t, ahead), Tokens: tokens})
	}
	expect(t, look(hours, false), Warning, "clock", "0.0.0.0:", "1h30m", "from ours")
	expect(t, look(-hours, false), Warning, "-1h30m", "from ours")
	if runtime.GOOS == "linux" { // the others have no word on tokens
		expect(t, look(hours, true), Fault, "1h30m", "tokens count as expired")
	}
	for {
		began := time.Now()
		all := look(0, true)
		if time.Since(began) > 4*time.Second {
			continue // the machine stood still: the Date is as old
		}
		if len(all) != 1 || all[0].Level == Fault || !strings.Contains(all[0].Found, "agrees to the second") {
			t.Errorf("of a clock that is right: %+v", all)
		}
		break
	}
	if all := clock(t.Context(), &Subject{}); len(all) > 0 && strings.Contains(all[0].Found, "agrees") {
		t.Errorf("nobody was asked: %+v", all)
	}
}
