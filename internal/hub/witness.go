package hub

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"sync"

	"example.com/hubbub/broker"
)

// What is known of a quiet room outlives the only node that has it open. No log says that nothing came in a room, once what
// is older than the room's age has gone; who has had the room open knows. So a node tells one other node, its witness, of each
// room in which nothing has come for half its age: nothing since that offset. And then for all of them together up to which
// offset of their log that is so still: each node knows what of a log its open rooms have been given (broker.Brought). Who opens
// the room when the node is gone asks all others (proof.go), the witness among them. Where the log itself still has all
// behind what the witness was told, nothing was missed.
//
// What a witness was told is about a stretch of a log that lies behind, and never becomes wrong: a node that has been cut off,
// or a witness that has been left for another, does no harm. What must not happen is that the stretch of a room grows over
// a message. So a message takes its room out of the account under the room's lock, what goes to the witness is numbered and
// comes as a whole or not at all, and up to where the log has been given to this node is read before the account is: whatever
// it has been given by then is in there.

const (
	callQuiet callKind = 129

	witnessEvery  = 1_000   // milliseconds between what a witness is told, at least
	quietEvery    = 5_000   // between looks for rooms that are quiet
	witnessAlive  = 20_000  // after which it is told also where nothing is new
	witnessKeeps  = 60_000  // what was told last, at least; else for as long as the ages of the rooms
	witnessFull   = 600_000 // until one that couldn't keep all is told anew
	quietUntold   = 1 << 16 // rooms that wait to be told; others are found later
	quietCost     = 128     // what a room counts for at the witness, beside its name
	quietAtOnce   = 64 << 10
	quietOverhead = 32 // bytes of a room in a call, beside its name
)

func init() { calls[callQuiet] = answerQuiet }

// quietNews is what a node tells its witness.
type quietNews struct {
	Life   uint64                       `json:"life"`             // of the account
	Number uint64                       `json:"number"`           // 1 begins it
	Spoke  []string                     `json:"spoke,omitempty"`  // nothing more is said of these
	Closed []string                     `json:"closed,omitempty"` // what was said of these before stays
	Quiet  map[string]map[string]uint64 `json:"quiet,omitempty"`  // by epoch and room: nothing since that offset
	UpTo   map[string]uint64            `json:"up_to,omitempty"`  // by epoch: what is told of its rooms, these and earlier ones, is so up to there
}

// quietAnswer is what a witness says to that.
type quietAnswer struct {
	Anew bool `json:"anew,omitempty"` // it doesn't have what came before
	Full bool `json:"full,omitempty"` // it can't keep the rooms of Quiet, and has the rest
}

// witness is what a node tells of its quiet rooms, and what others have told it. Guarded by mu.
type witness struct {
	mu sync.Mutex

	to      broker.NodeID // the node that is told; zero for none
	life    uint64        // grows when all has to be told anew
	number  uint64        // of what was told last
	sending *quietNews    // nobody knows yet whether it has arrived
	busy    bool          // it is on its way
	quiet   map[string]quietRoom
	spoke   map[string]bool   // rooms that were told, and of which that isn't so any more; true: since they are closed here
	many    int               // rooms that were told, or are in quiet
	upTo    map[string]uint64 // as it was told
	toldAt  int64
	anewAt  int64 // when it is told anew, since it was full; 0 for never
	lookAt  int64 // when it is looked whether something is to be told
	findAt  int64 // when rooms are looked for that are quiet

	heard map[broker.NodeID]*account
}

// quietRoom is a room in which nothing has come since an offset.
type quietRoom struct {
	epoch string
	since uint64
}

// account is what another node has told.
type account struct {
	life, number uint64
	at           int64                // when it was heard last
	age          int64                // of those of its rooms, in milliseconds, the longest
	logs         map[string]*quietLog // by epoch
	bytes        int64
	lookAt       int64 // when it is looked for rooms that were closed for long
}

// quietLog is what was told of rooms of one epoch.
type quietLog struct {
	rooms map[string]quietSpan
	upTo  uint64 // of those that are open there
}

// quietSpan is a part of a log in which nothing came in a room.
type quietSpan struct {
	since uint64
	upTo  uint64 // 0: the log's
	until int64  // when it is forgotten, where it is closed
}

// begin begins the account anew, for a node. w.mu is held.
func (w *witness) begin(to broker.NodeID) {
	w.to, w.number, w.sending, w.busy, w.many, w.anewAt = to, 0, nil, false, 0, 0
	w.quiet, w.spoke, w.upTo = map[string]quietRoom{}, map[string]bool{}, map[string]uint64{}
	w.life++ // what rooms have noted counts no more
	w.findAt = 0
}

// tell tells the witness what is new. tidy's goroutine.
func (w *witness) tell(h *Hub, now int64) {
	w.forget(h, now)
	if find, is := w.due(h, now); is {
		if find {
			h.findQuiet(now)
		}
		w.send(h, h.cluster.b.Brought())
	}
}

// due chooses who is the witness, and says whether something may be to be told, and rooms are to be looked for.
func (w *witness) due(h *Hub, now int64) (find, is bool) {
	peers, cut := h.cluster.view()
	w.mu.Lock()
	defer w.mu.Unlock()
	if now < w.lookAt || cut || h.stopping() {
		return false, false
	}
	w.lookAt = now + witnessEvery
	switch {
	case len(peers) == 0:
		if w.to != (broker.NodeID{}) {
			w.begin(broker.NodeID{})
		}
		return false, false
	case !slices.ContainsFunc(peers, func(p broker.Peer) bool { return p.ID == w.to }):
		w.begin(home(idsOf(h.cluster.id, peers)[1:], string(h.cluster.id[:])))
	case w.anewAt != 0 && now >= w.anewAt && !w.busy:
		w.begin(w.to)
	}
	if find = now >= w.findAt; find {
		w.findAt = now + quietEvery
	}
	return find, true
}

// send sends what is new, with up to where the logs have been brought: that was read before.
func (w *witness) send(h *Hub, brought []broker.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy {
		return
	}
	now := clock()
	if w.sending == nil {
		if w.sending = w.news(now, brought); w.sending == nil {
			return
		}
	}
	w.busy, w.toldAt = true, now
	life := w.life
	h.cluster.ask(w.to, callQuiet, w.sending, func(answer []byte, err error) {
		var a quietAnswer
		err = decodeAnswer(answer, err, &a)
		if w.answered(life, a, err) {
			w.send(h, nil)
		}
	})
}

// answered takes the witness's answer, and says whether there is more to tell.
func (w *witness) answered(life uint64, a quietAnswer, err error) (more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.life != life {
		return false
	}
	switch w.busy = false; {
	case err != nil: // it may have arrived; the same is told again
		return false
	case a.Anew:
		w.begin(w.to)
		return false
	}
	w.sending = nil
	if a.Full && w.anewAt == 0 {
		w.anewAt = clock() + witnessFull
	}
	return len(w.quiet)+len(w.spoke) > 0
}

// news is what is to be told; nil for nothing. w.mu is held.
func (w *witness) news(now int64, brought []broker.Position) *quietNews {
	if w.many == 0 && len(w.spoke) == 0 {
		return nil
	}
	n := &quietNews{Life: w.life, Quiet: map[string]map[string]uint64{}, UpTo: map[string]uint64{}}
	left := quietAtOnce
	for name, closed := range w.spoke {
		if left -= len(name) + quietOverhead; left < 0 {
			break
		}
		if closed {
			n.Closed = append(n.Closed, name)
		} else {
			n.Spoke = append(n.Spoke, name)
		}
		delete(w.spoke, name)
	}
	if len(w.spoke) == 0 { // else what was told of those that are left isn't so any more further on
		for name, q := range w.quiet {
			if left -= len(name) + quietOverhead; left < 0 {
				break
			}
			if n.Quiet[q.epoch] == nil {
				n.Quiet[q.epoch] = map[string]uint64{}
			}
			n.Quiet[q.epoch][name] = q.since
			delete(w.quiet, name)
		}
		for _, at := range brought {
			if at.Offset > w.upTo[at.Epoch] {
				n.UpTo[at.Epoch], w.upTo[at.Epoch] = at.Offset, at.Offset
			}
		}
	}
	if len(n.Spoke)+len(n.Closed)+len(n.Quiet)+len(n.UpTo) == 0 && now < w.toldAt+witnessAlive {
		return nil
	}
	w.number++
	n.Number = w.number
	return n
}

// findQuiet finds the rooms of which the witness is to be told.
func (h *Hub) findQuiet(now int64) {
	w := &h.cluster.witness
	for i := range h.rooms {
		h.rooms[i].each(func(r *room) {
			if q, is := r.quiet(now); is {
				w.mu.Lock()
				if w.to != (broker.NodeID{}) && r.remote.told != w.life && len(w.quiet) < quietUntold {
					w.quiet[r.name] = q
					w.many++
					r.remote.told = w.life
				}
				w.mu.Unlock()
			}
		})
	}
}

// quiet says since when nothing has come in the room, where that is for half of its age. r.mu is held.
func (r *room) quiet(now int64) (q quietRoom, is bool) {
	if r.gone || r.remote == nil || !r.remote.log.ready || !r.keeps() {
		return q, false
	}
	at := r.position()
	q, last := quietRoom{at.Epoch, r.log.Floor()}, r.remote.begun
	if n := r.log.Len(); n > 0 {
		e := r.log.At(n - 1)
		q.since, last = e.Offset, max(last, e.At)
	}
	return q, now-last >= r.policy().History.Age.Milliseconds()/2
}

// speaks takes the room out of what is told of quiet ones: something has come, or, where it is closed, nobody here follows
// its log any more. It must be called before that is over. r.mu is held.
func (h *Hub) speaks(r *room, closed bool) {
	if r.remote == nil || r.remote.told == 0 {
		return
	}
	w := &h.cluster.witness
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.remote.told == w.life {
		w.many--
		if _, untold := w.quiet[r.name]; untold {
			delete(w.quiet, r.name)
		} else {
			w.spoke[r.name] = closed
		}
	}
	r.remote.told = 0
}

// answerQuiet takes what another node tells this one as its witness.
func answerQuiet(h *Hub, from broker.NodeID, question []byte, reply func(any, error)) {
	var n quietNews
	if err := json.Unmarshal(question, &n); err != nil {
		reply(nil, err)
		return
	}
	reply(h.cluster.witness.hears(h, from, &n), nil)
}

func (w *witness) hears(h *Hub, from broker.NodeID, n *quietNews) (answer quietAnswer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.stopping() {
		return quietAnswer{Anew: true}
	}
	a := w.heard[from]
	switch {
	case n.Number == 1:
		w.drop(h, from)
		a = &account{life: n.Life, logs: map[string]*quietLog{}}
		if w.heard == nil {
			w.heard = map[broker.NodeID]*account{}
		}
		w.heard[from] = a
	case a == nil || a.life != n.Life || n.Number != a.number && n.Number != a.number+1:
		w.drop(h, from)
		return quietAnswer{Anew: true}
	}
	a.at = clock()
	if n.Number == a.number {
		return answer // it has come before
	}
	a.number = n.Number
	for _, log := range a.logs {
		for _, name := range n.Spoke {
			a.forget(h, log, name)
		}
		for _, name := range n.Closed { // while it was open nothing came up to here
			switch span, is := log.rooms[name]; {
			case !is || span.upTo != 0: // it was closed in this log before, and is in another one now
			case log.upTo != 0:
				log.rooms[name] = quietSpan{span.since, log.upTo, a.at + ageOf(h, name)}
			default:
				a.forget(h, log, name)
			}
		}
	}
	for epoch, rooms := range n.Quiet {
		log := a.log(epoch)
		for name, since := range rooms {
			if _, is := log.rooms[name]; !is {
				if h.loop.Overloaded() || h.Kept(KeptQuiet) > h.cfg().MaxBufferedBytes/16 {
					answer.Full = true
					continue
				}
				a.keep(h, quietCost+int64(len(name)))
			}
			log.rooms[name] = quietSpan{since: since}
			a.age = max(a.age, ageOf(h, name))
		}
	}
	for epoch, offset := range n.UpTo {
		log := a.log(epoch)
		log.upTo = max(log.upTo, offset)
	}
	return answer
}

func ageOf(h *Hub, room string) (ms int64) {
	return h.cfg().Policies.For(room).History.Age.Milliseconds()
}

// forget forgets what was told of a room.
func (a *account) forget(h *Hub, log *quietLog, room string) {
	if _, is := log.rooms[room]; is {
		delete(log.rooms, room)
		a.keep(h, -quietCost-int64(len(room)))
	}
}

func (a *account) keep(h *Hub, bytes int64) {
	a.bytes += bytes
	h.keep(KeptQuiet, nil, bytes)
}

func (a *account) log(epoch string) *quietLog {
	log := a.logs[epoch]
	if log == nil {
		log = &quietLog{rooms: map[string]quietSpan{}}
		a.logs[epoch] = log
	}
	return log
}

// nothingSince is an offset behind which nothing came in a room, where nothing came behind to: to itself where nobody has
// told better.
func (w *witness) nothingSince(room, epoch string, to uint64) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	for better := true; better; {
		better = false
		for _, a := range w.heard {
			if log := a.logs[epoch]; log != nil {
				if span, is := log.rooms[room]; is && span.since < to && cmp.Or(span.upTo, log.upTo) >= to {
					to, better = span.since, true
				}
			}
		}
	}
	return to
}

// drop forgets what a node has told. w.mu is held.
func (w *witness) drop(h *Hub, from broker.NodeID) {
	if a := w.heard[from]; a != nil {
		a.keep(h, -a.bytes)
		delete(w.heard, from)
	}
}

// forget drops what can hardly be joined to a log any more: of rooms that are closed, of nodes that are gone, or have another
// witness.
func (w *witness) forget(h *Hub, now int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for from, a := range w.heard {
		if now-a.at >= max(a.age, witnessKeeps) {
			w.drop(h, from)
			continue
		}
		if now < a.lookAt {
			continue
		}
		a.lookAt = now + quietEvery
		for _, log := range a.logs {
			for room, span := range log.rooms {
				if span.until != 0 && now >= span.until {
					a.forget(h, log, room)
				}
			}
		}
	}
}

// stop forgets all.
func (w *witness) stop(h *Hub) { w.forget(h, math.MaxInt64) }

// recount counts what others have told.
func (w *witness) recount(c *recount) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.heard {
		for _, log := range a.logs {
			for name := range log.rooms {
				c.keep(KeptQuiet, nil, quietCost+int64(len(name)))
			}
		}
	}
}
