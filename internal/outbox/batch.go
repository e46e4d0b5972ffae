package outbox

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"example.com/hubbub/internal/protocol/room"
)

const (
	// maxEvents and maxBody bound a request; a larger event has one of its own.
	maxEvents = 100
	maxBody   = 256 << 10
	// maxEnvelope is what the body has beside its events, at most.
	maxEnvelope = 4 << 10
)

// batch is the events of one request. Its id and its events stay what they are, however often it is sent, and over a
// restart.
type batch struct {
	id       string
	body     []byte
	from     uint64 // seq of the first event
	events   int
	oldest   int64 // time of that
	newest   int64
	ends     [classes]place
	taken    []taken
	dropped  [kinds]int64 // told with it
	missing  span         // told with it
	attempts int
	traces   []string // the parents of its events that are traced
}

// taken is where an event of the batch is counted.
type taken struct {
	segment *segment
	kind    kind
}

// in is how many events of each kind the batch has from a segment. A nil batch has none.
func (b *batch) in(g *segment) (n [kinds]int64) {
	if b != nil {
		for _, t := range b.taken {
			if t.segment == g {
				n[t.kind]++
			}
		}
	}
	return n
}

// compose makes the next request, if there is anything to tell, and notes it where an outbox on disk will find it again.
func (o *Outbox) compose() {
	if o.stopped.Load() {
		return
	}
	was := o.cursor.pending
	b := o.collect(int(was))
	if was > 0 && b.events != int(was) { // of what was under way something was in memory alone
		o.skip(uint64(was))
		b = o.collect(0)
	}
	if b.events == 0 {
		return
	}
	o.cursor.pending, o.cursor.ends = uint32(b.events), b.ends
	o.save() // or else it goes on without the disk, as is logged
	o.batch = b
	o.due = time.Time{}
}

// skip leaves out the next n of seq, and says so in the next request.
func (o *Outbox) skip(n uint64) {
	if o.cursor.missing.from == 0 {
		o.cursor.missing.from = o.cursor.seq
	}
	o.cursor.seq += n
	o.cursor.missing.to = o.cursor.seq - 1
	o.cursor.pending = 0
}

// collect takes the next events in the order in which they happened: as many as fit, or the again of them that were
// under way when the process ended.
func (o *Outbox) collect(again int) *batch {
	b := &batch{from: o.cursor.seq, dropped: o.cursor.dropped, missing: o.cursor.missing}
	b.id = "msg_" + string(o.cursor.run[:]) + "_" + strconv.FormatUint(b.from, 10)
	b.body = o.appendEnvelope(nil, b)
	var readers [classes]*reader
	for c, s := range o.spools {
		readers[c] = s.reader()
	}
	lost := func(g *segment) { o.lost(g, b) }
	size := maxEnvelope
	for b.events < maxEvents {
		var first record
		from := -1
		for c, r := range readers {
			rec, ok := r.peek(lost)
			if !ok || again > 0 && !r.place.before(o.cursor.ends[c]) {
				continue
			}
			if from < 0 || rec.stamp < first.stamp {
				first, from = rec, c
			}
		}
		if from < 0 {
			break
		}
		if size += len(first.json) + len(`"seq":,`) + 20; size > maxBody && b.events > 0 && again == 0 {
			break
		}
		b.add(&first, readers[from].segment)
		readers[from].skip(&first)
		if parent, is := o.traces[first.stamp]; is {
			delete(o.traces, first.stamp)
			b.traces = append(b.traces, parent)
		}
	}
	for c, r := range readers {
		b.ends[c] = r.place
	}
	b.body = append(b.body, `]}`...)
	return b
}

// add puts an event behind the others, with its seq.
func (b *batch) add(r *record, g *segment) {
	if b.events == 0 {
		b.oldest = r.time
	} else {
		b.body = append(b.body, ',')
	}
	b.body = append(b.body, `{"seq":`...)
	b.body = strconv.AppendUint(b.body, b.from+uint64(b.events), 10)
	b.body = append(append(b.body, ','), r.json[1:]...)
	b.newest = max(b.newest, r.time)
	b.events++
	b.taken = append(b.taken, taken{g, r.kind})
}

// appendEnvelope appends what comes before the events.
func (o *Outbox) appendEnvelope(body []byte, b *batch) []byte {
	body = room.AppendString(append(body, `{"type":"hubbub.events","node":`...), o.cfg.Node)
	before := `,"dropped":{`
	for k, n := range b.dropped {
		if n > 0 {
			body = append(append(append(append(body, before...), '"'), kindNames[k]...), `":`...)
			body = strconv.AppendInt(body, n, 10)
			before = ","
		}
	}
	if before == "," {
		body = append(body, '}')
	}
	if m := b.missing; m.from > 0 {
		body = strconv.AppendUint(append(body, `,"missing":{"from":`...), m.from, 10)
		body = append(strconv.AppendUint(append(body, `,"to":`...), m.to, 10), '}')
	}
	return append(body, `,"events":[`...)
}

// post sends the batch.
func (o *Outbox) post() {
	o.posting = true
	o.batch.attempts++
	ctx, cut := context.WithTimeout(context.Background(), o.limits.timeout)
	o.cut = cut
	id, body, spans := o.batch.id, o.batch.body, o.spans(o.batch)
	go func() {
		defer cut()
		a := o.send(ctx, id, body, parentOf(spans))
		endAll(spans, a)
		o.answers <- a
	}()
}

// answered goes on behind the answer to a request.
func (o *Outbox) answered(a answer) {
	o.posting = false
	b := o.batch
	switch {
	case a.err == nil:
		if b.attempts > quietFailures {
			o.cfg.Log.Info("the backend takes webhooks again", "url", o.url, "attempts", b.attempts, "waiting", o.waiting())
		}
		o.figures.sent.Add(int64(b.events))
		for k, n := range b.dropped {
			o.cursor.dropped[k] -= n
		}
		o.cursor.missing = span{}
		o.done(b)
	case a.status == http.StatusGone:
		o.stop()
	default:
		o.failed(a)
	}
}

// done is called when a batch is not needed any more.
func (o *Outbox) done(b *batch) {
	for _, t := range b.taken {
		t.segment.left[t.kind]--
	}
	o.cursor.seq += uint64(o.cursor.pending)
	o.cursor.pending, o.cursor.heads = 0, b.ends
	for c, s := range o.spools {
		s.head = b.ends[c]
	}
	o.batch = nil
	if o.file == nil {
		o.save()
		return
	}
	o.unsaved = true // a crash before the next request is composed, or a second has passed, has this one sent again
}

// failed has the batch sent again later, or gives up what has waited for too long.
func (o *Outbox) failed(a answer) {
	b, now := o.batch, time.Now()
	o.figures.failed.Add(1)
	wait := max(o.backoff(b.attempts), a.after)
	o.due = now.Add(wait)
	if b.attempts == quietFailures || b.attempts%20 == 0 {
		o.cfg.Log.Warn("the backend takes no webhooks: they wait, and are sent again", "url", o.url, "err", a.err, "attempt", b.attempts, "again_in", wait.Round(time.Millisecond), "waiting", o.waiting())
	}
	if before := now.Add(-o.limits.giveUp).UnixMilli(); b.newest < before {
		o.giveUp(before)
	}
}

// quietFailures is how often a request may fail before that is logged.
const quietFailures = 1

// giveUp leaves out the batch, and what is behind it and as old.
func (o *Outbox) giveUp(before int64) {
	b := o.batch
	var old [kinds]int64
	for _, t := range b.taken {
		o.figures.dropped[t.kind].Add(1)
	}
	o.cfg.Log.Error("webhooks are given up: the backend took none for too long", "url", o.url, "events", b.events, "from_seq", b.from)
	o.skip(uint64(b.events))
	o.done(b)
	lost := func(g *segment) { o.lost(g, nil) }
	for c, s := range o.spools {
		r := s.reader()
		for rec, ok := r.peek(lost); ok && rec.time < before; rec, ok = r.peek(lost) {
			r.segment.left[rec.kind]--
			old[rec.kind]++
			r.skip(&rec)
		}
		s.head, o.cursor.heads[c] = r.place, r.place
	}
	o.drop(old, "they have waited for too long")
	due := o.due
	if o.compose(); o.batch != nil {
		o.due = due
	}
}

// stop is the end of telling: the backend wants no more. Another URL, or a restart, tries again.
func (o *Outbox) stop() {
	o.stopped.Store(true)
	b := o.batch
	o.cfg.Log.Error("the backend answered 410: it is told nothing any more until --webhook-url is another one, by a reload or a restart, or the server is started again", "url", o.url, "dropped", o.waiting())
	o.skip(uint64(b.events))
	o.done(b)
	for _, s := range o.spools {
		for k, n := range s.drop(0, s.next, nil) {
			o.figures.dropped[k].Add(n)
		}
		o.goOnBehind(s, s.next)
		s.next++
	}
	o.save()
}
