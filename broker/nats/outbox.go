package nats

import (
	"context"
	"errors"
	"sync"

	client "github.com/nats-io/nats.go"

	"example.com/hubbub/broker"
)

// outbox is what waits to be sent to other nodes. A server that takes nothing blocks who sends to it, so one goroutine does it.
type outbox struct {
	wake chan struct{}

	mu     sync.Mutex
	queue  []letter
	bytes  int
	closed chan struct{} // once it has been closed: closed when all is sent
}

type letter struct {
	subject, reply string
	data           []byte
	refused        func() // the connection doesn't take what has a reply
}

const (
	maxOutbox = 32 << 20 // bytes that wait
	letterFee = 128      // beside what is in one
)

var errOutboxFull = errors.New("too much waits to be sent to other nodes")

// push doesn't wait.
func (o *outbox) push(l letter) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed != nil {
		return broker.ErrUnavailable
	}
	if o.bytes > maxOutbox {
		return errOutboxFull
	}
	o.bytes += len(l.data) + letterFee
	if o.queue = append(o.queue, l); len(o.queue) == 1 {
		o.wakeUp()
	}
	return nil
}

func (o *outbox) wakeUp() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// close has what waits be the last.
func (o *outbox) close() (sent <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed == nil {
		o.closed = make(chan struct{})
		o.wakeUp()
	}
	return o.closed
}

// waits is how many bytes do.
func (o *outbox) waits() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes
}

// send sends what waits, until ctx is done or all of a closed outbox is sent.
func (o *outbox) send(ctx context.Context, c *client.Conn) {
	var spare []letter
	for {
		o.mu.Lock()
		queue, closed := o.queue, o.closed
		o.queue = spare[:0]
		o.mu.Unlock()
		if len(queue) == 0 {
			if closed != nil {
				close(closed)
				return
			}
			spare = queue
			select {
			case <-o.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		sent := 0
		for _, l := range queue {
			if l.reply == "" {
				_ = c.Publish(l.subject, l.data) // it is lost, which its number shows
			} else if err := c.PublishRequest(l.subject, l.reply, l.data); err != nil {
				l.refused()
			}
			sent += len(l.data) + letterFee
		}
		o.mu.Lock()
		o.bytes -= sent
		o.mu.Unlock()
		clear(queue)
		if spare = queue; cap(spare) > 4096 {
			spare = nil
		}
	}
}
