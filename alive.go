package hubbub

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"example.com/hubbub/internal/loop"
)

// Alive asks every worker for a turn and waits until all have taken it, or have ended, as after Shutdown. The error
// names those that haven't within limit: they hang, or have far more to do than they get done. It is what a watchdog
// should ask before it says that the process is well; once a second costs nothing to speak of.
func (s *Server) Alive(limit time.Duration) error {
	turned := make([]atomic.Bool, len(s.loop.Workers())) // a late worker sets its own after Alive has returned
	s.loop.Inspect(limit, func(w *loop.Worker) { turned[w.Index()].Store(true) })
	var late []string
	for i := range turned {
		if !turned[i].Load() {
			late = append(late, fmt.Sprint(i))
		}
	}
	if late == nil {
		return nil
	}
	return fmt.Errorf("hubbub: no turn within %s of worker %s (there are %d)", limit, strings.Join(late, ", "), len(turned))
}
