// Package sparselog keeps what happens often, or what an attacker makes happen, from filling the log: one line a second
// at most, and none is lost, for the next line says how many it stands for.
package sparselog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Log is one kind of line. The zero value is ready. Any goroutine.
type Log struct {
	mu    sync.Mutex
	shut  bool // a line was written less than a second ago
	held  int  // lines that wait for the second's end
	write func(held int)
}

// Log writes a line at once if none was written in the last second. Else it is held back, and at the end of the second
// the latest of those held back is written, with how many more there were.
func (l *Log) Log(to *slog.Logger, level slog.Level, msg string, attrs ...any) {
	if !to.Enabled(context.Background(), level) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut {
		l.held++
		l.write = func(held int) {
			if held > 1 {
				attrs = append(attrs, "more_like_it", held-1)
			}
			to.Log(context.Background(), level, msg, attrs...)
		}
		return
	}
	l.shut = true
	to.Log(context.Background(), level, msg, attrs...)
	time.AfterFunc(time.Second, l.open)
}

// open is called a second after a line.
func (l *Log) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == 0 {
		l.shut = false
		return
	}
	l.write(l.held)
	l.held, l.write = 0, nil
	time.AfterFunc(time.Second, l.open)
}
