package outbox

import (
	"sync/atomic"
	"time"
)

// Figures are those of an Outbox at one moment. Totals count from its start and never fall.
type Figures struct {
	Disk, Memory int64            // bytes that wait, there and in memory
	Events       int64            // that wait and are written
	Oldest       time.Duration    // age of the oldest that is to be sent next, or is under way; 0 where nothing waits
	Sent, Failed int64            // events that were taken; requests that were not
	Dropped      map[string]int64 // events, by name
	Stopped      bool             // the backend has answered 410
	DiskFails    bool
}

// figures are written by the outbox's goroutine, and read by any.
type figures struct {
	disk, memory, events, oldest atomic.Int64
	sent, failed                 atomic.Int64
	dropped                      [kinds]atomic.Int64
	diskFails                    atomic.Bool
}

func (f *figures) note(o *Outbox) {
	disk, memory := o.bytes()
	f.disk.Store(disk)
	f.memory.Store(memory)
	f.events.Store(o.waiting())
	f.diskFails.Store(o.failing)
	oldest := int64(0)
	if o.batch != nil {
		oldest = o.batch.oldest
	}
	f.oldest.Store(oldest)
}

// Figures is a copy of them. Any goroutine; those of a nil Outbox are zero.
func (o *Outbox) Figures() Figures {
	all := Figures{Dropped: map[string]int64{}}
	if o == nil {
		o = &Outbox{}
	}
	f := &o.figures
	for k, name := range kindNames {
		all.Dropped[name] = f.dropped[k].Load()
	}
	all.Disk, all.Memory = f.disk.Load(), f.memory.Load()+o.intake.waiting()
	all.Events, all.Sent, all.Failed = f.events.Load(), f.sent.Load(), f.failed.Load()
	all.Stopped, all.DiskFails = o.stopped.Load(), f.diskFails.Load()
	if oldest := f.oldest.Load(); oldest > 0 {
		all.Oldest = max(0, time.Since(time.UnixMilli(oldest)))
	}
	return all
}
