package nats

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/hubbub/broker"
)

// A group that was stored may never come: a server republishes it only to whom it knows to be interested, only if it was
// the leader already when it got it, and routes and clients that are slow lose some. The next group of the room shows it in
// its chain. Where none follows, looking at the rooms' tails does.
const (
	tailEvery = 10 * time.Second
	// settled is when all servers of a cluster know surely that a room is open here.
	settled  = 2 * time.Second
	tailsOf  = 1024 // rooms in a question: no more are answered
	tailSlow = 500 * time.Millisecond
)

// watch looks at the tails of the stream's open rooms, until the broker ends.
func (st *stream) watch() {
	all := time.NewTicker(max(100*time.Millisecond, min(tailEvery, st.key.age/4)))
	defer all.Stop()
	fresh := time.NewTicker(settled)
	defer fresh.Stop()
	var young []*room // too young to be looked at
	for again := false; ; {
		select {
		case <-all.C:
			again = !st.sweep(nil) || again
		case <-st.soon:
			again = true // and once more when what has changed is known everywhere
			st.sweep(nil)
		case <-fresh.C:
			old := young
			st.mu.Lock()
			young, st.fresh = st.fresh, nil
			st.mu.Unlock()
			switch {
			case again:
				again = false
				st.sweep(nil)
			case len(old) > 0 && !st.sweep(old):
				young = append(young, old...)
			}
		case <-st.b.ctx.Done():
			return
		}
	}
}

// sweepSoon has all tails looked at now. It doesn't wait.
func (st *stream) sweepSoon() {
	select {
	case st.soon <- struct{}{}:
	default:
	}
}

// opened has a room looked at when all servers know of it.
func (st *stream) opened(ro *room) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.fresh = append(st.fresh, ro)
}

// sweep has the rooms read on that have missed something, of all that are open or of some. Where nothing has been stored since
// all were looked at last, it asks for none of them. It says whether it could see.
func (st *stream) sweep(some []*room) bool {
	st.mu.Lock()
	nonce, swept, sweptAt := st.nonce, st.swept, st.sweptAt
	idle := len(st.rooms) == 0
	st.mu.Unlock()
	if idle || nonce == "" {
		return true
	}
	ctx, cancel := context.WithTimeout(st.b.ctx, 2*apiTimeout)
	defer cancel()
	asked := time.Now()
	seen := st.seen(nonce)
	info, err := st.info(ctx, nonce)
	if err != nil {
		st.mu.Lock()
		st.look()
		st.mu.Unlock()
		return false
	}
	last := info.State.LastSeq
	if last < seen && (st.doubt == nil || st.doubt.nonce != nonce) {
		st.doubt = &doubt{nonce: nonce, seen: seen, last: last, leader: leader(&info), id: "d" + newNonce(), at: info.TimeStamp}
	}
	if st.doubt != nil {
		return st.resolve(ctx)
	}
	if last == swept {
		st.sweptTo(nonce, last, asked)
		st.broughtTo(nonce, last)
		return true
	}
	rooms := some
	if rooms == nil {
		rooms = st.open() // who comes later reads what there is now
	}
	if asked.Sub(sweptAt) > st.key.age-st.key.age/4 {
		gone, err := st.expired(ctx, nonce)
		if err != nil {
			return false
		}
		if gone > (swept+1)<<groupBits { // nobody knows whose that was
			for _, ro := range rooms {
				ro.checkUpTo(nonce, gone>>groupBits)
			}
			if gone>>groupBits >= last && some == nil { // all of it, and each room is read
				st.sweptTo(nonce, last, asked)
				st.broughtTo(nonce, last)
				return true
			}
		}
	}
	t := &tails{st: st, ctx: ctx, nonce: nonce, from: swept + 1, to: last, proven: true}
	for some := range slices.Chunk(rooms, tailsOf) {
		if err := t.ask(some); err != nil {
			st.b.log.Warn("the ends of rooms' logs can't be seen", "stream", st.name, "error", err)
			return false
		}
	}
	if len(t.late) > 0 && st.b.pause(tailSlow) { // what is just on its way is no reason
		for ro, seq := range t.late {
			ro.checkUpTo(nonce, seq)
		}
	}
	if t.proven && some == nil {
		st.sweptTo(nonce, last, asked)
		st.broughtTo(nonce, last)
	}
	return true
}

func (st *stream) sweptTo(nonce string, seq uint64, at time.Time) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.nonce == nonce {
		st.swept, st.sweptAt = seq, at
	}
}

// broughtTo notes that each open room has got what there is up to a sequence, once that is so: those that have missed
// something are being read. It waits a moment for them; the next look does else.
func (st *stream) broughtTo(nonce string, seq uint64) {
	st.mu.Lock()
	known := st.nonce != nonce || st.brought >= seq
	st.mu.Unlock()
	if known {
		return
	}
	rooms := st.open()
	for tries := 0; ; tries++ {
		rooms = slices.DeleteFunc(rooms, func(ro *room) bool { return ro.isWhole(nonce) })
		if len(rooms) == 0 {
			break
		}
		if tries == broughtTries || !st.b.pause(20*time.Millisecond) {
			return
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.nonce == nonce {
		st.brought = max(st.brought, seq)
	}
}

// broughtTries is how often it is looked whether all rooms have been read, in one look at the tails: for half a second.
const broughtTries = 25

// isWhole says that nothing that is known to have come in a log is still to be delivered. A room that is being opened
// reads it, and nothing is asked of it until then, unless it has to be read once more behind that.
func (ro *room) isWhole(nonce string) bool {
	ro.turn.Lock() // what is just being delivered has been, then
	defer ro.turn.Unlock()
	ro.mu.Lock()
	defer ro.mu.Unlock()
	switch {
	case ro.closed:
		return true
	case !ro.opened:
		return !ro.again && !ro.lost
	}
	return ro.live && ro.nonce == nonce
}

// Brought implements broker.Broker.
func (b *Broker) Brought() []broker.Position {
	up := []broker.Position{} // nil would be that it doesn't say
	b.mu.Lock()
	streams := slices.Collect(maps.Values(b.streams))
	b.mu.Unlock()
	for _, st := range streams {
		st.mu.Lock()
		if st.nonce != "" && len(st.rooms) > 0 {
			up = append(up, broker.Position{Epoch: st.nonce + b.mark(), Offset: st.brought<<groupBits | (maxGroup - 1)})
		}
		st.mu.Unlock()
	}
	return up
}

// open are the rooms that are open now.
func (st *stream) open() (rooms []*room) {
	st.mu.Lock()
	defer st.mu.Unlock()
	rooms = make([]*room, 0, len(st.rooms))
	for _, ro := range st.rooms {
		rooms = append(rooms, ro)
	}
	return rooms
}

// seen is the last sequence of a log that this node knows to have been stored.
func (st *stream) seen(nonce string) (seq uint64) {
	for _, ro := range st.open() {
		ro.mu.Lock()
		if ro.nonce == nonce {
			seq = max(seq, ro.last)
		}
		ro.mu.Unlock()
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.nonce == nonce {
		seq = max(seq, st.acked)
	}
	return seq
}

// doubt is about a stream that says of itself that it has less than this node has seen: its disks weren't synced when the
// power failed, or somebody put back an older copy; or who has said so was cut off, and doesn't know yet that it isn't the
// leader any more. What is stored next would stand at offsets that others have had.
type doubt struct {
	nonce      string
	seen, last uint64
	leader     string    // who has said so
	at         time.Time // by its clock
	id         string    // of the message that resolves it
}

// resolve has the stream become another log where it has lost the end of this one. That is so where it gives a sequence once
// more, or where who has said so leads it still behind something that it could store, and hasn't got what was seen: it may
// have been cut off, and be elected again. It says whether nothing is lost.
func (st *stream) resolve(ctx context.Context) bool {
	d := st.doubt
	ack, err := st.b.js.Publish(ctx, st.subject("p", d.nonce, markerToken), nil, jetstream.WithMsgID(d.id))
	info, errInfo := st.info(ctx, d.nonce)
	if errInfo != nil {
		st.mu.Lock()
		st.look()
		if st.nonce != d.nonce {
			st.doubt = nil // another node has resolved it
		}
		st.mu.Unlock()
		return false
	}
	if err != nil {
		return false // it may be stored even so; the same id says where
	}
	if info.State.LastSeq < ack.Sequence {
		return false // a server answers that was cut off as leader: so it may have done when the doubt began
	}
	lost := ack.Sequence <= d.seen
	if !lost && leader(&info) == d.leader {
		stored, err := st.storedAt(ctx, d.seen)
		if err != nil {
			return false
		}
		lost = stored.IsZero() || stored.After(d.at)
	}
	st.doubt = nil
	if !lost {
		return true
	}
	st.b.log.Error("the log of rooms has lost what was stored", "stream", st.name, "last", d.last, "seen", d.seen)
	config := st.config(newNonce())
	config.FirstSeq = info.Config.FirstSeq
	if _, err := st.b.js.UpdateStream(ctx, config); err != nil {
		st.b.log.Error("another log can't be begun", "stream", st.name, "error", err)
		st.doubt = d
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.look()
	return false
}

// markerToken stands where a room's token does, and is none.
const markerToken = "marker"

func leader(info *jetstream.StreamInfo) string {
	if info.Cluster == nil {
		return "" // there is one server
	}
	return info.Cluster.Leader
}

// tails are the last groups of rooms.
type tails struct {
	st       *stream
	ctx      context.Context
	nonce    string
	from, to uint64           // the sequences that are of interest
	late     map[*room]uint64 // those that aren't where their last group is
	proven   bool             // who has answered had all up to there
}

// ask has a replica say of at most tailsOf rooms which have a group behind from.
func (t *tails) ask(rooms []*room) error {
	prefix := t.st.subject("p", t.nonce, "")
	subjects, by := make([]string, len(rooms)), make(map[string]*room, len(rooms))
	for i, ro := range rooms {
		subjects[i], by[ro.token] = prefix+ro.token, ro
	}
	var other string // the subject of the last group of all, where it is none of theirs
	for from := t.from; ; {
		next := from
		question := map[string]any{"multi_last": subjects, "seq": from, "max_bytes": batchBytes}
		end, err := t.st.direct(t.ctx, question, func(m *client.Msg) error {
			seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
			if err != nil {
				return errForeign
			}
			next = seq + 1
			if ro := by[strings.TrimPrefix(m.Header.Get("Nats-Subject"), prefix)]; ro != nil && ro.isBehind(t.nonce, seq) {
				if t.late == nil {
					t.late = map[*room]uint64{}
				}
				t.late[ro] = seq
			}
			return nil
		})
		switch {
		case err != nil:
			return err
		case end == nil: // nobody has answered
		case end.Header.Get("Status") == "404" && other == "": // none of them has a group, or a replica that is behind has answered
			if other, err = t.st.subjectOf(t.ctx, t.to); err != nil {
				return err
			}
			if other == "" {
				t.proven = false
				return nil
			}
			subjects = append(subjects, other) // who answers with that one says up to where it has looked
			continue
		case end.Header.Get("Status") == "404":
			t.proven = false
			return nil
		case end.Header.Get("Nats-Num-Pending") != "0": // these were batchBytes
			if next == from {
				return errors.New("the answer doesn't go on where the last one ended")
			}
			from = next
			continue
		default:
			if upTo, _ := strconv.ParseUint(end.Header.Get("Nats-UpTo-Sequence"), 10, 64); upTo >= t.to {
				return nil
			}
		}
		if !t.st.b.pause(20 * time.Millisecond) {
			return t.ctx.Err()
		}
		if err := t.ctx.Err(); err != nil {
			return err
		}
	}
}
