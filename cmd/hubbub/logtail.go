package main

import (
	"io"
	"strings"
	"sync"
)

// Bounds on what is kept of the log: so much memory at most, whatever is logged.
const (
	maxLogLines = 1000
	maxLogBytes = 256 << 10
	maxLogLine  = 8 << 10 // of a longer one its beginning, such as of a stack
)

// logTail is where the log goes, and keeps its newest lines for GET /api/v1/log and hubbub bundle. Any goroutine.
type logTail struct {
	to io.Writer // static

	mu    sync.Mutex // guards all that follows; nothing is taken or waited for under it
	kept  []string   // oldest first
	bytes int
}

// Write takes one line, as slog's handlers write it.
func (t *logTail) Write(line []byte) (int, error) {
	t.keep(line)
	return t.to.Write(line)
}

func (t *logTail) keep(line []byte) {
	kept := strings.ToValidUTF8(string(line[:min(len(line), maxLogLine)]), "\uFFFD")
	kept = strings.TrimSuffix(kept, "\n")
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept, t.bytes = append(t.kept, kept), t.bytes+len(kept)
	n := 0
	for ; len(t.kept)-n > maxLogLines || t.bytes > maxLogBytes; n++ {
		t.bytes -= len(t.kept[n])
		t.kept[n] = ""
	}
	t.kept = t.kept[n:]
}

// lines are those that are kept, oldest first.
func (t *logTail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string{}, t.kept...)
}
