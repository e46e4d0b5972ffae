package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The tests of the JavaScript client (js/test), which start servers of their own: with the npm package ws, and with the
// WebSocket that Node.js brings.
func TestJavaScriptClient(t *testing.T) {
	t.Parallel()
	binary, err := filepath.Abs(program)
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"units":   {"test/unit.test.js"},
		"edges":   {"test/edges.test.js"},
		"package": {"test/package.test.js"},
		"native":  {"test/native.test.js"},
		"ws":      {"test/live.test.js"},
		"node":    {"--experimental-websocket", "test/live.test.js"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, "node", args...)
			cmd.Dir = "../js"
			cmd.Env = append(os.Environ(), "SERVER_BINARY="+binary)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("node %v: %v\n%s", args, err, out)
			}
			if cmd.ProcessState.Success() && len(out) == 0 {
				t.Error("no test has run")
			}
		})
	}
}
