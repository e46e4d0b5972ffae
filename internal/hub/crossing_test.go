package hub

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/hubbub/broker"
	"example.com/hubbub/broker/brokertest"
	"example.com/hubbub/internal/auth"
	"example.com/hubbub/internal/protocol"
)

// The next handshake of a client whose first one was given up gets the session as well, and is still at it when the node
// that had it asks: then it stays on its way, and is there alone in the end.
func TestASessionIsOnItsWayToTheLastHandshake(t *testing.T) {
	t.Parallel()
	nodes := nodesOf(t, brokertest.NewMemory(), 2, func(*Config) {})
	a, b := nodes[0], nodes[1]
	c := a.comes("", "ann")
	id, to := idOf(c), b.inner.ID()
	first := b.h.cluster.moves.begin(t.Context(), id)
	claim := func(nonce uint64) *movedSession {
		got, err := a.h.claimed(t.Context(), to, claimQuestion{ID: id, User: "ann", Nonce: nonce})
		if err != nil || got.Session == nil {
			t.Fatalf("got %+v, %v", got, err)
		}
		return got.Session
	}
	claim(first.nonce)
	b.h.cluster.moves.finish(first)
	last := b.h.cluster.moves.begin(t.Context(), id)
	m := claim(last.nonce)
	var asked atomic.Int32
	a.losing(func(k callKind) (bool, bool) {
		if k == callHas {
			asked.Add(1)
		}
		return false, false
	})
	until(t, "it was asked again", func() bool { return asked.Load() > 1 || a.h.handing(id) == nil })
	if a.h.handing(id) == nil {
		t.Error("it isn't on its way any more")
	}
	if !b.h.install(id, m, netip.Addr{}) {
		t.Error("it isn't taken")
	}
	b.h.cluster.moves.took(id, last.nonce)
	b.h.cluster.moves.finish(last)
	b.h.cluster.arrived(id, last.nonce, a.inner.ID())
	expectOn(t, id, 1, nodes...)
	audited(t, nodes...)
}

// A try of which the handshake has given up waiting still runs when the next one comes: that gets the session all the same.
func TestTwoTriesOfOneHandshakeMeet(t *testing.T) {
	t.Parallel()
	nodes := nodesOf(t, brokertest.NewMemory(), 2, func(*Config) {})
	a, b := nodes[0], nodes[1]
	for i := range 20 {
		user := fmt.Sprint("user ", i)
		c := a.comes("", user)
		var tries sync.WaitGroup
		for range 2 {
			tries.Go(func() {
				got, err := a.h.claimed(context.Background(), b.inner.ID(), claimQuestion{ID: idOf(c), User: user, Nonce: 1})
				if err != nil || got.Session == nil {
					t.Errorf("client %d: got %+v, %v", i, got, err)
				}
			})
		}
		tries.Wait()
	}
	audited(t, nodes...)
}

// Who comes back to a node before that knows that it had gone is in its rooms, and goes on being there.
func TestWhoIsBackBeforeItHasGone(t *testing.T) {
	t.Parallel()
	nodes := nodesOf(t, brokertest.NewMemory(), 2, fullRooms)
	a, b := nodes[0], nodes[1]
	ann, _ := a.member("ann", "r")
	ann.lose(a.h)
	silent := func(k callKind) (question, answer bool) { return k == callArrived || k == callHas, false }
	a.losing(silent)
	b.losing(silent)
	away := b.comes(ann.token(), "ann")
	away.resumes("r", "null")
	away.lose(b.h)
	if a.h.handing(idOf(ann)) == nil {
		t.Fatal("its node knows where it is")
	}
	back := a.comes(away.token(), "ann")
	if back.id != ann.id || back.welcome["resumed"] != true {
		t.Fatalf("welcome %v", back.welcome)
	}
	sh := a.h.roomShard("r")
	sh.mu.Lock()
	moving, own := len(sh.rooms["r"].presence.together.moving), sh.rooms["r"].presence.OwnLen()
	sh.mu.Unlock()
	if moving != 0 || own != 1 {
		t.Errorf("%d are about to be told to have left, of %d", moving, own)
	}
	a.losing(nil)
	b.losing(nil)
	expectOn(t, idOf(ann), 0, nodes...)
	audited(t, nodes...)
}

// A node that stops takes no session of another one that does: it says so, and a next one gets it.
func TestANodeThatHasStoppedTakesNoSession(t *testing.T) {
	a := nodesOf(t, brokertest.NewMemory(), 1, func(*Config) {})[0]
	a.l.Stop(0)
	a.l.Wait()
	a.h.Stop()
	if err := a.h.bring(context.Background(), broker.NodeID{1}, bringQuestion{ID: NewID(), Session: &movedSession{User: "ann"}}); err == nil {
		t.Error("it has it")
	}
}

// Direct messages that come behind a session which has gone on meanwhile follow it.
func TestWhatComesBehindASessionFollowsIt(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 3, func(*Config) {})
	ann := nodes[0].comes("", "ann")
	m := &protocol.Message{Kind: protocol.DirectMessage, Content: []byte(`"late"`)}
	behind := directsQuestion{ID: idOf(ann), Directs: [][]byte{m.AppendRecord(nil)}}
	nodes[2].h.cluster.ask(nodes[1].inner.ID(), callDirects, behind, func([]byte, error) {})
	if m := ann.next(); m["content"] != "late" {
		t.Errorf("got %v", m)
	}
	audited(t, nodes...)
}

// What nodes held for a client on its way, and acknowledged, is taken by the next node, also where as much as may wait came there
// meanwhile, and of several nodes that it has passed. Tails were told of it by the node that held it, and are told no more.
func TestWhatANodeHeldIsTakenBesideWhatCameMeanwhile(t *testing.T) {
	for name, via := range map[string]int{"by the client's node": 0, "by one that it has left": 2} {
		t.Run(name, func(t *testing.T) { takesWhatWasHeld(t, via) })
	}
}

func takesWhatWasHeld(t *testing.T, via int) {
	nodes := nodesOf(t, brokertest.NewMemory(), 3, func(*Config) {})
	here, other := nodes[0], nodes[1]
	ann := here.comes("", "ann")
	ann.lose(here.h)
	half := func(content byte) []byte {
		return []byte(`"` + strings.Repeat(string(content), maxDirects/2-200) + `"`)
	}
	tail, err := here.h.Tail(TailOf{Client: idOf(ann), Content: true})
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	for range 2 { // as much as waits
		p := &Publication{Content: half('o')}
		p.Client = idOf(ann)
		if _, _, err := here.h.Publish(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	held := func(content byte, n int) {
		t.Helper()
		m := &protocol.Message{Kind: protocol.DirectMessage, Content: half(content)}
		done := make(chan error, 1)
		other.h.cluster.ask(nodes[via].inner.ID(), callDirects, directsQuestion{ID: idOf(ann), Directs: slices.Repeat([][]byte{m.AppendRecord(nil)}, n)}, func(_ []byte, err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	waits := func() int {
		sh := here.h.clientShard(idOf(ann))
		sh.mu.Lock()
		defer sh.mu.Unlock()
		return len(sh.parked[idOf(ann)].directs)
	}
	held('h', 2)
	held('h', 2)
	until(t, "what was held waits", func() bool { return waits() == 6 })
	back := here.comes(ann.token(), "ann")
	back.say(`{"msg_type":"resume","rooms":{},"id":"resume"}`)
	back.answer("resume", func(m map[string]any) { t.Errorf("before resumed: %v", m) })
	var order string
	for range 6 {
		order += back.next()["content"].(string)[:1]
	}
	if order != "oohhhh" {
		t.Errorf("came: %s", order)
	}
	items, lost, err := tail.Next(t.Context())
	told := ""
	for _, i := range items {
		if i.Kind == TailDirectMessage {
			told += string(i.Content[1])
		}
	}
	if told != "oo" || lost > 0 || err != nil {
		t.Errorf("the tail was told of %q, lost %d, %v", told, lost, err)
	}
	tail.Close()
	audited(t, nodes...)
}

// What waited for a client comes as fast as its line takes it: who reads slowly isn't closed, and what hasn't gone out when the line
// breaks once more waits on.
func TestWhatWaitedComesAsTheLineTakesIt(t *testing.T) {
	for _, breaks := range []bool{false, true} {
		t.Run(fmt.Sprint("it breaks: ", breaks), func(t *testing.T) {
			nodes := nodesOf(t, brokertest.NewMemory(), 2, func(*Config) {})
			here, other := nodes[0], nodes[1]
			ann := here.comes("", "ann")
			ann.lose(here.h)
			hd, err := here.h.take(t.Context(), idOf(ann), broker.NodeID{1}, 1, func(string, uint32, uint32) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			var all []waitingDirect
			for i := range 10 { // more than the buffers on its way take, which a client has for which several nodes held something
				content := fmt.Sprintf(`"%d%s"`, i, strings.Repeat("x", 60_000))
				all = append(all, waitingDirect{message: &protocol.Message{Kind: protocol.DirectMessage, Content: []byte(content)}})
			}
			other.h.cluster.sendHeld(here.inner.ID(), idOf(ann), all)
			sh := here.h.clientShard(idOf(ann))
			until(t, "all wait", func() bool {
				sh.mu.Lock()
				defer sh.mu.Unlock()
				return len(hd.p.directs) == len(all)
			})
			here.h.parkedAgain(hd)
			back := here.comes(ann.token(), "ann")
			back.deaf.Lock()
			back.say(`{"msg_type":"resume","rooms":{},"id":"resume"}`)
			until(t, "it is resumed", func() bool { return here.h.ParkedSessions() == 0 })
			if here.h.Kept(KeptParked) < 60_000 {
				t.Fatal("nothing waits for its line")
			}
			order := ""
			hears := func(c *client) {
				for !strings.HasSuffix(order, "9") {
					if m := c.next(); m["msg_type"] == "direct_message" {
						order += m["content"].(string)[:1]
					}
				}
			}
			if breaks {
				back.nc.Close()
				back.deaf.Unlock()
				for m := range back.got {
					if m["msg_type"] == "direct_message" {
						order += m["content"].(string)[:1]
					}
				}
				before := order
				until(t, "it is parked", func() bool { return here.h.ParkedSessions() == 1 })
				again := here.comes(back.token(), "ann")
				again.say(`{"msg_type":"resume","rooms":{},"id":"resume"}`)
				hears(again)
				if len(order) == len(before) {
					t.Error("all had gone out")
				}
			} else {
				back.deaf.Unlock()
				hears(back)
				if order != "0123456789" {
					t.Errorf("came: %s", order)
				}
			}
			if digits := strings.Split(order, ""); !slices.IsSorted(digits) || len(slices.Compact(digits)) != len(order) {
				t.Errorf("came: %s", order)
			}
			audited(t, nodes...)
		})
	}
}

// A client for which other nodes hold more than it can be sent loses its session, which tells it that something is lost: while that
// is parked, and before it has said which rooms it had.
func TestWhoIsHeldTooMuchForIsTold(t *testing.T) {
	for _, claimed := range []bool{false, true} {
		t.Run(fmt.Sprint("its client is back: ", claimed), func(t *testing.T) {
			nodes := nodesOf(t, brokertest.NewMemory(), 2, func(*Config) {})
			here, other := nodes[0], nodes[1]
			ann := here.comes("", "ann")
			ann.lose(here.h)
			token := ann.token()
			var back *client
			if claimed {
				back = here.comes(token, "ann")
				token = back.token()
			}
			m := &protocol.Message{Kind: protocol.DirectMessage, Content: []byte(`"` + strings.Repeat("h", maxHeld/2) + `"`)}
			other.h.cluster.sendHeld(here.inner.ID(), idOf(ann), slices.Repeat([]waitingDirect{{message: m}}, 2))
			until(t, "the session is over", func() bool { return !here.h.hasClient(idOf(ann)) })
			if claimed {
				if !back.isClosed() || back.code.Load() != protocol.CloseSlowConsumer {
					t.Errorf("it is closed with %d", back.code.Load())
				}
			}
			if again := here.comes(token, "ann"); again.welcome["resumed"] != false {
				t.Errorf("welcome %v", again.welcome)
			}
			audited(t, nodes...)
		})
	}
}

// What a node held is tried until it is there, and comes once and in its order, also where it is large and goes alone; here to a
// node from which the client goes on just then.
func TestWhatWasHeldIsTriedUntilItIsThere(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"question", "answer", "both"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			nodes := nodesOf(t, brokertest.NewMemory(), 2, func(*Config) {})
			here, other := nodes[0], nodes[1]
			ann := here.comes("", "ann")
			ann.lose(here.h)
			hd, err := here.h.take(t.Context(), idOf(ann), broker.NodeID{1}, 1, func(string, uint32, uint32) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			lost := map[callKind]int{}
			other.losing(func(k callKind) (question, answer bool) {
				mu.Lock()
				defer mu.Unlock()
				if k != callDirects && k != callDirect || lost[k] == 4 {
					return false, false
				}
				lost[k]++
				question = what == "question" || what == "both" && lost[k]%2 == 0
				return question, !question
			})
			var all []waitingDirect
			for i, size := range []int{10, 100_000, 100_000, 100_000, 10, movedAtOnce + 1, 10} {
				content := fmt.Sprintf(`"%d%s"`, i, strings.Repeat("x", size))
				all = append(all, waitingDirect{message: &protocol.Message{Kind: protocol.DirectMessage, Content: []byte(content)}})
			}
			other.h.cluster.sendHeld(here.inner.ID(), idOf(ann), all)
			sh := here.h.clientShard(idOf(ann))
			order := ""
			until(t, "the last one is there", func() bool {
				sh.mu.Lock()
				defer sh.mu.Unlock()
				order = ""
				for _, d := range hd.p.directs {
					order += string(d.message.Content[1:2])
				}
				return strings.HasSuffix(order, "6")
			})
			if order != "0123456" {
				t.Errorf("came: %s", order)
			}
			if lost[callDirect] != 4 || lost[callDirects] != 4 {
				t.Errorf("lost were %v", lost)
			}
			here.h.parkedAgain(hd)
			audited(t, nodes...)
		})
	}
}

// A session with more than fits into one answer between nodes moves in parts, when its client comes elsewhere and when its node
// stops, and whichever of the answers is lost.
func TestALargeSessionMovesInParts(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"handshake", "leave"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			const rooms = 300
			nodes := nodesOf(t, brokertest.NewMemory(), 2, func(c *Config) {
				fullRooms(c)
				c.MaxRoomsPerClient = rooms
			})
			a, b := nodes[0], nodes[1]
			who := auth.Identity{User: "ann", Data: []byte(`"` + strings.Repeat("d", 4000) + `"`)}
			ann := a.comesAs("", who)
			for i := range rooms {
				ann.joinsWith(fmt.Sprint("r", i), "null")
			}
			ann.lose(a.h)
			var calls atomic.Int64
			b.losing(func(k callKind) (question, answer bool) {
				n := calls.Add(1)
				return k == callSession && n%3 == 1, k == callSession && n%3 == 2
			})
			if how == "leave" {
				a.h.leaveOne(t.Context(), idOf(ann))
			}
			back := b.comesAs(ann.token(), who)
			if back.id != ann.id || back.welcome["resumed"] != true {
				t.Fatalf("welcome %v", back.welcome)
			}
			if n := max(a.largest(), b.largest()); n > 900_000 || n < 100_000 {
				t.Errorf("a call or its answer had %d bytes", n)
			}
			b.losing(nil)
			for i := range rooms {
				name := fmt.Sprint("r", i)
				if _, members, _, err := b.h.PresenceAfter(t.Context(), name, ID{}, 10); err != nil || len(members) != 1 || string(members[0].Data) != string(who.Data) {
					t.Fatalf("in %s are %v, %v", name, members, err)
				}
			}
			expectOn(t, idOf(ann), 1, nodes...)
			back.nc.Close()
			audited(t, nodes...)
		})
	}
}

// A node that stops and doesn't hear whether another one has its session asks until it does; where it can't any more a third one
// gets the session, too, and in the end it is on one.
func TestAnswersToANodeThatStopsAreLost(t *testing.T) {
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprint("the other can't be seen any more: ", gone), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				memory := brokertest.NewMemory()
				t.Cleanup(memory.Wait)
				nodes := nodesOf(t, memory, 3, func(*Config) {})
				a, others := nodes[0], nodes[1:]
				var sessions [10]*client
				for i := range sessions {
					sessions[i], _ = a.member("ann", "r")
					sessions[i].lose(a.h)
				}
				lost := map[callKind]int{}
				var mu sync.Mutex
				a.losing(func(k callKind) (bool, bool) {
					mu.Lock()
					defer mu.Unlock()
					lost[k]++
					return false, k == callBring && lost[k] <= 4
				})
				for _, ann := range sessions {
					mu.Lock()
					clear(lost)
					mu.Unlock()
					heir, _ := a.h.cluster.heir(idOf(ann), func(n broker.NodeID) bool { return n == a.h.cluster.id })
					var left sync.WaitGroup
					left.Go(func() { a.h.leaveOne(t.Context(), idOf(ann)) })
					if gone {
						synctest.Wait() // it is asked, or pauses
						for _, n := range others {
							a.sees(n, n.h.cluster.id != heir)
						}
					}
					left.Wait()
					if on := alive(idOf(ann), a); len(on) != 0 {
						t.Errorf("%s is still with the node that stops", ann.id)
					}
					if on := alive(idOf(ann), others...); len(on) != 1 && !gone {
						t.Errorf("%s is on the nodes %v", ann.id, on)
					}
					for _, n := range others {
						a.sees(n, true)
					}
				}
				a.dies(others...)
				time.Sleep(2*claimMost + 20*time.Second) // what has just come is judged later
				synctest.Wait()
				for i, ann := range sessions {
					if on := alive(idOf(ann), others...); len(on) != 1 {
						t.Errorf("%s is on the nodes %v", ann.id, on)
					}
					if back := others[i%2].comes(ann.token(), "ann"); back.id != ann.id || back.welcome["resumed"] != true {
						t.Errorf("welcome %v", back.welcome)
					}
				}
			})
		})
	}
}

// Each answer of one handing brings the same direct messages, whichever of them comes: what the client is sent between two of
// them comes behind it.
func TestEachAnswerBringsTheSameDirectMessages(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 2, func(*Config) {})
	here, other := nodes[0], nodes[1]
	ann := here.comes("", "ann")
	ann.lose(here.h)
	id, to := idOf(ann), other.inner.ID()
	mine := other.h.cluster.moves.begin(t.Context(), id)
	hd, err := here.h.take(t.Context(), id, to, mine.nonce, func(string, uint32, uint32) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	here.h.cluster.moves.background(func() { here.h.seeOff(hd) })
	answer, err := here.h.claimed(t.Context(), to, claimQuestion{ID: id, User: "ann", Nonce: mine.nonce})
	if err != nil || answer.Session == nil || len(answer.Session.Directs) > 0 {
		t.Fatalf("%+v, %v", answer, err)
	}
	p := &Publication{Content: []byte(`"between"`)}
	p.Client = id
	if _, _, err := here.h.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if late := here.h.packed(hd, 0); len(late.Directs) > 0 { // of the try before, which nobody waits for
		t.Errorf("another answer brings %d messages", len(late.Directs))
	}
	if !other.h.install(id, answer.Session, none) {
		t.Fatal("it doesn't come")
	}
	other.h.cluster.moves.took(id, mine.nonce)
	other.h.cluster.moves.finish(mine)
	other.h.cluster.arrived(id, mine.nonce, here.inner.ID())
	sh := other.h.clientShard(id)
	until(t, "what came between is there", func() bool {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		return len(sh.parked[id].directs) == 1
	})
	audited(t, nodes...)
}

// What came from another node with a session is its owner's, who can't have more wait here than its share by moving: then a
// session ends with its connection.
func TestWhatMovesIsPaidFor(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 2, func(c *Config) { c.MaxBufferedBytes = 16 << 20 })
	a, b := nodes[0], nodes[1]
	share := b.h.cfg().share
	sender := a.comes("", "mallory")
	ended := 0
	for range 40 {
		c := a.comes("", "mallory")
		c.lose(a.h)
		for sender.direct(c.id, strings.Repeat("x", 15_000))["msg_type"] == "ack" {
		}
		onB := b.comes(c.token(), "mallory")
		if onB.welcome["resumed"] != true {
			t.Fatal(onB.welcome)
		}
		onB.nc.Close()
		sh, id := b.h.clientShard(idOf(c)), idOf(c)
		until(t, "its connection has ended", func() bool {
			sh.mu.Lock()
			defer sh.mu.Unlock()
			return sh.sessions[id] == nil && (sh.parked[id] == nil || sh.parked[id].by == nil)
		})
		if !b.h.hasClient(id) {
			ended++
		}
		until(t, "a knows", func() bool { return a.h.handing(id) == nil })
	}
	if n := b.h.Kept(KeptParked); n > share+maxDirects+parkedCost || ended == 0 || ended == 40 {
		t.Errorf("%d bytes are kept for one user, whose share is %d; %d sessions have ended", n, share, ended)
	}
	audited(t, nodes...)
}

// However many publish_ids a shard has, one answer brings no more than may be in one, and all of them come, once.
func TestManyPublishIDsMoveInParts(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 2, func(c *Config) { c.DedupWindow = time.Hour })
	h, to := nodes[0].h, nodes[1].inner.ID()
	d, want := &h.memories[shards-1], 0
	for i := range 3 * bringsOnce {
		key := publishKey{room: "r", id: fmt.Sprint(i)}
		if id := key.hash(); home(idsOf(h.cluster.id, h.cluster.seenPeers()), string(id[:])) == to {
			want++
		}
		d.mu.Lock()
		d.order = append(d.order, remembered{key, clock() + 1e6, nil})
		d.mu.Unlock()
	}
	got := map[string]bool{}
	b := bringing{View: viewOf(h.cluster.id, h.cluster.seenPeers())}
	for more := true; more; more = b.From != (place{}) {
		answer := make(chan brought)
		h.were(to, b, func(a brought, err error) { answer <- a })
		a := <-answer
		if n := len(encodeAnswer(a, nil)); !a.Sees || len(a.IDs) > bringsOnce || n > 400<<10 {
			t.Fatalf("%d in %d bytes", len(a.IDs), n)
		}
		for _, id := range a.IDs {
			got[string(id.ID)] = true
		}
		b.From = a.Next
	}
	if len(got) != want {
		t.Errorf("got %d of %d", len(got), want)
	}
	d.mu.Lock()
	d.order = nil
	d.mu.Unlock()
}

// A session that comes twice, as the answers to two tries do, is here once, and its rooms go on telling that it is here.
func TestASessionThatComesTwiceIsShown(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 2, fullRooms)
	h, id := nodes[0].h, nodes[0].h.newID()
	m := &movedSession{User: "ann", Gen: 3, Oldest: 1, Rooms: []movedRoom{{Name: "r", Data: []byte(`"here"`)}}}
	if !h.install(id, m, netip.Addr{}) || h.install(id, m, netip.Addr{}) {
		t.Fatal("it is here not at all, or twice")
	}
	sh := h.roomShard("r")
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms["r"]
	if _, moving := r.presence.together.moving[id]; moving || r.members != 1 {
		t.Errorf("%d members; it is about to be told to have left: %t", r.members, moving)
	}
	if who, here := r.presence.FindOwn(id.String()); !here || string(who.Data) != `"here"` {
		t.Errorf("it is %v", who)
	}
}

// A session that was granted to a node when its own had died moves on to a second one, and on to a third that dies, too. Its
// client comes to the second, to which the first leads, that it was granted to.
func TestASessionIsLedBackToWhereItIsSought(t *testing.T) {
	nodes := nodesOf(t, brokertest.NewMemory(), 4, func(*Config) {})
	first, second, third, last := nodes[0], nodes[1], nodes[2], nodes[3]
	move := func(ann *client, to *testNode) *client {
		t.Helper()
		back := to.comes(ann.token(), "ann")
		if back.id != ann.id || back.welcome["resumed"] != true {
			t.Fatalf("welcome %v", back.welcome)
		}
		back.resumes("r", "null")
		return back
	}
	var sessions [20]*client // some of which the node decides about that dies last
	for i := range sessions {
		sessions[i], _ = first.member("ann", "r")
	}
	first.dies(second, third, last)
	for i, ann := range sessions {
		sessions[i] = move(move(move(ann, second), third), last)
	}
	last.dies(second, third)
	for i, ann := range sessions {
		if i%2 == 0 { // it may have forgotten where to: it knows of so many only
			sh := third.h.clientShard(idOf(ann))
			sh.mu.Lock()
			delete(sh.away.gone, idOf(ann))
			sh.mu.Unlock()
		}
		move(ann, third)
	}
	audited(t, second, third)
}
