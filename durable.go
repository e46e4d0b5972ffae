package hubbub

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"example.com/hubbub/broker/nats"
	"example.com/hubbub/internal/datadir"
)

// openDataDir takes the data directory, where the settings name one, and starts the log of rooms in it: a NATS server in
// this process, which listens nowhere.
func (s *Server) openDataDir() error {
	s.node = cmp.Or(s.cfg.NodeName, newNode())
	if s.cfg.DataDir == "" {
		return nil
	}
	if err := s.openLog(); err != nil {
		return fmt.Errorf("data-dir %s: %w", s.cfg.DataDir, err)
	}
	return nil
}

func (s *Server) openLog() (err error) {
	if s.dataDir, err = datadir.Open(s.cfg.DataDir); err != nil {
		return err
	}
	s.node = cmp.Or(s.cfg.NodeName, s.dataDir.ID())
	mark, err := s.dataDir.Epoch(s.cfg.historyRules())
	if err != nil {
		return err
	}
	dir, err := s.dataDir.Folder("log")
	if err != nil {
		return err
	}
	s.broker, err = nats.Start(dir, nats.Config{Window: s.cfg.DedupWindow, Mark: "." + mark, Logger: s.log})
	return err
}

// serveLog has the log serve the hub, until closeDataDir.
func (s *Server) serveLog() {
	if s.broker == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.broker.Run(ctx, s.hub); err != nil {
			s.log.Error("the log of rooms", "error", err)
		}
	}()
	s.endLog = func() {
		cancel()
		<-ended
	}
}

// closeDataDir ends the log of rooms and gives the data directory back. Nothing uses either any more.
func (s *Server) closeDataDir() {
	if s.endLog != nil {
		s.endLog()
	} else if s.broker != nil {
		s.broker.Close()
	}
	if s.broker != nil {
		s.dataDir.Ended()
	}
	s.dataDir.Close()
}

// historyRules are what decides which log each room has: where they change, rooms go to others and may come back.
func (c *Config) historyRules() string {
	var b strings.Builder
	for _, r := range c.Rooms {
		if r.History != nil {
			fmt.Fprintf(&b, "%q %d %d\n", r.Match, r.History.Messages, r.History.Age.Milliseconds())
		}
	}
	return b.String()
}
