package hubbub

import (
	"sync"
	"time"

	"example.com/hubbub/internal/api"
	"example.com/hubbub/internal/metrics"
)

// figures is what GET /figures says. It waits for the workers, as a scrape does.
func (s *Server) figures() api.Figures {
	snap := s.snapshot()
	f := api.Figures{
		Time: time.Now().UnixMilli(), Node: s.node, Version: Version(), Started: s.started.UnixMilli(), NotReady: s.notReady(),
		Connections: snap.Connections, MaxConnections: s.cfg().MaxConnections, Clients: s.hub.Clients(), Parked: snap.Parked, Rooms: snap.Rooms,
		Tails:    int(snap.APITails),
		Received: snap.MessagesReceived, Sent: snap.MessagesSent, ReceivedBytes: snap.BytesReceived, SentBytes: snap.BytesSent, Panics: snap.Panics,
		Dropped: snap.Dropped, Closed: snap.Closed, Errors: snap.Errors, Denied: snap.Denied, Limited: map[string]int64{}, Upgrades: snap.Upgrades,
		Memory: api.FigureMemory{Memory: s.memory(), History: snap.HistoryBytes},
	}
	for _, l := range snap.Limited {
		f.Limited[l.By+"."+l.Limit] = l.Times
	}
	s.tally.mu.Lock()
	defer s.tally.mu.Unlock()
	for i, w := range s.loop.Workers() {
		f.Workers = append(f.Workers, api.Worker{Connections: w.Load(), Waiting: snap.MailboxDepth[i], BusyMicros: s.tally.workers[i].TurnNanos / 1e3})
	}
	return f
}

func (s *Server) memory() api.Memory {
	return api.Memory{Process: processMemory(), Buffered: s.loop.Buffered(), MaxBuffered: s.cfg().MaxBufferedBytes}
}

const (
	sampleEvery = 10 * time.Second
	maxSamples  = int(time.Hour / sampleEvery)
)

// sampler keeps the figures of the last hour: maxSamples of them, some 120 bytes each.
type sampler struct {
	stop  chan struct{} // closed to end it
	ended chan struct{} // closed when it has

	mu     sync.Mutex
	before metrics.Snapshot // that of the newest sample; guarded by mu, as is what follows
	ring   []api.Sample
	next   int // where the next one goes, once ring is full
}

// startSampling begins to keep samples, on a goroutine of its own.
func (s *Server) startSampling() {
	s.sampler.stop, s.sampler.ended = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(s.sampler.ended)
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			select {
			case <-s.sampler.stop:
				return
			case <-tick.C:
			}
			s.takeSample()
		}
	}()
}

func (s *Server) takeSample() {
	now := s.snapshot()
	s.sampler.mu.Lock()
	defer s.sampler.mu.Unlock()
	s.sampler.keep(s.sampleOf(&now, &s.sampler.before))
	s.sampler.before = now
}

// stopSampling waits for a look that is under way. Any goroutine; it may be called again.
func (s *Server) stopSampling() {
	s.sampler.mu.Lock()
	select {
	case <-s.sampler.stop:
	default:
		close(s.sampler.stop)
	}
	s.sampler.mu.Unlock()
	<-s.sampler.ended
}

// sampleOf is a sample of now, and of what has come since before.
func (s *Server) sampleOf(now, before *metrics.Snapshot) api.Sample {
	memory := s.memory()
	sample := api.Sample{
		Time: time.Now().UnixMilli(), Connections: now.Connections, Clients: s.hub.Clients(), Rooms: now.Rooms, Process: memory.Process, Buffered: memory.Buffered,
		Received: now.MessagesReceived - before.MessagesReceived, Sent: now.MessagesSent - before.MessagesSent,
		ReceivedBytes: now.BytesReceived - before.BytesReceived, SentBytes: now.BytesSent - before.BytesSent,
		Dropped: sum(now.Dropped) - sum(before.Dropped), Errors: sum(now.Errors) - sum(before.Errors),
		BusyMicros: int64(1e6 * (now.Turns.Sum - before.Turns.Sum)),
	}
	accepted := upgradeNames[upgradeAccepted]
	sample.Accepted = now.Upgrades[accepted] - before.Upgrades[accepted]
	sample.Refused = sum(now.Upgrades) - sum(before.Upgrades) - sample.Accepted
	for _, n := range now.MailboxDepth {
		sample.Waiting += n
	}
	return sample
}

func sum(counts map[string]int64) (all int64) {
	for _, n := range counts {
		all += n
	}
	return all
}

// keep forgets the oldest where there is no room. p.mu is held.
func (p *sampler) keep(sample api.Sample) {
	if len(p.ring) < maxSamples {
		p.ring = append(p.ring, sample)
		return
	}
	p.ring[p.next] = sample
	p.next = (p.next + 1) % maxSamples
}

// samples are those that are newer than a time, in Unix milliseconds.
func (s *Server) samples(since int64) api.Samples {
	told := api.Samples{Node: s.node, Every: sampleEvery.Milliseconds(), Samples: []api.Sample{}}
	p := &s.sampler
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.ring {
		if sample := p.ring[(p.next+i)%len(p.ring)]; sample.Time > since {
			told.Samples = append(told.Samples, sample)
		}
	}
	return told
}

// inForce are those of Config.Settings.
func (s *Server) inForce() (told []api.Setting) {
	if s.cfg().Settings == nil {
		return nil
	}
	for _, is := range s.cfg().Settings() {
		told = append(told, api.Setting(is))
	}
	return told
}
