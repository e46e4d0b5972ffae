package hub

import (
	"fmt"
	"testing"
)

// A room never has an epoch again after it has lost something, however many others have, too.
func TestNoEpochComesBack(t *testing.T) {
	var e epochs
	had := map[string]bool{}
	quiet := e.of("quiet")
	for i := range 3*maxLost + 5 {
		if i < maxLost && e.of("quiet") != quiet {
			t.Fatalf("the epoch of a room that lost nothing has changed after %d others", i)
		}
		if now := e.of("busy"); had[now] {
			t.Fatalf("after %d: epoch %s again", i, now)
		} else {
			had[now] = true
		}
		e.lose("busy")
		e.lose(fmt.Sprint("room ", i))
		if len(e.lost) > maxLost {
			t.Fatalf("%d are known", len(e.lost))
		}
	}
}
