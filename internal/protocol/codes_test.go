package protocol

import (
	"strings"
	"testing"
	"time"
)

func elapsed(f func()) float64 {
	start := time.Now()
	f()
	return float64(time.Since(start).Nanoseconds())
}

func TestCodesFollowTheTable(t *testing.T) {
	dont := strings.Fields("bad_json bad_message unknown_type bad_room too_deep binary unknown_client not_member forbidden bad_position")
	later := strings.Fields("rate_limited limit_reached overloaded unavailable timeout internal")
	for i, name := range append(dont, later...) {
		c := Code(i + 1)
		if c.String() != name || c.Retry() != (i >= len(dont)) {
			t.Errorf("code %d is %s, retry %v; want %s", c, c, c.Retry(), name)
		}
	}
}

func TestACodeOutsideTheTableIsInternal(t *testing.T) {
	for _, c := range []Code{0, Internal + 1, 255} {
		if c.String() != "internal" || !c.Retry() {
			t.Errorf("code %d is %s, retry %v", uint8(c), c, c.Retry())
		}
	}
}

func TestCloseCodesSayWhetherToComeBack(t *testing.T) {
	for _, code := range []int{CloseSlowConsumer, CloseTakenOver, CloseNoSignOfLife, CloseTokenExpired} {
		if code < 4000 || code > 4499 {
			t.Errorf("%d must mean: come back", code)
		}
	}
	for _, code := range []int{CloseKicked, CloseRefused, CloseForbidden} {
		if code < 4500 || code > 4999 {
			t.Errorf("%d must mean: don't", code)
		}
	}
}

func TestAnErrorIsAnError(t *testing.T) {
	var err error = &Error{NotMember, "join first"}
	if err.Error() != "not_member: join first" {
		t.Error(err)
	}
}

func TestMillisecondsAreNeverTooFew(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Nanosecond:         `"retry_after_ms":1,`,
		time.Millisecond:        `"retry_after_ms":1,`,
		1500 * time.Microsecond: `"retry_after_ms":2,`,
		time.Minute:             `"retry_after_ms":60000,`,
	} {
		if got := string(AppendError(nil, &Error{RateLimited, ""}, d, []byte("1"))); !strings.Contains(got, want) {
			t.Errorf("%v: %s", d, got)
		}
	}
}

func TestAppendAppends(t *testing.T) {
	got := AppendLeft([]byte("before"), "a", nil)
	if want := `before{"msg_type":"left","room":"a"}`; string(got) != want {
		t.Errorf("got %s", got)
	}
}
