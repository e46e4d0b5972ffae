package client

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// What nobody has read and is dropped is told, also where it doesn't say how many messages it is about.
func TestWhatIsDroppedUnreadIsTold(t *testing.T) {
	for name, e := range map[string]Event{
		"a gap of unknown length": Gap{Room: "r", Reason: "node"}, "a gap that lies": Gap{Room: "r", Count: -5}, "word of a room": Entered{"r"}, "lost": Lost{Room: "r"},
	} {
		b := newInbox("r", 1000)
		var calls atomic.Int64
		b.put(t.Context(), e, &calls, nil)
		b.put(t.Context(), Message{Content: []byte(strings.Repeat("x", 700))}, &calls, nil)
		first, _ := b.next(context.Background())
		if gap, is := first.(Gap); !is || gap.Reason != "unread" || gap.Count < 1 {
			t.Errorf("%s: first comes a %T", name, first)
		}
	}
}

// A machine that slept has a clock that stood still meanwhile; the server's window has not.
func TestAPublishIsNoYoungerForSleep(t *testing.T) {
	h := newHub("ws://test/ws", Options{})
	defer h.cancel()
	h.session.clientID = "c"
	c := &call{kind: once, sentAs: "c", sentAt: time.Now(), sentWall: time.Now().Round(0)}
	if !h.knows(c) {
		t.Error("a young one isn't sent again")
	}
	c.sentWall = c.sentWall.Add(-time.Hour)
	if h.knows(c) {
		t.Error("one of an hour ago is sent again")
	}
}

func TestWhatTheServerWouldNotTakeIsRefusedHere(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for content, ok := range map[string]bool{
		`"\ud83d"`: false, `"\ud83d\ude00"`: true, `"\ude00\ud83d"`: false, `"\\ud83d"`: true, `"\ud83d\\ude00"`: false, `"\u00e4\n\""`: true, `["\"[",{"a":"]"}]`: true,
		"\"\xff\"": false, deep(127): true, deep(128): false, `"` + deep(200) + `"`: true, `"\ud83d\u0041"`: false,
	} {
		if err := checkContent([]byte(content)); (err == nil) != ok {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func FuzzContent(f *testing.F) {
	for _, s := range []string{`"\ud83d"`, `"\ud83d\ude00"`, `{"a":[1,"\\"]}`, `\`, `\u12`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkContent(b) })
}
