package hubbub

import (
	"fmt"
	"strings"

	"example.com/hubbub/broker/nats"
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
