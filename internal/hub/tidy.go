package hub

import (
	"fmt"
	"math"
	"runtime/debug"
	"time"
)

// wheel is when a shard's rooms are looked at: slots of half a second. An entry is never taken out; it is stale when
// its room is gone or is due at another time. Guarded by the shard's mu.
type wheel struct {
	slots [wheelSlots][]*room
	tick  int64 // the last one whose slot was visited
}

const (
	slotTime   = 500 // milliseconds; the sweeps keep time with the slots, so a room waits for one slot at most
	wheelSlots = 64
)

// schedule has the room looked at once the clock has passed at, at most a slot later. r.mu is held.
func (h *Hub) schedule(r *room, at int64) {
	if r.due != 0 && r.due <= at/slotTime+1 {
		return // it is looked at by then
	}
	w := &h.roomShard(r.name).wheel
	tick := max(at/slotTime, w.tick) + 1
	r.due = tick
	w.slots[tick%wheelSlots] = append(w.slots[tick%wheelSlots], r)
}

// used is called when a room has got a member. r.mu is held.
func (h *Hub) used(r *room) {
	if r.empty {
		r.empty = false
		h.keep(KeptRooms, r.payer, -roomCost)
		r.payer = nil
	}
}

// needed says that the room has members, or somebody else whom it has to stay for. r.mu is held.
func (r *room) needed() bool { return r.members > 0 || r.remote != nil && r.remote.users > 0 }

// stay is how long the room is there without a member, from r.active on, in milliseconds. That is 0 when nothing was ever
// published there, or it keeps no history, since then nothing is lost; but what others tell it is listened to for a
// while. r.mu is held.
func (r *room) stay() (ms int64) {
	if r.seq > 0 && r.keeps() {
		ms = r.policy().IdleTTL.Milliseconds()
	}
	if r.remote != nil && r.remote.topic.ready {
		ms = max(ms, lingers)
	}
	return ms
}

// unused is called when a room may have no member, because of p. It goes when its time is up, or the hub stops. r.mu is
// held.
func (h *Hub) unused(r *room, p *payer) {
	if r.needed() || r.gone {
		return
	}
	stay := r.stay()
	if stay == 0 || h.stopping() {
		h.remove(r)
		return
	}
	if !r.empty {
		r.empty, r.payer = true, p
		h.keep(KeptRooms, p, roomCost)
	}
	h.schedule(r, r.active+stay)
}

// remove forgets a room without members and its history, and its epoch if anything was published in it. r.mu is held.
func (h *Hub) remove(r *room) {
	h.clearHistory(r, 0)
	h.dropPresence(r)
	h.used(r) // it counts for nothing any more
	if r.remote != nil {
		h.speaks(r, true)
		r.brought(math.MaxUint64)
		r.remote.log.end()
		r.remote.topic.end()
	}
	r.gone = true
	sh := h.roomShard(r.name)
	delete(sh.rooms, r.name)
	if r.remote == nil && r.position().Offset > 0 { // where it keeps no history any more, that is done
		sh.epochs.lose(r.name)
	}
}

// sweep tidies as each slot is due, until Stop.
func (h *Hub) sweep() {
	defer close(h.swept)
	due := time.NewTimer(untilSlot(clock()))
	defer due.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-due.C:
			now := clock()
			h.tidySafely(now - 1) // whole milliseconds, rounded down: what is to last for so many has when one more is over
			due.Reset(untilSlot(now))
		}
	}
}

func (h *Hub) tidySafely(now int64) {
	defer h.recovered("tidying")
	h.tidy(now)
}

// recovered, deferred on a goroutine of the hub's own, keeps a fault there from ending the process.
func (h *Hub) recovered(what string) {
	if p := recover(); p != nil {
		h.loop.Panics.Add(1)
		h.cfg().Log.Error("panic while "+what, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
}

// untilSlot is how long it is until tidy can visit the next slot.
func untilSlot(now int64) time.Duration {
	return time.Duration(slotTime-now%slotTime+1) * time.Millisecond
}

// tidy drops what is too old: messages, rooms that nobody is in, and publish_ids.
func (h *Hub) tidy(now int64) {
	for i := range h.rooms {
		h.tidyShard(&h.rooms[i], now)
		h.endDue(&h.clients[i], now)
		h.tidyMemory(&h.memories[i], now)
	}
	if h.cluster != nil {
		h.cluster.claims.tidy(h, now)
		h.tidyMoves(now)
		h.cluster.witness.tell(h, now)
	}
	h.limits.users.tidy(now)
	h.limits.addresses.tidy(now)
	h.limits.connections.tidy()
}

func (h *Hub) tidyShard(sh *roomShard, now int64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.wheel.tick = max(sh.wheel.tick, now/slotTime-wheelSlots) // one round visits every slot
	for sh.wheel.tick < now/slotTime {
		sh.wheel.tick++
		h.tidySlot(&sh.wheel, now)
	}
}

func (h *Hub) tidyMemory(d *memory, now int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h.forget(d, now)
}

func (h *Hub) tidySlot(w *wheel, now int64) {
	slot := &w.slots[w.tick%wheelSlots]
	due := *slot
	*slot = nil
	for _, r := range due {
		switch {
		case r.gone || r.due == 0 || (r.due-w.tick)%wheelSlots != 0:
		case r.due > w.tick:
			*slot = append(*slot, r)
		default:
			r.due = 0
			h.tidyRoom(r, now)
		}
	}
}

func (h *Hub) tidyRoom(r *room, now int64) {
	if !r.needed() && now >= r.active+r.stay() {
		h.remove(r)
		return
	}
	h.trim(r, now)
	if r.log.Len() > 0 {
		h.schedule(r, r.log.At(0).At+r.policy().History.Age.Milliseconds())
	}
	if r.members == 0 {
		h.schedule(r, r.active+r.stay())
	}
}

const relieveEvery = 100 // milliseconds

// Relieve frees so many bytes of what the hub keeps, as far as there are: first the rooms without members go, and their
// epochs with them; then the parked sessions, oldest first; where that isn't enough, the other rooms keep their newest
// message only. After a call that could not free enough the next ones free nothing for relieveEvery: what is too much
// then is not the hub's, and each call goes over all rooms. Any goroutine.
func (h *Hub) Relieve(excess int64) (freed int64) {
	now := clock()
	if now < h.relieve.Load() {
		return 0
	}
	before := h.allKept()
	defer func() {
		if freed < excess {
			h.relieve.Store(now + relieveEvery)
		}
	}()
	enough := func() bool {
		freed = before - h.allKept()
		return freed >= excess
	}
	rooms := func(of func(*room)) {
		for i := range h.rooms {
			h.rooms[i].each(of)
			if enough() {
				return
			}
		}
	}
	rooms(func(r *room) {
		if !r.needed() {
			h.remove(r)
		}
	})
	const steps = 8 // of age
	for i := int64(1); i <= steps && !enough(); i++ {
		for c := range h.clients {
			h.endDue(&h.clients[c], clock()+h.cfg().ResumeWindow.Milliseconds()*i/steps)
		}
	}
	if !enough() {
		rooms(func(r *room) { h.clearHistory(r, 1) })
	}
	enough()
	return freed
}

// each calls f for every room of the shard, under its lock. f may remove that room.
func (sh *roomShard) each(f func(*room)) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, r := range sh.rooms {
		f(r)
	}
}

// Stop ends what Start began, the parked sessions, and then all that is kept. Any goroutine but a worker's, once the
// loop has ended.
func (h *Hub) Stop() {
	h.stopOnce.Do(func() { close(h.stop) })
	<-h.swept
	h.endTails()
	if h.cluster != nil {
		h.cluster.moves.end()
		h.listenNoMore()
		h.cluster.claims.tidy(h, math.MaxInt64)
		h.cluster.members.stop()
		h.cluster.asking.stop()
		h.cluster.witness.stop(h)
	}
	for i := range h.clients {
		h.settleHandings(&h.clients[i])
		h.endDue(&h.clients[i], math.MaxInt64)
		h.tidyMemory(&h.memories[i], math.MaxInt64)
	}
	for i := range h.rooms {
		h.rooms[i].each(func(r *room) {
			if !r.needed() {
				h.remove(r)
			}
		})
	}
	if h.cluster != nil {
		h.endOccupied()
	}
}
