package room

import (
	"strings"
	"testing"
	"time"

	"example.com/hubbub/internal/protocol"
)

func TestMillisecondsAreNeverTooFew(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Nanosecond:         `"retry_after_ms":1,`,
		time.Millisecond:        `"retry_after_ms":1,`,
		1500 * time.Microsecond: `"retry_after_ms":2,`,
		time.Minute:             `"retry_after_ms":60000,`,
	} {
		a := protocol.Answer{Kind: protocol.AnswerError, Err: &protocol.Error{Code: protocol.RateLimited}, After: d, ID: []byte("1")}
		if got := string(dialect.AppendAnswer(nil, &a)); !strings.Contains(got, want) {
			t.Errorf("%v: %s", d, got)
		}
	}
}

func TestAppendAppends(t *testing.T) {
	got := dialect.AppendAnswer([]byte("before"), &protocol.Answer{Kind: protocol.AnswerLeft, Room: "a"})
	if want := `before{"msg_type":"left","room":"a"}`; string(got) != want {
		t.Errorf("got %s", got)
	}
	if got := dialect.AppendAnswer(nil, &protocol.Answer{Kind: protocol.AnswerPing}); len(got) != 0 {
		t.Errorf("a ping is %s; the WebSocket has its own", got)
	}
}
