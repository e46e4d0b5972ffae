package hub

import (
	"encoding/base64"
	"encoding/binary"
	"testing"
	"time"
)

// A token is good as it was given out, for its session and its time alone.
func TestATokenIsGoodAsItWasGiven(t *testing.T) {
	h, l := newHubOf(t, 1, func(c *Config) { c.ResumeWindow = time.Hour })
	a := newClient(t, h, l)
	a.nc.Close()
	until(t, "it is parked", func() bool { return h.ParkedSessions() == 1 })
	given, err := base64.RawURLEncoding.DecodeString(a.welcome["resume_token"].(string))
	if err != nil {
		t.Fatal(err)
	}
	signed := func(change func(b []byte)) []byte {
		b := append([]byte(nil), given[:tokenSize]...)
		change(b)
		return h.sign(b)
	}
	lasting := func(d time.Duration) []byte {
		return signed(func(b []byte) { binary.BigEndian.PutUint64(b[21:], uint64(time.Now().Add(d).Unix())) })
	}
	other := append([]byte(nil), given...)
	other[len(other)-1]++
	stranger, _ := newHubOf(t, 1, func(c *Config) { c.TokenKey[0]++ })
	for name, c := range map[string]struct {
		token []byte
		good  bool
	}{
		"as it is":                {given, true},
		"for an hour more":        {lasting(time.Hour), true},
		"its time is over":        {lasting(-2 * time.Second), false},
		"another version":         {signed(func(b []byte) { b[0]++ }), false},
		"another session":         {signed(func(b []byte) { b[1]++ }), false},
		"a generation to come":    {signed(func(b []byte) { b[20]++ }), false},
		"another signature":       {other, false},
		"cut":                     {given[:len(given)-1], false},
		"longer":                  {append(append([]byte(nil), given...), 0), false},
		"nothing but a signature": {h.sign(nil), false},
		"of another key":          {stranger.sign(given[:tokenSize:tokenSize]), false},
	} {
		if _, good := h.Resume(base64.RawURLEncoding.EncodeToString(c.token)); good != c.good {
			t.Errorf("%s: good is %t", name, good)
		}
	}
}
