package outbox

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(childDir) != "" {
		writeUntilKilled()
	}
	goleak.VerifyTestMain(m)
}
