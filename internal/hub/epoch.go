package hub

import (
	"hash/maphash"
	"strconv"
)

// maxLost is how many rooms of a shard are known by name to have lost messages: some 2 MB for all shards.
const maxLost = 1024

// epochs tells a shard's rooms their epochs. A room has the same one until messages of it are forgotten, whether or not
// it is there in between: a position of a room in which nothing was published proves that nothing was missed. Guarded
// by the shard's mu. The zero value is ready.
type epochs struct {
	last   uint64            // given
	others uint64            // of all rooms that are not in lost
	lost   map[uint64]uint64 // by the hash of the name
}

// of is the epoch that a room begins with, behind the process's own text.
func (e *epochs) of(name string) string {
	n, ok := e.lost[maphash.String(seed, name)]
	if !ok {
		n = e.others
	}
	return strconv.FormatUint(n, 36)
}

// lose gives the room another epoch than it has ever had; and all other rooms that aren't there too, when there are too
// many to know each.
func (e *epochs) lose(name string) {
	e.last++
	if len(e.lost) == maxLost {
		clear(e.lost)
		e.others = e.last
		return
	}
	if e.lost == nil {
		e.lost = map[uint64]uint64{}
	}
	e.lost[maphash.String(seed, name)] = e.last
}
