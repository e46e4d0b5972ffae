package loop

import (
	"sync"
	"sync/atomic"
)

// Task is work that another goroutine, or the worker itself, leaves for a worker.
type Task interface{ Run(w *Worker) }

// Above highWater the connections that publish into a mailbox are not read until it fell below lowWater.
const (
	highWater = 1 << 20 // bytes, taskCost included
	lowWater  = 256 << 10
	taskCost  = 128 // what a task costs in memory, next to its frame
)

// mailbox is the one thing that crosses threads. Posting never waits for the worker and never fails.
type mailbox struct {
	mu      sync.Mutex
	tasks   []Task
	bytes   int   // posted and not yet run to the end
	taken   int   // tasks of the turn that is under way
	waiting []Ref // connections that are paused until bytes falls below lowWater

	asleep atomic.Bool // the worker parks, or is about to: a post must wake it
}

// Post leaves t for the worker; cost is the size of the frame that it holds. It reports whether the mailbox is
// above high water: who published then pauses with Throttle, or refuses. Any goroutine; never blocks.
func (w *Worker) Post(t Task, cost int) (full bool) {
	m := &w.mail
	m.mu.Lock()
	m.tasks = append(m.tasks, t)
	m.bytes += taskCost + cost
	full = m.bytes > highWater
	m.mu.Unlock()
	if m.asleep.Load() && m.asleep.CompareAndSwap(true, false) {
		w.poll.wake()
	}
	return full
}

// Full says that the mailbox is above high water. Any goroutine.
func (w *Worker) Full() bool {
	m := &w.mail
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes > highWater
}

// Throttle stops reading from c until dst's mailbox is below low water. The goroutine of c's worker calls.
func (c *Conn) Throttle(dst *Worker) {
	m := &dst.mail
	m.mu.Lock()
	wait := m.bytes > lowWater && c.paused&pauseThrottle == 0
	if wait {
		m.waiting = append(m.waiting, c.Ref())
	}
	m.mu.Unlock()
	if wait {
		c.pause(pauseThrottle)
	}
}

// take swaps the filled list for an empty one. cost is what done must give back.
func (m *mailbox) take(empty []Task) (tasks []Task, cost int) {
	m.mu.Lock()
	tasks, m.tasks = m.tasks, empty
	cost = m.bytes
	m.taken = len(tasks)
	m.mu.Unlock()
	return tasks, cost
}

// done gives back the cost of tasks that ran, and wakes the connections that waited for it.
func (m *mailbox) done(cost int) {
	m.mu.Lock()
	m.bytes -= cost
	m.taken = 0
	var wake []Ref
	if m.bytes < lowWater {
		wake, m.waiting = m.waiting, nil
	}
	m.mu.Unlock()
	for _, ref := range wake {
		ref.w.Post(unthrottle(ref), 0)
	}
}

func (m *mailbox) empty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.tasks) == 0
}

type unthrottle Ref

func (u unthrottle) Run(w *Worker) {
	if c := w.Conn(Ref(u)); c != nil {
		c.resume(pauseThrottle)
	}
}

// mailTurn is how many tasks run before the worker looks whether others want the processor.
const mailTurn = 64

// runMail runs what was posted before this turn's take. What these tasks post runs in the next turn.
func (w *Worker) runMail() {
	tasks, cost := w.mail.take(w.spare[:0])
	if len(tasks) == 0 {
		w.spare = tasks
		return
	}
	w.tasks = tasks
	breathed := 0
	for w.next = 0; w.next < len(tasks); {
		t := tasks[w.next]
		w.next++
		w.runTask(t)
		if w.next-breathed >= mailTurn {
			w.breathe()
			breathed = w.next
		}
	}
	w.tasks, w.next = nil, 0
	clear(tasks)
	if cap(tasks) <= maxSpare {
		w.spare = tasks
	} else {
		w.spare = nil
	}
	w.mail.done(cost)
}

const maxSpare = 16 << 10 // tasks; a longer list goes back to the collector

func (w *Worker) runTask(t Task) {
	defer w.recoverTask()
	t.Run(w)
}

// Peek is the task that comes after the running one in this turn, or nil; Skip takes it off. With both a task
// can do the work of its like that follow it in one pass. The worker's goroutine, inside Run.
func (w *Worker) Peek() Task {
	if w.next < len(w.tasks) {
		return w.tasks[w.next]
	}
	return nil
}

// Skip marks the task that Peek returned as done.
func (w *Worker) Skip() { w.next++ }
