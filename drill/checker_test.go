package main

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// history is a run without a fault: 3 rooms of 6 members, each of whom publishes; every member is in one room and got
// all but its own.
func history() []*clientLog {
	rng := rand.New(rand.NewPCG(1, 2))
	var logs []*clientLog
	for n := range 18 {
		logs = append(logs, &clientLog{joins: []join{{room: uint32(n % 3), joined: 1}}})
	}
	for at := range 600 {
		from := rng.IntN(18)
		room := uint32(from % 3)
		m := received{room, uint32(from), uint32(len(logs[from].sent))}
		logs[from].sent = append(logs[from].sent, sent{room: room, at: int64(at + 10), answer: acked})
		for n, log := range logs {
			if n%3 == int(room) && n != from {
				log.received = append(log.received, m)
			}
		}
	}
	return logs
}

// cutAndResume has the connection lost and its session resumed, as a client does that has had n messages.
func cutAndResume(log *clientLog, n int) {
	rest := log.received[n:]
	log.received, log.closed = slices.Clone(log.received[:n]), "reset"
	log.resumed()
	log.received = append(log.received, rest...)
}

// unrecoveredAt has client 4 miss some messages of its room, and told so as it comes back.
func unrecoveredAt(logs []*clientLog, from, to int) {
	log := logs[4]
	next := log.received[to]
	rest := log.received[to:]
	log.received, log.closed = slices.Clone(log.received[:from]), "reset"
	log.resumed()
	log.unrecovered(1, logs[next.from].sent[next.seq].at-1)
	log.received = append(log.received, rest...)
}

func TestEachPlantedFaultIsFoundAndNoOther(t *testing.T) {
	// The faults are planted with client 4, a member of room 1.
	tests := map[string]struct {
		plant func(logs []*clientLog)
		want  verdict
	}{
		"none": {func([]*clientLog) {}, verdict{}},
		"one lost": {func(logs []*clientLog) {
			logs[4].received = slices.Delete(logs[4].received, 50, 51)
		}, verdict{lost: 1}},
		"the first lost": {func(logs []*clientLog) {
			logs[4].received = logs[4].received[1:]
		}, verdict{lost: 1}},
		"the last three lost": {func(logs []*clientLog) {
			logs[4].received = logs[4].received[:len(logs[4].received)-3]
		}, verdict{lost: 3}},
		"all lost": {func(logs []*clientLog) {
			logs[4].received = nil
		}, verdict{lost: len(history()[4].received)}},
		"lost to everyone": {func(logs []*clientLog) {
			gone := logs[4].received[50]
			for _, log := range logs {
				log.received = slices.DeleteFunc(log.received, func(r received) bool { return r == gone })
			}
		}, verdict{lost: 5}},
		"lost, and closed later": {func(logs []*clientLog) {
			logs[4].received = slices.Delete(logs[4].received, 50, 51)
			logs[4].closed = "4000"
		}, verdict{lost: 1}},
		"told of the end by a close": {func(logs []*clientLog) {
			logs[4].received = logs[4].received[:50]
			logs[4].closed = "4000"
		}, verdict{}},
		"closed before anything came": {func(logs []*clientLog) {
			logs[4].received, logs[4].closed = nil, "reset"
		}, verdict{}},
		"missing, but never acknowledged": {func(logs []*clientLog) {
			gone := logs[4].received[50]
			logs[gone.from].sent[gone.seq].answer = refused
			logs[4].received = slices.Delete(logs[4].received, 50, 51)
		}, verdict{refused: 1}},
		"no answer": {func(logs []*clientLog) {
			logs[4].sent[3].answer = unanswered
		}, verdict{unanswered: 1}},
		"no answer, but closed": {func(logs []*clientLog) {
			logs[4].sent[3].answer, logs[4].closed = unanswered, "reset"
		}, verdict{}},
		"missing from before the join": {func(logs []*clientLog) {
			first := logs[4].received[20]
			logs[4].joins[0].joined = logs[first.from].sent[first.seq].at - 1
			logs[4].received = logs[4].received[20:]
		}, verdict{}},
		"got some from before the join was answered, then a hole": {func(logs []*clientLog) {
			first := logs[4].received[20]
			logs[4].joins[0].joined = logs[first.from].sent[first.seq].at - 1
			logs[4].received = slices.Delete(logs[4].received, 5, 6)
		}, verdict{lost: 1}},
		"doubled": {func(logs []*clientLog) {
			logs[4].received = slices.Insert(logs[4].received, 51, logs[4].received[50])
		}, verdict{doubled: 1}},
		"doubled much later": {func(logs []*clientLog) {
			logs[4].received = append(logs[4].received, logs[4].received[0])
		}, verdict{doubled: 1}},
		"swapped": {func(logs []*clientLog) {
			r := logs[4].received
			r[50], r[51] = r[51], r[50]
		}, verdict{disordered: 1}},
		"one late": {func(logs []*clientLog) {
			r := logs[4].received
			late := r[50]
			logs[4].received = slices.Insert(slices.Delete(r, 50, 51), 60, late)
		}, verdict{disordered: 1}},
		"half of the room in another order": {func(logs []*clientLog) {
			a, b := logs[4].received[50], logs[4].received[51]
			swapped := 0
			for _, log := range logs {
				i, j := slices.Index(log.received, a), slices.Index(log.received, b)
				if i >= 0 && j >= 0 && swapped < 2 {
					log.received[i], log.received[j] = b, a
					swapped++
				}
			}
		}, verdict{disordered: 2}},
		"a publisher's messages the wrong way round for everyone": {func(logs []*clientLog) {
			a, b := received{1, 7, 3}, received{1, 7, 4}
			for _, log := range logs {
				if i, j := slices.Index(log.received, a), slices.Index(log.received, b); i >= 0 {
					log.received[i], log.received[j] = b, a
				}
			}
		}, verdict{disordered: -1}},
		"of a room that it has not joined": {func(logs []*clientLog) {
			logs[4].received = slices.Insert(logs[4].received, 50, logs[3].received[50])
		}, verdict{misdelivered: 1}},
		"under another room's name": {func(logs []*clientLog) {
			r := logs[3].received[50]
			r.room = 1
			logs[4].received = slices.Insert(logs[4].received, 50, r)
		}, verdict{misdelivered: 1}},
		"its own": {func(logs []*clientLog) {
			logs[4].received = append(logs[4].received, received{1, 4, 0})
		}, verdict{misdelivered: 1}},
		"never sent": {func(logs []*clientLog) {
			logs[4].received = append(logs[4].received, received{1, 7, 1000})
		}, verdict{misdelivered: 1}},
		"lost over a resume": {func(logs []*clientLog) {
			cutAndResume(logs[4], 50)
			logs[4].received = slices.Delete(logs[4].received, 50, 51)
		}, verdict{lost: 1}},
		"nothing brought of what was missed": {func(logs []*clientLog) {
			cutAndResume(logs[4], 50)
			logs[4].received = slices.Delete(logs[4].received, 50, 60)
		}, verdict{lost: 10}},
		"the last three lost, after a resume": {func(logs []*clientLog) {
			cutAndResume(logs[4], 50)
			logs[4].received = logs[4].received[:len(logs[4].received)-3]
		}, verdict{lost: 3}},
		"resumed, and nothing came any more": {func(logs []*clientLog) {
			cutAndResume(logs[4], 50)
			logs[4].received = logs[4].received[:50]
		}, verdict{lost: len(history()[4].received) - 50}},
		"resumed, cut again, and nothing came any more": {func(logs []*clientLog) {
			cutAndResume(logs[4], 50)
			logs[4].received, logs[4].closed = logs[4].received[:50], "reset"
		}, verdict{}},
		"lost over a resume, and closed later": {func(logs []*clientLog) {
			cutAndResume(logs[4], 50)
			logs[4].received = slices.Delete(logs[4].received, 50, 51)
			logs[4].closed = "reset"
		}, verdict{lost: 1}},
		"doubled over a resume": {func(logs []*clientLog) {
			cutAndResume(logs[4], 50)
			logs[4].received = slices.Insert(logs[4].received, 50, logs[4].received[49])
		}, verdict{doubled: 1}},
		"swapped over a resume": {func(logs []*clientLog) {
			cutAndResume(logs[4], 50)
			r := logs[4].received
			r[49], r[50] = r[50], r[49]
		}, verdict{disordered: 1}},
		"its own, brought by a resume": {func(logs []*clientLog) {
			cutAndResume(logs[4], 50)
			logs[4].received = slices.Insert(logs[4].received, 50, received{1, 4, 0})
		}, verdict{misdelivered: 1}},
		"no answer to what was sent before a resume": {func(logs []*clientLog) {
			cutAndResume(logs[4], 50)
			logs[4].sent[3].answer = unanswered
		}, verdict{unanswered: 1}},
		"told recovered: false": {func(logs []*clientLog) {
			unrecoveredAt(logs, 50, 60)
		}, verdict{unrecovered: 1}},
		"told recovered: false twice": {func(logs []*clientLog) {
			unrecoveredAt(logs, 70, 80)
			unrecoveredAt(logs, 50, 60)
			slices.Reverse(logs[4].joins[1:])
			logs[4].joins[2].first -= 10 // what the first has taken away
		}, verdict{unrecovered: 2}},
		"told recovered: false, and got what was to be missed": {func(logs []*clientLog) {
			first := logs[4].received[60]
			logs[4].unrecovered(1, logs[first.from].sent[first.seq].at-1)
		}, verdict{unrecovered: 1}},
		"told recovered: false, and lost one before": {func(logs []*clientLog) {
			unrecoveredAt(logs, 50, 60)
			logs[4].received = slices.Delete(logs[4].received, 40, 41)
			logs[4].joins[1].first--
		}, verdict{unrecovered: 1, lost: 1}},
		"told recovered: false, and lost one after": {func(logs []*clientLog) {
			unrecoveredAt(logs, 50, 60)
			logs[4].received = slices.Delete(logs[4].received, 50, 51)
		}, verdict{unrecovered: 1, lost: 1}},
		"told recovered: false, and got one twice, from before and after": {func(logs []*clientLog) {
			unrecoveredAt(logs, 50, 60)
			logs[4].received = slices.Insert(logs[4].received, 50, logs[4].received[49])
		}, verdict{unrecovered: 1, doubled: 1}},
		"told recovered: false of another room": {func(logs []*clientLog) {
			cutAndResume(logs[4], 50)
			logs[4].received = slices.Delete(logs[4].received, 50, 51)
			logs[4].joins = append(logs[4].joins, join{room: 9, joined: 1})
			logs[4].unrecovered(9, 400)
		}, verdict{unrecovered: 1, lost: 1}},
		"from nobody": {func(logs []*clientLog) {
			logs[4].received = append(logs[4].received, received{1, unknown, 1})
		}, verdict{misdelivered: 1}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			logs := history()
			tt.plant(logs)
			got := check(logs)
			type counts struct{ lost, doubled, disordered, misdelivered, unanswered, refused, unrecovered int }
			of := func(v *verdict) counts {
				return counts{v.lost, v.doubled, v.disordered, v.misdelivered, v.unanswered, v.refused, v.unrecovered}
			}
			if tt.want.disordered == -1 { // how often depends on what lay between
				tt.want.disordered = max(got.disordered, 1)
			}
			if of(got) != of(&tt.want) {
				t.Errorf("got %+v, want %+v: %v", of(got), of(&tt.want), got.examples)
			}
			if clean := tt.want.lost+tt.want.doubled+tt.want.disordered+tt.want.misdelivered+tt.want.unanswered == 0; got.clean() != clean {
				t.Errorf("clean is %v", got.clean())
			}
			if !got.clean() && len(got.examples) == 0 {
				t.Error("a fault without an example")
			}
		})
	}
}

func TestClosesAreCounted(t *testing.T) {
	logs := history()
	logs[1].closed, logs[2].closed, logs[3].closed = "4000", "reset", "4000"
	if got := check(logs).closed; len(got) != 2 || got["4000"] != 2 || got["reset"] != 1 {
		t.Error(got)
	}
}

// Where all members of a room lose their sessions and begin anew, nobody's order says that what is sent then comes behind what
// they had: none of it is lost to the sessions that had ended before, nor what was before to the new ones.
func TestNobodysOrderIsThatOfTime(t *testing.T) {
	logs := history()
	old := len(logs)
	for n := range old {
		logs[n].closed = "reset"
	}
	for n := range old {
		logs = append(logs, &clientLog{joins: []join{{room: uint32(n % 3), joined: 800}}})
	}
	for n, log := range logs[old:] {
		log.sent = append(log.sent, sent{room: uint32(n % 3), at: 900, answer: acked})
		for k, to := range logs[old:] {
			if k != n && k%3 == n%3 {
				to.received = append(to.received, received{uint32(n % 3), uint32(old + n), 0})
			}
		}
	}
	if v := check(logs); v.lost > 0 {
		t.Errorf("%s: %v", v, v.examples)
	}
}
