package nats

import (
	"encoding/binary"
	"hash/fnv"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
)

// lasts say where the last group of each room of a log stands, also when it has expired and the log doesn't know any
// more: so that nothing came to a quiet room since is known after a restart, too. They are kept where this process
// alone publishes to the log (Start), in a file of fixed size by the hash of the room's name: rooms that share a
// place may be taken to have had what the other one had, never the other way round. What is written is in the
// system's hands, as what the log acknowledges; a power cut begins another epoch.
//
// A place is unknown while a group is on its way, so that a process which is killed meanwhile leaves no lie.
type lasts struct {
	log *slog.Logger

	mu    sync.Mutex
	f     *os.File // nil once it couldn't be written, or is closed
	since uint64   // groups up to this sequence aren't known of
	onWay map[int64]*lastOnWay
}

// lastOnWay is a place that groups are on their way to.
type lastOnWay struct {
	groups int
	before uint64 // what stood there
	last   uint64 // the latest that was acknowledged since
	fresh  bool   // one of them was new
	unsure bool   // nobody knows of one whether it was stored
}

const (
	lastsMagic  = 0x48424c4153545331 // HBLASTS1
	lastsHeader = 16                 // the magic and since
	lastsPlaces = 1 << 16
	lastUnknown = math.MaxUint64
	lastsFolder = "lasts" // in the server's
)

// openLasts opens the file of a log whose last sequence is given. One that doesn't know of all up to there, as where
// the log was another process's meanwhile, begins anew. nil where there can be none.
func openLasts(dir, stream, nonce string, last uint64, log *slog.Logger) *lasts {
	l := &lasts{log: log, onWay: map[int64]*lastOnWay{}}
	name := stream + "-" + nonce
	err := os.MkdirAll(filepath.Join(dir, lastsFolder), 0o700)
	if err == nil {
		old, _ := filepath.Glob(filepath.Join(dir, lastsFolder, stream+"-*"))
		for _, path := range old {
			if filepath.Base(path) != name {
				_ = os.Remove(path) // of a log that was lost; it takes no more than its place
			}
		}
		l.f, err = os.OpenFile(filepath.Join(dir, lastsFolder, name), os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		log.Warn("what is known of quiet rooms can't be kept", "stream", stream, "error", err)
		return nil
	}
	if !l.read(last) {
		l.begin(last)
	}
	return l
}

// read says whether the file knows of all up to the log's last sequence. Each place that is unknown may be that of a
// group which was on its way when the process was killed.
func (l *lasts) read(last uint64) bool {
	b := make([]byte, lastsHeader+8*lastsPlaces)
	if n, err := l.f.ReadAt(b, 0); err != nil || n != len(b) || binary.LittleEndian.Uint64(b) != lastsMagic {
		return false
	}
	l.since = binary.LittleEndian.Uint64(b[8:])
	known, unknown := l.since, uint64(0)
	for b = b[lastsHeader:]; len(b) > 0; b = b[8:] {
		switch seq := binary.LittleEndian.Uint64(b); seq {
		case lastUnknown:
			unknown++
		default:
			known = max(known, seq)
		}
	}
	return last <= known+unknown
}

func (l *lasts) begin(last uint64) {
	l.since = last
	header := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, lastsMagic), last)
	err := l.f.Truncate(0)
	if err == nil {
		err = l.f.Truncate(lastsHeader + 8*lastsPlaces)
	}
	if err == nil {
		_, err = l.f.WriteAt(header, 0)
	}
	l.failed(err)
}

// failed gives the file up where it can't be written: what it says may not be true any more.
func (l *lasts) failed(err error) {
	if err == nil || l.f == nil {
		return
	}
	l.log.Warn("what is known of quiet rooms can't be kept", "file", l.f.Name(), "error", err)
	_ = os.Remove(l.f.Name())
	_ = l.f.Truncate(0) // one of the two does it
	l.f.Close()
	l.f = nil
}

func (l *lasts) close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}

func placeOf(token string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(token)) // never fails
	return lastsHeader + 8*int64(h.Sum64()%lastsPlaces)
}

// sent notes that a group of a room is on its way, before it is.
func (l *lasts) sent(token string) {
	l.change(token, func(w *lastOnWay) { w.groups++ })
}

// told notes what became of it: its sequence, 0 where nobody knows that; fresh says that it was stored by this try.
func (l *lasts) told(token string, seq uint64, fresh bool) {
	l.change(token, func(w *lastOnWay) {
		w.groups--
		w.last, w.fresh, w.unsure = max(w.last, seq), w.fresh || fresh, w.unsure || seq == 0
	})
}

// change is called for the two in any order.
func (l *lasts) change(token string, how func(w *lastOnWay)) {
	if l == nil {
		return
	}
	place := placeOf(token)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return
	}
	w := l.onWay[place]
	if w == nil {
		w = &lastOnWay{before: l.at(place)}
		l.onWay[place] = w
		l.put(place, lastUnknown)
	}
	if how(w); w.groups != 0 {
		return
	}
	delete(l.onWay, place)
	switch {
	case w.unsure:
	case w.before != lastUnknown:
		l.put(place, max(w.before, w.last))
	case w.fresh:
		l.put(place, w.last) // which stands behind what nobody knew
	}
}

func (l *lasts) at(place int64) uint64 {
	var b [8]byte
	if _, err := l.f.ReadAt(b[:], place); err != nil {
		return lastUnknown
	}
	return binary.LittleEndian.Uint64(b[:])
}

// put: l.mu is held.
func (l *lasts) put(place int64, seq uint64) {
	if l.f == nil {
		return
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], seq)
	_, err := l.f.WriteAt(b[:], place)
	l.failed(err)
}

// of is a sequence behind which a room has had nothing; false where that isn't known.
func (l *lasts) of(token string) (seq uint64, ok bool) {
	if l == nil {
		return 0, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	place := placeOf(token)
	if l.f == nil || l.onWay[place] != nil {
		return 0, false
	}
	seq = l.at(place)
	return max(seq, l.since), seq != lastUnknown
}

// lastsOf opens those of a stream, where they are kept.
func (b *Broker) lastsOf(stream, nonce string, last uint64) *lasts {
	if b.server == nil || !b.cfg.Alone {
		return nil
	}
	return openLasts(b.server.dir, stream, nonce, last, b.log)
}

func (st *stream) lastsNow() *lasts {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.lasts
}
