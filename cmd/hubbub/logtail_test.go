package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// The newest lines of the log are kept, within their bounds, and all of it goes where it went.
func TestTheTailOfTheLogIsBounded(t *testing.T) {
	var out bytes.Buffer
	tail := &logTail{to: &out}
	log := slog.New(slog.NewTextHandler(tail, nil))
	for i := range 3 * maxLogLines {
		log.Info("a line", "number", i)
	}
	lines := tail.lines()
	if len(lines) != maxLogLines || !strings.HasSuffix(lines[len(lines)-1], fmt.Sprint("number=", 3*maxLogLines-1)) {
		t.Errorf("%d lines are kept, the last is %q", len(lines), lines[len(lines)-1])
	}
	if n := strings.Count(out.String(), "\n"); n != 3*maxLogLines {
		t.Errorf("%d lines were written", n)
	}
	for range 100 {
		log.Info(strings.Repeat("x", 2*maxLogLine))
	}
	total := 0
	for _, line := range tail.lines() {
		if total += len(line); len(line) > maxLogLine {
			t.Errorf("a line of %d bytes is kept", len(line))
		}
	}
	if total > maxLogBytes || total < maxLogBytes/2 {
		t.Errorf("%d bytes are kept", total)
	}
}
