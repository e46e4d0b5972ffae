package nats

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/hubbub/broker"
)

// streamPrefix is what the names of our streams begin with.
const streamPrefix = "HB_"

// epochKey is where a stream's metadata have its nonce.
const epochKey = "hubbub-epoch"

// stream is the log of the rooms of a streamKey, as one node sees it.
type stream struct {
	b       *Broker
	key     streamKey
	name    string
	arrived chan *client.Msg
	jobs    jobs
	soon    chan struct{} // all tails are to be looked at now

	doubt *doubt // watch's own

	mu      sync.Mutex    // taken before a room's
	nonce   string        // "" while it isn't known
	ahead   time.Duration // the servers' clock before this process's, which isn't set
	making  chan struct{} // closed when who looks for the stream is done; nil where nobody does
	why     error         // why it wasn't found then
	rooms   map[string]*room
	lanes   map[string]*lane
	acked   uint64             // the last sequence of this log that was acknowledged here
	swept   uint64             // up to here each open room has got what there is, or will
	brought uint64             // up to here each has got it: the node has returned
	sweptAt time.Time          // when that was so
	gone    uint64             // an offset behind which nothing of this log had expired
	goneAt  time.Time          // when that was so; zero for never
	fresh   []*room            // were opened just now, and have to be looked at once more
	lasts   *lasts             // of this log; nil where they aren't kept
	led     context.Context    // done when another leader is elected
	elected context.CancelFunc // ends led
	over    bool
}

func newStream(b *Broker, key streamKey) *stream {
	st := &stream{
		b: b, key: key, name: fmt.Sprintf(streamPrefix+"%s_%d", key.class(), key.shard),
		arrived: make(chan *client.Msg, b.maxArrived), jobs: jobs{work: &b.work}, soon: make(chan struct{}, 1),
		rooms: map[string]*room{}, lanes: map[string]*lane{},
	}
	st.led, st.elected = context.WithCancel(b.ctx)
	return st
}

// term is done when the stream has another leader than now.
func (st *stream) term() context.Context {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.led
}

// newTerm says that another leader is elected.
func (st *stream) newTerm() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.elected()
	st.led, st.elected = context.WithCancel(st.b.ctx)
}

// began is when this process did: what is reckoned from there goes on when somebody sets its clock.
var began = time.Now()

// setClock says what a server's clock shows now.
func (st *stream) setClock(now time.Time) {
	if now.IsZero() {
		return // an old server doesn't say
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.ahead = now.Sub(began.Add(time.Since(began)))
}

// now is what the servers' clock shows.
func (st *stream) now() time.Time {
	st.mu.Lock()
	defer st.mu.Unlock()
	return began.Add(time.Since(began) + st.ahead)
}

// window is how long JetStream knows the id of a message.
func (st *stream) window() time.Duration { return min(st.b.cfg.Window, st.key.age) }

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:24])
}

// subject is where a room's groups are published, verb p, or republished, verb d.
func (st *stream) subject(verb, nonce, token string) string {
	return fmt.Sprintf("hb.%s.%s.%d.%s.%s", verb, st.key.class(), st.key.shard, nonce, token)
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
		Replicas:          cmp.Or(st.key.replicas, st.b.replicas()),
		Duplicates:        st.window(),
		FirstSeq:          firstSequence(time.Now()),
		Metadata:          map[string]string{epochKey: nonce},
		RePublish:         &jetstream.RePublish{Source: st.subject("p", nonce, "*"), Destination: st.subject("d", nonce, "{{wildcard(1)}}")},
	}
}

// firstSequence is where a log begins that is made now: above all of one that was lost, so that offsets grow even so,
// unless that one got more than 7,600 groups a second in all its time.
func firstSequence(now time.Time) uint64 {
	return uint64(max(1, now.Sub(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))>>17))
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
	if st.over {
		st.why = broker.ErrUnavailable
		made = make(chan struct{})
		close(made)
		return made
	}
	if st.making == nil {
		st.making = make(chan struct{})
		st.b.work.Go(st.find)
	}
	return st.making
}

func (st *stream) find() {
	nonce, last, err := st.adopt()
	if err != nil && st.b.ctx.Err() == nil {
		st.b.log.Warn("the log of rooms can't be reached", "stream", st.name, "error", err)
	}
	st.mu.Lock()
	close(st.making)
	st.making = nil
	if err != nil {
		why := fmt.Errorf("%w: %v", broker.ErrUnavailable, err)
		st.why = why
		unknown := st.nonce == ""
		st.mu.Unlock()
		if unknown {
			st.fail(why)
		}
		return
	}
	defer st.mu.Unlock()
	st.why = nil
	if st.nonce != nonce {
		lost := st.nonce != ""
		st.nonce, st.acked, st.goneAt = nonce, 0, time.Time{}
		st.swept, st.sweptAt, st.brought = last, time.Now(), last // each room is read from now on
		st.lasts.close()
		st.lasts = st.b.lastsOf(st.name, nonce, last)
		if lost {
			st.b.log.Error("the log of rooms was lost; another begins", "stream", st.name, "rooms open", len(st.rooms))
			for _, ro := range st.rooms {
				ro.moved()
			}
		}
	}
	for _, l := range st.lanes {
		l.goOn()
	}
}

// adopt is the nonce of the stream, which is made where it isn't there, and its last sequence. Of several nodes that
// make it at once one wins, and the others take its nonce. What fails is tried again: some of JetStream's questions are
// never answered, such as those of who loses that race, and servers that have just started don't know each other yet.
func (st *stream) adopt() (nonce string, last uint64, err error) {
	st.mu.Lock()
	known := st.nonce != ""
	st.mu.Unlock()
	for began, until := time.Now(), time.Now().Add(2*apiTimeout); ; {
		ctx, cancel := context.WithTimeout(st.b.ctx, apiTimeout/5)
		nonce, last, err = st.tryToAdopt(ctx, !known)
		cancel()
		if err == nil || errors.Is(err, errNotOurs) || time.Now().After(until) {
			return nonce, last, err
		}
		if st.b.server != nil && time.Since(began) > unwell {
			st.b.work.Go(st.b.server.look)
		}
		wait := retryAfter
		if known && errors.Is(err, jetstream.ErrStreamNotFound) {
			known, wait = false, 10*retryAfter // servers that have just started might not know it yet: it is asked for twice
		}
		if !st.b.pause(wait) {
			return nonce, last, err
		}
	}
}

var errNotOurs = errors.New("the stream is there, but isn't Hubbub's: remove it, or give Hubbub an account of its own")

func (st *stream) tryToAdopt(ctx context.Context, create bool) (nonce string, last uint64, err error) {
	s, err := st.b.js.Stream(ctx, st.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) && create {
		s, err = st.create(ctx)
	}
	if err != nil {
		return "", 0, err
	}
	info := s.CachedInfo()
	st.setClock(info.TimeStamp)
	nonce = info.Config.Metadata[epochKey]
	if !isNonce(nonce) {
		return "", 0, errNotOurs
	}
	config, want := info.Config, st.config(nonce)
	if config.Storage != want.Storage || !slices.Equal(config.Subjects, want.Subjects) {
		return "", 0, errNotOurs
	}
	if st.mend(&config, &want) {
		if _, err := st.b.js.UpdateStream(ctx, config); err != nil {
			return "", 0, err
		}
		st.b.log.Warn("the stream's configuration was another one, and is mended", "stream", st.name)
	}
	return nonce, info.State.LastSeq, nil
}

// create makes the stream.
func (st *stream) create(ctx context.Context) (jetstream.Stream, error) {
	if err := st.b.mayCreate(ctx); err != nil {
		return nil, err
	}
	return st.b.createStream(ctx, st.config(newNonce()))
}

// mayCreate is an error where the stores' cluster hasn't begun. It may be another one than a moment ago: it has become
// one of three stores, and takes over what the one had.
func (b *Broker) mayCreate(ctx context.Context) error {
	if b.stores == nil {
		return nil
	}
	if _, err := b.js.Stream(ctx, beginning); err != nil {
		return fmt.Errorf("the cluster has not begun yet: %w", err)
	}
	return nil
}

// createStream makes a stream. Where some of a cluster's stores are away it gets fewer replicas, and more when they are
// back: else nobody could publish.
func (b *Broker) createStream(ctx context.Context, config jetstream.StreamConfig) (s jetstream.Stream, err error) {
	for ; ; config.Replicas-- {
		s, err = b.js.CreateStream(ctx, config)
		var api *jetstream.APIError
		if config.Replicas <= 2 || !errors.As(err, &api) || api.ErrorCode != noPeers {
			return s, err
		}
	}
}

const noPeers = 10005 // JetStream's word for fewer servers than replicas

// mend has a stream's configuration be as it must be, and says whether it wasn't.
func (st *stream) mend(is, want *jetstream.StreamConfig) (changed bool) {
	before := *is
	is.MaxMsgsPerSubject, is.MaxAge, is.Discard = want.MaxMsgsPerSubject, want.MaxAge, want.Discard
	is.AllowDirect, is.Duplicates = want.AllowDirect, want.Duplicates
	if st.b.stores == nil {
		is.Replicas = max(is.Replicas, want.Replicas) // else stores see to it
	}
	changed = before.MaxMsgsPerSubject != is.MaxMsgsPerSubject || before.MaxAge != is.MaxAge || before.Discard != is.Discard ||
		before.AllowDirect != is.AllowDirect || before.Replicas != is.Replicas || before.Duplicates != is.Duplicates
	if is.RePublish == nil || *is.RePublish != *want.RePublish {
		is.RePublish, changed = want.RePublish, true
	}
	return changed
}

// class is what the names of these streams and their subjects have, but for the shard.
func (k streamKey) class() string {
	class := fmt.Sprintf("%d_%d", k.messages, k.age.Milliseconds())
	if k.replicas != 0 {
		class += fmt.Sprintf(replicasMark+"%d", k.replicas)
	}
	return class
}

// replicasMark stands in the name of a stream before the replicas that its rooms want.
const replicasMark = "_r"

// ownReplicas are those that the rooms of a stream want, by its name; 0 where they don't say.
func ownReplicas(stream string) (n int) {
	if _, mark, ok := strings.Cut(stream, replicasMark); ok {
		_, _ = fmt.Sscanf(mark, "%d_", &n) // else it isn't ours
	}
	return n
}

// newNonce is for a log that is made.
func newNonce() string { return rand.Text()[:12] }

// isNonce says whether it may stand in a subject.
func isNonce(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
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
	st.jobs.end()
	st.fail(broker.ErrUnavailable)
	st.lastsNow().close()
}
