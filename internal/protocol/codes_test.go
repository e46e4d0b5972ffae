package protocol

import (
	"strings"
	"testing"
)

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
	var err error = &Error{Code: NotMember, Message: "join first"}
	if err.Error() != "not_member: join first" {
		t.Error(err)
	}
}

func TestACodeIsFoundByItsName(t *testing.T) {
	for code := BadJSON; code <= Internal; code++ {
		if found, ok := ParseCode(code.String()); !ok || found != code {
			t.Errorf("%s is found as %s, %v", code, found, ok)
		}
	}
	for _, name := range []string{"", "Forbidden", "no_such_code"} {
		if _, ok := ParseCode(name); ok {
			t.Errorf("%q is a code", name)
		}
	}
}
