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

// posted is a task and what it counts for, taskCost included.
type posted struct {
	Task
	cost int
}

// mailbox is the one thing that crosses threads. Posting never waits for the worker and never fails.
type mailbox struct {
	mu      sync.Mutex
	tasks   []posted
	bytes   int   // posted and not yet run to the end
	taken   int   // tasks that the worker has taken and not yet run to the end
	waiting []Ref // connections that are paused until bytes falls below lowWater
	ended   bool  // the worker is gone: what is posted is forgotten

	asleep atomic.Bool // the worker parks, or is about to: a post must wake it
}

// Post leaves t for the worker; cost is the size of the frame that it holds. It reports whether the mailbox is above
// high water: who published then pauses with Throttle, or refuses. Any goroutine; never blocks.
func (w *Worker) Post(t Task, cost int) (full bool) {
	m := &w.mail
	m.mu.Lock()
	if m.ended {
		m.mu.Unlock()
		return false
	}
	m.tasks = append(m.tasks, posted{t, taskCost + cost})
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

// take swaps the filled list for an empty one.
func (m *mailbox) take(empty []posted) (tasks []posted) {
	m.mu.Lock()
	tasks, m.tasks = m.tasks, empty
	m.taken += len(tasks)
	m.mu.Unlock()
	return tasks
}

// done gives back the cost of n tasks that ran, and wakes the connections that waited for it.
func (m *mailbox) done(n, cost int) {
	m.mu.Lock()
	m.bytes -= cost
	m.taken -= n
	var wake []Ref
	if m.bytes < lowWater {
		wake, m.waiting = m.waiting, nil
	}
	m.mu.Unlock()
	for _, ref := range wake {
		ref.w.Post(unthrottle(ref), 0)
	}
}

// end forgets what is left and what still comes: nobody is there to run it. left is the cost of tasks that the worker
// took and did not run.
func (m *mailbox) end(left []posted) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
	for _, list := range [][]posted{left, m.tasks} {
		for _, t := range list {
			m.bytes -= t.cost
		}
	}
	m.taken -= len(left)
	m.tasks, m.waiting = nil, nil
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

// A turn is long enough with turnWrites writes, about a millisecond of them, besides those that it had before it ran
// the mailbox. But where more than maxLeft tasks wait, nothing is put off: reading must not run ahead of delivering.
const (
	turnWrites = 128
	maxLeft    = 512
)

// runMail runs what was left and what was posted before this turn's take. What these tasks post runs in the next turn.
func (w *Worker) runMail() {
	taken := w.mail.take(w.spare[:0])
	w.spare = nil
	if len(w.tasks) == 0 {
		w.tasks, taken = taken, w.tasks
	} else {
		w.tasks = append(w.tasks, taken...)
		clear(taken)
	}
	if cap(taken) <= maxSpare {
		w.spare = taken[:0]
	}
	if len(w.tasks) == 0 {
		return
	}
	breathed := 0
	w.before = len(w.dirty)
	for w.rest = false; w.next < len(w.tasks) && !w.rest; {
		w.runTask(w.nextTask())
		if w.next-breathed >= mailTurn {
			w.breathe()
			breathed = w.next
		}
	}
	w.mail.done(w.next, w.ran)
	left := copy(w.tasks, w.tasks[w.next:])
	clear(w.tasks[left:])
	w.tasks, w.next, w.ran = w.tasks[:left], 0, 0
	if left == 0 && cap(w.tasks) > maxSpare {
		w.tasks = nil
	}
}

const maxSpare = 16 << 10 // tasks; a longer list goes back to the collector

// ConnTask is a Task that is about one connection: a panic in it ends that connection, as one in its events does.
type ConnTask interface {
	Task
	// Conn is that connection, or nil where it is gone.
	Conn(w *Worker) *Conn
}

func (w *Worker) runTask(t Task) {
	defer w.recoverTask(t)
	t.Run(w)
}

func (w *Worker) recoverTask(t Task) {
	r := recover()
	if r == nil {
		return
	}
	w.panicked(r)
	if ct, ok := t.(ConnTask); ok {
		if c := ct.Conn(w); c != nil {
			w.endAfterPanic(c)
		}
	}
}

// Peek is the task that comes after the running one in this turn, or nil; Skip takes it off. With both a task can do
// the work of its like that follow it in one pass. The worker's goroutine, inside Run.
func (w *Worker) Peek() Task {
	if w.next < len(w.tasks) {
		return w.tasks[w.next].Task
	}
	return nil
}

// Skip marks the task that Peek returned as done.
func (w *Worker) Skip() { w.nextTask() }

// nextTask takes the next task off the turn's list. With PutOff it is the one place where the account of what ran in
// this turn changes: what stands in the list afterwards need not be what ran.
func (w *Worker) nextTask() Task {
	t := w.tasks[w.next]
	w.next++
	w.ran += t.cost
	return t.Task
}

// Enough says that this turn writes to so many connections that what comes meanwhile should not have to wait for more:
// a task that would add others can put itself off. The worker's goroutine, inside Run.
func (w *Worker) Enough() bool {
	return len(w.dirty)-w.before >= turnWrites && len(w.tasks) <= maxLeft
}

// PutOff makes t the first task of the next turn, before all those that follow the running one: the turn ends with the
// running one. t was taken off in this turn, by Run or Skip, and cost is what it was posted with; of several, the one
// put off last comes first. The worker's goroutine, inside Run.
func (w *Worker) PutOff(t Task, cost int) {
	w.next--
	w.ran -= taskCost + cost
	w.tasks[w.next] = posted{t, taskCost + cost}
	w.rest = true
}
