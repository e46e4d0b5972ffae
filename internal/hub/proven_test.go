package hub

import (
	"testing"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/glob"
	"example.com/hubbub/internal/history"
)

// emptyAt has logs with nothing in them say that they stand at an offset, and that what was before nobody knows: as where
// rooms share a log, and all of it but their own goes on and expires.
type emptyAt struct {
	broker.Broker
	offset uint64
}

func (b *emptyAt) moved(log broker.Log) broker.Log {
	if len(log.Entries) == 0 {
		log.Floor, log.At.Offset = b.offset, b.offset
	}
	return log
}

func (b *emptyAt) Open(r broker.Room, opened func(broker.Log, error)) func() {
	return b.Broker.Open(r, func(log broker.Log, err error) { opened(b.moved(log), err) })
}

func (b *emptyAt) Read(r broker.Room, behind uint64, done func(broker.Log, error)) {
	b.Broker.Read(r, behind, func(log broker.Log, err error) { done(b.moved(log), err) })
}

// Who was in a room in which nothing was said has missed nothing, to whichever node it comes: also to one that has just read
// the room's log, and can't know what was before, and to one that doesn't know how far others' rooms have come.
func TestNothingIsMissedWhereNothingWasSaid(t *testing.T) {
	var logs []*emptyAt
	nodes := nodesOf(t, brokertest.NewMemory(), 2, func(c *Config) {
		logs = append(logs, &emptyAt{c.Broker, 100 + 600*uint64(len(logs))})
		c.Broker = logs[len(logs)-1]
		c.Policies = NewPolicies(Disconnect, Rule{glob.New("*"), Policy{History: history.Bounds{Messages: 10, Age: time.Minute, Bytes: 1 << 20}, IdleTTL: time.Minute}})
	})
	a, b := nodes[0], nodes[1]
	_, _ = a.member("bob", "r")
	ann, joined := a.member("ann", "r")
	if joined["offset"] != 100.0 {
		t.Fatalf("joined %v", joined)
	}
	back := b.comes(ann.token(), "ann")
	resumed := back.resumes("r", position(joined))
	if resumed["recovered"] != true || resumed["offset"] != 700.0 {
		t.Errorf("on a node that knows less: %v", resumed)
	}
	logs[0].offset = 900
	again := a.comes(back.token(), "ann")
	resumed = again.resumes("r", position(resumed))
	if resumed["recovered"] != true || resumed["offset"] != 900.0 {
		t.Errorf("on a node that is behind: %v", resumed)
	}
	audited(t, nodes...)
}
