package hub

import "slices"

// firsts are the first so many, in an order, of all that is added: it takes memory for twice as many, however many come.
type firsts[T any] struct {
	limit int
	order func(a, b T) int
	list  []T
	full  bool // nothing behind the last of the list, as it was cut, is wanted
	last  T
}

// firstOf takes a limit that another node names, too.
func firstOf[T any](limit int, order func(a, b T) int) *firsts[T] {
	return &firsts[T]{limit: min(max(0, limit), 1<<20), order: order}
}

// add is called in any order, under locks that others wait for.
func (f *firsts[T]) add(x T) {
	if f.full && f.order(x, f.last) >= 0 {
		return
	}
	if f.list = append(f.list, x); len(f.list) > 2*(f.limit+1) {
		f.cut()
	}
}

// cut keeps one more than the limit, which says that there are more; what was added twice once.
func (f *firsts[T]) cut() {
	slices.SortFunc(f.list, f.order)
	f.list = slices.CompactFunc(f.list, func(a, b T) bool { return f.order(a, b) == 0 })
	if n := f.limit + 1; len(f.list) > n {
		clear(f.list[n:])
		f.list = f.list[:n]
		f.last, f.full = f.list[n-1], true
	}
}

// page is what was asked for, and whether there are more.
func (f *firsts[T]) page() (first []T, more bool) {
	f.cut()
	if len(f.list) > f.limit {
		return f.list[:f.limit], true
	}
	return f.list, false
}
