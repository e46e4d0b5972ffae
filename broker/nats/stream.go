package nats

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/hubbub/broker"
)

// maxArrived is how many groups may have arrived at a stream and wait. What is too much is dropped, and shows in the
// chain of the next.
const maxArrived = 8192

// epochKey is where a stream's metadata have its nonce.
const epochKey = "hubbub-epoch"

// stream is the log of the rooms of a streamKey, as one node sees it.
type stream struct {
	b       *Broker
	key     streamKey
	name    string
	arrived chan *client.Msg

	mu     sync.Mutex
	nonce  string        // "" while it isn't known
	making chan struct{} // closed when who looks for the stream is done; nil where nobody does
	why    error         // why it wasn't found then
	rooms  map[string]*room
	lanes  map[string]*lane
	over   bool
}

func newStream(b *Broker, key streamKey) *stream {
	return &stream{
		b: b, key: key, name: fmt.Sprintf("HB_%d_%d_%d", key.messages, key.age.Milliseconds(), key.shard),
		arrived: make(chan *client.Msg, maxArrived), rooms: map[string]*room{}, lanes: map[string]*lane{},
	}
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:24])
}

// subject is where a room's groups are published, verb p, or republished, verb d.
func (st *stream) subject(verb, nonce, token string) string {
	return fmt.Sprintf("hb.%s.%d_%d.%d.%s.%s", verb, st.key.messages, st.key.age.Milliseconds(), st.key.shard, nonce, token)
}

// config is the stream's, made anew with a nonce.
func (st *stream) config(nonce string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              st.name,
		Subjects:          []string{st.subject("p", nonce, "*")},
		MaxMsgsPerSubject: int64(st.key.messages),
		MaxAge:            st.key.age,
		Discard:           jetstream.DiscardOld,
		Storage:           jetstream.FileStorage, // one in memory comes back empty, as if nothing had ever been in it
		AllowDirect:       true,
		Replicas:          st.b.cfg.Replicas,
		Duplicates:        min(st.b.cfg.Window, st.key.age),
		FirstSeq:          firstSequence(time.Now()),
		Metadata:          map[string]string{epochKey: nonce},
		RePublish:         &jetstream.RePublish{Source: st.subject("p", nonce, "*"), Destination: st.subject("d", nonce, "{{wildcard(1)}}")},
	}
}

// firstSequence is where a log begins that is made now: above all of one that was lost, so that offsets grow even so.
func firstSequence(now time.Time) uint64 {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return uint64(max(1, int64(now.Sub(begin)/time.Second)<<13))
}

// await waits until the stream is known, and says its nonce. It must not be called by what receives.
func (st *stream) await(ctx context.Context) (nonce string, err error) {
	st.mu.Lock()
	if st.nonce != "" {
		defer st.mu.Unlock()
		return st.nonce, nil
	}
	made := st.look()
	st.mu.Unlock()
	select {
	case <-made:
	case <-ctx.Done():
		return "", broker.ErrUnavailable
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.nonce == "" {
		return "", st.why
	}
	return st.nonce, nil
}

// look has the stream looked for, or made where there is none. st.mu is held.
func (st *stream) look() (made chan struct{}) {
	if st.making == nil {
		st.making = make(chan struct{})
		st.b.work.Go(st.find)
	}
	return st.making
}

func (st *stream) find() {
	nonce, err := st.adopt()
	if err != nil && st.b.ctx.Err() == nil {
		st.b.log.Warn("the log of rooms can't be reached", "stream", st.name, "error", err)
	}
	st.mu.Lock()
	close(st.making)
	st.making = nil
	lost := err == nil && st.nonce != "" && st.nonce != nonce
	if err == nil {
		st.nonce, st.why = nonce, nil
		for _, l := range st.lanes {
			l.goOn()
		}
	} else {
		st.why = fmt.Errorf("%w: %v", broker.ErrUnavailable, err)
	}
	if lost {
		for _, ro := range st.rooms {
			ro.moved()
		}
	}
	unknown := st.nonce == ""
	st.mu.Unlock()
	if unknown {
		st.fail(st.why)
	}
}

// adopt is the nonce of the stream, which is made where it isn't there. Of several nodes that make it at once one wins,
// and the others take its nonce. What fails is tried again: some of JetStream's questions are never answered, such as
// those of who loses that race, and servers that have just started don't know each other yet.
func (st *stream) adopt() (nonce string, err error) {
	for until := time.Now().Add(2 * apiTimeout); ; {
		ctx, cancel := context.WithTimeout(st.b.ctx, apiTimeout/5)
		nonce, err = st.tryToAdopt(ctx)
		cancel()
		if err == nil || errors.Is(err, errNotOurs) || time.Now().After(until) || !st.b.pause(retryAfter) {
			return nonce, err
		}
	}
}

var errNotOurs = errors.New("the stream is there, but isn't Hubbub's")

func (st *stream) tryToAdopt(ctx context.Context) (nonce string, err error) {
	s, err := st.b.js.Stream(ctx, st.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = st.b.js.CreateStream(ctx, st.config(rand.Text()[:12]))
	}
	if err != nil {
		return "", err
	}
	config := s.CachedInfo().Config
	nonce = config.Metadata[epochKey]
	if nonce == "" {
		return "", errNotOurs
	}
	if want := st.config(nonce); config.Duplicates != want.Duplicates || config.Replicas != want.Replicas {
		config.Duplicates, config.Replicas = want.Duplicates, want.Replicas
		if _, err := st.b.js.UpdateStream(ctx, config); err != nil {
			return "", err
		}
	}
	return nonce, nil
}

// verify sees whether the stream is still the same, and whether each open room has got all of it.
func (st *stream) verify() {
	st.mu.Lock()
	if st.over {
		st.mu.Unlock()
		return
	}
	nonce, made := st.nonce, st.look()
	st.mu.Unlock()
	<-made
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.nonce != nonce {
		return // each room is read anew
	}
	for _, ro := range st.rooms {
		ro.check()
	}
}

// receive brings what arrives to the rooms, until stop.
func (st *stream) receive() {
	for {
		select {
		case m := <-st.arrived:
			st.mu.Lock()
			ro := st.rooms[m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]]
			st.mu.Unlock()
			if ro != nil {
				ro.arrived(m)
			}
		case <-st.b.ctx.Done():
			return
		}
	}
}

// stop ends what waits.
func (st *stream) stop() {
	st.mu.Lock()
	st.over = true
	st.mu.Unlock()
	st.fail(broker.ErrUnavailable)
}
