package nats

import (
	"encoding/binary"
	"strconv"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"

	"example.com/hubbub/broker"
)

const (
	callTimeout  = 5 * time.Second
	maxCalls     = 1 << 14  // that wait for an answer
	maxCallBytes = 64 << 20 // of these
	maxAskers    = 1024     // whose numbers are known; more where so many nodes are there
)

// calls are the questions of this node that aren't answered, and those that it is asked.
type calls struct {
	inbox   string // of the answers; static
	arrived chan *client.Msg

	mu    sync.Mutex
	over  bool
	last  uint64
	bytes int
	all   map[uint64]*call
	queue []*call // in the order of their time, the answered ones too
}

type call struct {
	number uint64
	to     broker.NodeID
	size   int
	done   func([]byte, error) // nil once it is ended
	until  time.Time
}

// Call implements broker.Broker.
func (b *Broker) Call(to broker.NodeID, body []byte, done func([]byte, error)) {
	n := b.nodes
	if n == nil || !n.tells() || !n.sees(to) || int64(len(body)) > b.maxPayload.Load()-64 || !n.ask(to, body, done) {
		go done(nil, broker.ErrUnavailable)
	}
}

// ask sends [id] number, body. It is false where too many wait.
func (n *nodes) ask(to broker.NodeID, body []byte, done func([]byte, error)) bool {
	cs := &n.calls
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.over || len(cs.all) >= maxCalls || cs.bytes+len(body) > maxCallBytes {
		return false
	}
	c := &call{number: cs.last + 1, to: to, size: len(body), done: done, until: time.Now().Add(callTimeout)}
	data := make([]byte, 0, len(n.b.id)+binary.MaxVarintLen64+len(body))
	data = append(binary.AppendUvarint(append(data, n.b.id[:]...), c.number), body...)
	if n.out.push(letter{
		subject: subjectOf(callSubject, to), reply: cs.inbox + strconv.FormatUint(c.number, 36), data: data,
		refused: func() { n.endCall(c.number, nil, broker.ErrUnavailable) },
	}) != nil {
		return false
	}
	cs.last++
	cs.bytes += c.size
	cs.all[c.number] = c
	cs.queue = append(cs.queue, c)
	return true
}

// endCall gives a call its answer, once.
func (n *nodes) endCall(number uint64, answer []byte, err error) {
	cs := &n.calls
	cs.mu.Lock()
	c := cs.all[number]
	done := cs.remove(c)
	cs.mu.Unlock()
	if done != nil {
		done(answer, err)
	}
}

// remove: cs.mu is held.
func (cs *calls) remove(c *call) (done func([]byte, error)) {
	if c == nil || c.done == nil {
		return nil
	}
	done, c.done = c.done, nil
	delete(cs.all, c.number)
	cs.bytes -= c.size
	return done
}

func (n *nodes) answered(m *client.Msg) {
	number, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 36, 64)
	switch {
	case err != nil:
	case len(m.Data) == 0 && m.Header.Get("Status") == "503": // nobody has this subject
		n.endCall(number, nil, broker.ErrUnavailable)
	default:
		n.endCall(number, m.Data, nil)
	}
}

// callsTicked ends calls that had no answer for too long.
func (n *nodes) callsTicked() {
	cs := &n.calls
	now := time.Now()
	for {
		cs.mu.Lock()
		if len(cs.queue) == 0 {
			cs.queue = nil
			cs.mu.Unlock()
			return
		}
		c := cs.queue[0]
		if c.done != nil && now.Before(c.until) {
			cs.mu.Unlock()
			return
		}
		cs.queue[0], cs.queue = nil, cs.queue[1:]
		done := cs.remove(c)
		cs.mu.Unlock()
		if done != nil {
			done(nil, broker.ErrTimeout)
		}
	}
}

// failCalls ends some without an answer.
func (n *nodes) failCalls(some func(c *call) bool) {
	cs := &n.calls
	cs.mu.Lock()
	var ended []func([]byte, error)
	for _, c := range cs.all {
		if some(c) {
			ended = append(ended, cs.remove(c))
		}
	}
	select {
	case <-n.end:
		cs.over = true
	default:
	}
	cs.mu.Unlock()
	for _, done := range ended {
		done(nil, broker.ErrTimeout)
	}
}

// handle has the node answer what it is asked, until the end.
func (n *nodes) handle() {
	last := map[broker.NodeID]uint64{}
	for {
		select {
		case m := <-n.calls.arrived:
			if len(m.Data) == 0 { // who picks an id asks whether somebody has it
				n.reply(m.Reply, nil)
				continue
			}
			from, b, ok := cutID(m.Data)
			number, body, ok1 := cutNumber(b)
			if !ok || !ok1 || number <= last[from] {
				continue // it was overtaken: its order is lost
			}
			for id := range last {
				if len(last) < maxAskers {
					break
				}
				if !n.sees(id) {
					delete(last, id)
				}
			}
			last[from] = number
			var once sync.Once
			n.b.node.Handle(from, body, func(answer []byte) { once.Do(func() { n.reply(m.Reply, answer) }) })
		case <-n.end:
			return
		}
	}
}

func (n *nodes) reply(to string, answer []byte) {
	if int64(len(answer)) > n.b.maxPayload.Load() {
		n.b.log.Error("an answer to another node is larger than the NATS servers take; raise their max_payload", "bytes", len(answer))
		return
	}
	if err := n.out.push(letter{subject: to, data: answer}); err != nil {
		n.b.log.Warn("an answer to another node isn't sent", "error", err)
	}
}
