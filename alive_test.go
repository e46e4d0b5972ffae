package hubbub_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// A server is alive while each of its workers takes turns, and again when one that hung goes on.
func TestAliveWhileEachWorkerTurns(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{Workers: 3})
	if err := s.Server.Alive(time.Hour); err != nil {
		t.Fatal(err)
	}
	release := hubbub.Hang(s.Server, 1)
	err := s.Server.Alive(10 * time.Millisecond)
	release()
	// The others may be late as well, on a busy machine.
	if err == nil || !strings.Contains(err.Error(), "1") || !strings.Contains(err.Error(), "(there are 3)") {
		t.Errorf("with a worker that hangs: %v", err)
	}
	if err := s.Server.Alive(time.Hour); err != nil {
		t.Errorf("it goes on, and: %v", err)
	}
	if err := s.Server.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := s.Server.Alive(time.Hour); err != nil {
		t.Errorf("workers that have ended hang: %v", err)
	}
}
