package bench

import (
	"math/rand/v2"
	"testing"
)

func TestWhatOneConnectionHasSeen(t *testing.T) {
	for _, c := range []struct {
		name string
		seqs []uint32
		want Faults
	}{
		{"all", []uint32{0, 1, 2, 3}, Faults{}},
		{"lost", []uint32{0, 3}, Faults{Lost: 2}},
		{"doubled at once", []uint32{0, 1, 1, 2}, Faults{Doubled: 1}},
		{"doubled later", []uint32{0, 1, 2, 0}, Faults{Doubled: 1}},
		{"swapped", []uint32{0, 2, 1, 3}, Faults{OutOfOrder: 1}},
		{"late twice", []uint32{0, 2, 1, 1}, Faults{OutOfOrder: 1, Doubled: 1}},
		{"all at once wrong", []uint32{1, 1, 4, 3}, Faults{Lost: 2, Doubled: 1, OutOfOrder: 1}},
		{"a chasm", []uint32{0, maxMissing + 10, 5}, Faults{Lost: maxMissing + 8, OutOfOrder: 1}},
	} {
		s := seen{next: make([]uint32, 2)}
		for _, seq := range c.seqs {
			s.arrive(1, seq)
		}
		s.arrive(0, 0) // another publisher's are counted apart
		var got Faults
		if s.judge(&got); got.Lost != c.want.Lost || got.Doubled != c.want.Doubled || got.OutOfOrder != c.want.OutOfOrder {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// play has a room's members get messages in their orders, at random paces; every publisher is sent but its own. It says
// how often the orders were found to differ. orders[m] is what member m gets, as publisher numbers.
type played struct{ id, publisher int }

func play(rng *rand.Rand, publishers int, orders [][]played) (crossed int64) {
	r := &room{ranked: make([]uint32, publishers)}
	pubs := make([]*publisher, publishers)
	total := 0
	for i := range pubs {
		pubs[i] = &publisher{room: r, local: i}
	}
	for _, o := range orders {
		for _, m := range o {
			total = max(total, m.id+1)
		}
	}
	slots := make([]slot, total)
	for id := range slots {
		slots[id].begin(uint32(id), 1, 0)
	}
	sent := map[int]bool{}
	for _, o := range orders {
		for _, m := range o {
			if !sent[m.id] {
				sent[m.id] = true
				pubs[m.publisher].sent.Add(1)
			}
		}
	}
	places, at := make([]placed, len(orders)), make([]int, len(orders))
	for left := true; left; {
		left = false
		for range 2 * len(orders) {
			m := rng.IntN(len(orders))
			var own *publisher
			if m < publishers {
				own = pubs[m]
			}
			for n := rng.IntN(3); n > 0 && at[m] < len(orders[m]); n-- {
				msg := orders[m][at[m]]
				at[m]++
				places[m].follow(r, pubs[msg.publisher], own, &slots[msg.id], uint32(msg.id))
			}
		}
		for m := range orders {
			left = left || at[m] < len(orders[m])
		}
	}
	for i := range places {
		crossed += places[i].crossed
	}
	return crossed
}

// Whatever the pace of each, members that get one order are never accused; of two who swap, one always is.
func TestOneOrderForAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		members, publishers := 2+rng.IntN(6), 1+rng.IntN(4)
		publishers = min(publishers, members)
		var all []played
		for id := range 1 + rng.IntN(30) {
			all = append(all, played{id, rng.IntN(publishers)})
		}
		orders := make([][]played, members)
		for m := range orders {
			for _, msg := range all {
				if msg.publisher != m {
					orders[m] = append(orders[m], msg)
				}
			}
		}
		if n := play(rng, publishers, orders); n != 0 {
			t.Fatalf("round %d: %d of %v in one order are said to differ", round, n, orders)
		}
		// Two who publish nothing get all; one of them gets two the other way round.
		listeners := [][]played{}
		for range publishers {
			listeners = append(listeners, nil) // they get nothing
		}
		swapped := append([]played(nil), all...)
		if len(all) < 2 {
			continue
		}
		i := rng.IntN(len(all) - 1)
		swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
		listeners = append(listeners, all, swapped)
		if play(rng, publishers, listeners) == 0 {
			t.Fatalf("round %d: a swap at %d of %d was not found", round, i, len(all))
		}
	}
}
