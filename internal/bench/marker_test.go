package bench

import (
	"bytes"
	"strings"
	"testing"
)

func TestMarkersAreFoundInWhateverIsAround(t *testing.T) {
	p := newPayloads("0a1b2c3d", 100)
	m := marker{id: 0xFFFFFFFE, publisher: 0xABCDEF, seq: 7, due: 1<<48 - 1}
	payload := p.append(nil, m)
	if len(payload) != 100 {
		t.Fatalf("%d bytes, want 100", len(payload))
	}
	for _, around := range []string{"", `{"content":"`, "#0a1b2c3d", "#0a1b2c3d0123456789#", strings.Repeat("#", 50)} {
		text := append([]byte(around), payload...)
		text = append(text, `"} and more`...)
		for _, hint := range []int{0, len(around), 5, len(text), len(text) + 1} {
			got, at, ok := p.find(text, hint)
			if !ok || got != m || at != len(around) {
				t.Errorf("behind %q, looked for at %d: %+v at %d, %v", around, hint, got, at, ok)
			}
		}
		if rest, ok := p.intact(text[len(around):]); !ok || string(rest) != `"} and more` {
			t.Errorf("behind %q: %q, %v", around, rest, ok)
		}
	}
	for _, other := range []string{"", "hello", string(newPayloads("ffffffff", 100).append(nil, m)), string(payload[:markerSize-1]), string(bytes.ToUpper(payload))} {
		if _, _, ok := p.find([]byte(other), 0); ok {
			t.Errorf("found in %q", other)
		}
	}
	changed := bytes.Clone(payload)
	changed[99] ^= 1
	if _, ok := p.intact(changed); ok {
		t.Error("a payload that was changed is intact")
	}
	if _, ok := p.intact(payload[:99]); ok {
		t.Error("a payload that was cut short is intact")
	}
}
