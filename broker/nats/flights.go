package nats

import (
	"context"
	"strconv"
	"strings"
	"sync"

	client "github.com/nats-io/nats.go"
)

// flights are the groups of all lanes that are under way, by the number in the subject of their answer, and those of them that
// are to be sent. A server that takes nothing blocks who sends to it, so one goroutine does it for all.
type flights struct {
	inbox string        // this connection's own, which no other ever had
	wake  chan struct{} // something is queued

	mu     sync.Mutex
	next   uint64
	all    map[string]*flight
	queued []*flight
}

func (fs *flights) listen(c *client.Conn) error {
	fs.inbox, fs.all, fs.wake = c.NewInbox()+".", map[string]*flight{}, make(chan struct{}, 1)
	s, err := c.Subscribe(fs.inbox+"*", func(m *client.Msg) {
		fs.mu.Lock()
		f := fs.all[m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]]
		fs.mu.Unlock()
		if f != nil {
			f.answered(m)
		}
	})
	if err != nil {
		return err
	}
	return s.SetPendingLimits(-1, -1) // one for each group that is under way, which are bounded
}

func (fs *flights) add(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.next++
	f.number = strconv.FormatUint(fs.next, 36)
	fs.all[f.number] = f
}

func (fs *flights) remove(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.all, f.number)
}

// queue has a group sent. It doesn't wait.
func (fs *flights) queue(f *flight) {
	fs.mu.Lock()
	fs.queued = append(fs.queued, f)
	fs.mu.Unlock()
	select {
	case fs.wake <- struct{}{}:
	default:
	}
}

// send sends what is queued, until ctx is done.
func (fs *flights) send(ctx context.Context, c *client.Conn) {
	for {
		fs.mu.Lock()
		queued := fs.queued
		fs.queued = nil
		fs.mu.Unlock()
		for _, f := range queued {
			if m, noted := f.take(); m != nil {
				noted.sent(f.l.token)
				if err := c.PublishMsg(m); err != nil {
					f.refused(err)
				}
			}
		}
		if len(queued) > 0 {
			continue
		}
		select {
		case <-fs.wake:
		case <-ctx.Done():
			return
		}
	}
}
