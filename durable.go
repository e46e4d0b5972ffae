package hubbub

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"example.com/hubbub/broker/nats"
	"example.com/hubbub/internal/datadir"
)

// openDataDir takes the data directory, where the settings name one. Where the settings name no broker, it starts the log
// of rooms in it: a NATS server in this process, which listens nowhere.
func (s *Server) openDataDir() (err error) {
	s.node = cmp.Or(s.cfg.NodeName, newNode())
	s.broker = s.cfg.Broker
	if s.cfg.DataDir == "" {
		return nil
	}
	if s.dataDir, err = datadir.Open(s.cfg.DataDir); err == nil && s.broker == nil {
		err = s.openLog()
	}
	if err != nil {
		return fmt.Errorf("data-dir %s: %w", s.cfg.DataDir, err)
	}
	s.node = cmp.Or(s.cfg.NodeName, s.dataDir.ID())
	return nil
}

func (s *Server) openLog() error {
	mark, err := s.dataDir.Epoch(s.cfg.historyRules())
	if err != nil {
		return err
	}
	dir, err := s.dataDir.Folder("log")
	if err != nil {
		return err
	}
	s.own, err = nats.Start(dir, nats.Config{Window: s.cfg.DedupWindow, Mark: "." + mark, Logger: s.log})
	if err == nil {
		s.broker, s.alone = s.own, true
	}
	return err
}

// serveBroker has the broker serve the hub, until closeBroker.
func (s *Server) serveBroker() {
	if s.broker == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.broker.Run(ctx, s.hub); err != nil {
			s.log.Error("the broker serves no more", "error", err)
		}
	}()
	s.endBroker = func() {
		cancel()
		<-ended
	}
}

// closeBroker ends the broker and gives the data directory back. Nothing uses either any more.
func (s *Server) closeBroker() {
	if s.endBroker != nil {
		s.endBroker()
	} else if s.own != nil {
		s.own.Close()
	}
	if s.own != nil {
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
