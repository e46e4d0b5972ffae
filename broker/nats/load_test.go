package nats

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A log of which there is so much, or whose servers are so busy, that it takes longer to read than one answer may is read to its
// end. One that isn't got on with is given up.
func TestALongLogIsReadToItsEnd(t *testing.T) {
	for most, ok := range map[uint64]bool{5: true, 2: false} { // up to there groups come
		synctest.Test(t, func(t *testing.T) {
			ctx := newProgress(t.Context())
			defer ctx.end()
			l := &loading{st: &stream{key: streamKey{messages: 10}}, ctx: ctx}
			l.last = func() (uint64, error) { return 5, nil }
			l.more = func(behind uint64) error {
				select {
				case <-time.After(logPatience * 3 / 4):
				case <-ctx.Done():
					return ctx.Err()
				}
				if behind < most {
					l.groups = append(l.groups, group{seq: behind + 1})
				}
				return nil
			}
			if err := l.readGroups(5); (err == nil) != ok || len(l.groups) != int(most) {
				t.Errorf("of 5 groups it has read %d, %v", len(l.groups), err)
			}
		})
	}
}

// A replica that was cut off catches up while a room of ten groups is read from it. What the room had dropped by then it
// doesn't get, and it has fewer than ten when it has come to where the end was. That something is missing is known all the same.
func TestReadFromAReplicaThatCatchesUp(t *testing.T) {
	const behind = 100
	to := func(from, to uint64) (all []uint64) {
		for ; from <= to; from++ {
			all = append(all, from)
		}
		return all
	}
	for _, c := range []struct {
		name    string
		ends    []uint64   // that the leader says, one after the other
		batches [][]uint64 // that the replica has
		kept    []uint64
		trimmed uint64
	}{
		{"all is there", []uint64{107, 107}, [][]uint64{to(101, 107)}, to(101, 107), 0},
		{"some came meanwhile", []uint64{104, 106, 106}, [][]uint64{to(101, 104), to(105, 106)}, to(101, 106), 0},
		{"the room is full", []uint64{113, 113}, [][]uint64{to(104, 113)}, to(104, 113), 104},
		{"some was dropped", []uint64{110, 113, 113}, [][]uint64{to(104, 107), to(108, 110), to(111, 113)}, to(104, 113), 104},
		{"in its middle, too", []uint64{110, 115, 115}, [][]uint64{to(101, 102), to(106, 109), to(110, 115)}, to(106, 115), 106},
		{"it goes on and on", []uint64{105, 106, 107, 109, 110}, [][]uint64{to(102, 105), to(106, 106), to(107, 107), to(108, 109)}, to(102, 109), 102},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := newProgress(t.Context())
			defer ctx.end()
			l := &loading{st: &stream{key: streamKey{messages: 10}}, ctx: ctx, behind: behind<<groupBits | (maxGroup - 1)}
			l.more = func(uint64) error {
				for _, seq := range c.batches[0] {
					l.groups = append(l.groups, group{seq: seq})
				}
				c.batches = c.batches[1:]
				return nil
			}
			l.last = func() (last uint64, _ error) {
				last, c.ends = c.ends[0], c.ends[1:]
				return last, nil
			}
			last, _ := l.last()
			if err := l.readGroups(last); err != nil {
				t.Fatal(err)
			}
			var kept []uint64
			for _, g := range l.groups {
				kept = append(kept, g.seq)
			}
			if !slices.Equal(kept, c.kept) || l.trimmed != c.trimmed {
				t.Errorf("it has %v, trimmed before %d; want %v, %d", kept, l.trimmed, c.kept, c.trimmed)
			}
		})
	}
}
