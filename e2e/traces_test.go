package e2e

import (
	"testing"

	"example.com/hubbub/internal/faulty"
)

// What the Go client is held to as well: client's TestTraces.
func TestJavaScriptClientByTraces(t *testing.T) {
	t.Parallel()
	eachWebSocket(t, func(t *testing.T, p *faulty.Program) { faulty.Run(t, "../testdata/protocol/traces", p.Client, 8) })
}

// HUBBUB_SOAK_FOR=10m make soak: the Go client is held to the same by client's TestSoak.
func TestJavaScriptClientSoak(t *testing.T) {
	t.Parallel()
	eachWebSocket(t, func(t *testing.T, p *faulty.Program) {
		faulty.Soak(t, p.Client, faulty.SoakTime(t), faulty.SoakSeed(t))
	})
}

// eachWebSocket runs a test with the npm package ws, and with the WebSocket that Node.js brings.
func eachWebSocket(t *testing.T, test func(*testing.T, *faulty.Program)) {
	for name, args := range map[string][]string{
		"ws":   {"node", "test/driver.js", "ws"},
		"node": {"node", "--experimental-websocket", "--no-warnings", "test/driver.js"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, faulty.StartProgram(t, "../js", args...))
		})
	}
}
