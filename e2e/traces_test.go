package e2e

import (
	"testing"

	"example.com/hubbub/internal/faulty"
)

// What the Go client is held to as well: client's TestTraces.
func TestJavaScriptClientByTraces(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"ws":   {"node", "test/driver.js", "ws"},
		"node": {"node", "--experimental-websocket", "test/driver.js"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := faulty.StartProgram(t, "../js", args...)
			faulty.Run(t, "../testdata/protocol/traces", p.Client, 8)
		})
	}
}
