package nats

import (
	"sync"
	"time"
)

// maxJobs is how many logs of one stream are read at a time. What is asked of a stream waits in one queue, so ten thousand
// rooms that are opened at once cost no goroutine each; and a stream without a leader doesn't hold up the others.
const maxJobs = 4

// jobs are what is to be read of a stream, in the order in which it was asked for.
type jobs struct {
	work *sync.WaitGroup // the broker's

	mu      sync.Mutex
	waiting []func()
	running int
	failed  []func() // are tried again together
	over    bool
}

// add has a job done by one of maxJobs goroutines. It is false once the broker ends; then nothing is done.
func (j *jobs) add(do func()) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.start(do)
}

// start: j.mu is held.
func (j *jobs) start(do func()) bool {
	switch {
	case j.over:
		return false
	case j.running == maxJobs:
		j.waiting = append(j.waiting, do)
	default:
		j.running++
		j.work.Go(func() { j.run(do) })
	}
	return true
}

func (j *jobs) run(do func()) {
	for do != nil {
		do()
		do = j.next()
	}
}

// next is the job that waits first; where none does its goroutine ends.
func (j *jobs) next() (do func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.waiting) == 0 {
		j.waiting = nil
		j.running--
		return nil
	}
	do, j.waiting[0] = j.waiting[0], nil
	j.waiting = j.waiting[1:]
	return do
}

// again has a job that has failed done again after a while, which is one for all.
func (j *jobs) again(do func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over {
		return
	}
	if j.failed = append(j.failed, do); len(j.failed) == 1 {
		time.AfterFunc(10*retryAfter, j.retry)
	}
}

func (j *jobs) retry() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, do := range j.failed {
		j.start(do)
	}
	j.failed = nil
}

// end has what waits be the last.
func (j *jobs) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.over, j.failed = true, nil
}
