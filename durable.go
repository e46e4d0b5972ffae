package hubbub

import (
	"fmt"
	"strings"

	"example.com/hubbub/broker/nats"
	"example.com/hubbub/internal/hub"
)

// openLog starts the log of rooms of a node that is alone: a NATS server in this process, which listens nowhere.
func (s *Server) openLog(c nats.Config) (*nats.Broker, error) {
	mark, err := s.dataDir.Epoch(s.cfg().historyRules())
	if err != nil {
		return nil, fmt.Errorf("data-dir %s: %w", s.cfg().DataDir, err)
	}
	dir, err := s.dataDir.Folder("log")
	if err != nil {
		return nil, fmt.Errorf("data-dir %s: %w", s.cfg().DataDir, err)
	}
	c.Alone, c.Mark, c.Replicas = true, "."+mark, 1
	b, err := nats.Start(dir, c)
	if err != nil {
		return nil, fmt.Errorf("data-dir %s: %w", s.cfg().DataDir, err)
	}
	return b, nil
}

// logFiles is how many files the logs of rooms may have open at a time, where they are this process's: rooms whose histories
// have the same bounds share eight logs, each of which has two, and one more for a moment.
func (c *Config) logFiles() int {
	if !c.keepsLog() {
		return 0
	}
	def := hub.DefaultPolicy()
	kinds, others := map[History]bool{}, historyOf(&def) // of rooms that no rule is for
	add := func(h History) {
		if h.Bytes = 0; h.Messages > 0 {
			kinds[h] = true
		}
	}
	for _, r := range c.Rooms {
		if r.History != nil {
			add(*r.History)
		}
		if r.Match == "*" {
			others = History{}
		}
	}
	add(others)
	return 8*3*len(kinds) + 8
}

// warnOfLogFiles says so where the limit of open files leaves the logs less than that.
func (s *Server) warnOfLogFiles() {
	c := s.cfg()
	if left, need := openFileLimit()-c.MaxConnections-fdsOfOurs, c.logFiles(); left < need {
		s.log.Warn("the limit of open files leaves too few for the logs of rooms: where none is left, rooms with history are unavailable", "left", left, "needed", need,
			"would_allow", "a higher limit of open files, a lower --max-connections, or fewer kinds of history")
	}
}

// historyRules are what decides which log each room has: where they change, rooms go to others and may come back.
func (c *Config) historyRules() string {
	var b strings.Builder
	for _, r := range c.Rooms {
		if r.History != nil {
			fmt.Fprintf(&b, "%q %d %d", r.Match, r.History.Messages, r.History.Age.Milliseconds())
			if r.History.Replicas != 0 {
				fmt.Fprintf(&b, " %d", r.History.Replicas)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}
