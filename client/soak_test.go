package client_test

import (
	"testing"

	"example.com/hubbub/internal/faulty"
)

// HUBBUB_SOAK_FOR=10m make soak: the JavaScript client is held to the same by e2e's TestJavaScriptClientSoak.
func TestSoak(t *testing.T) { faulty.Soak(t, drive(t), faulty.SoakTime(t), faulty.SoakSeed(t)) }
