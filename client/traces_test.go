package client_test

import (
	"testing"

	"example.com/hubbub/internal/faulty"
)

// What the JavaScript client is held to as well: e2e's TestJavaScriptClientByTraces.
func TestTraces(t *testing.T) { faulty.Run(t, "../testdata/protocol/traces", drive(t), 8) }
