package outbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/hubbub/internal/hub"
)

func inDir(dir string) func(*Config) { return func(c *Config) { c.Dir = dir } }

// A restart goes on where the last process was: what it held comes first, under the same ids and numbers, then
// node.started, then what is new.
func TestARestartGoesOn(t *testing.T) {
	dir, b := t.TempDir(), newBackend(t)
	b.answers(status(http.StatusServiceUnavailable))
	o := open(t, b.URL, inDir(dir))
	for i := range 150 {
		o.joined("first", i)
		o.says("first", fmt.Sprint(i))
	}
	b.sees("a request", func() bool { return len(b.requests) > 0 })
	o.Close(context.Background()) // it tries once, and leaves the rest
	if text := o.log.String(); !strings.Contains(text, `events=301 kept="on the disk"`) {
		t.Errorf("the log is %s", text)
	}
	underWay := b.requests[len(b.requests)-1]

	b.answers(nil)
	o = open(t, b.URL, inDir(dir))
	o.joined("second", 0)
	b.takes(1 + 300 + 2)
	withoutHoles(t, b.events, 1)
	if again := b.taken[0]; again.ID != underWay.ID || again.Body != underWay.Body {
		t.Errorf("what was under way comes as %s, it was %s", again.ID, underWay.ID)
	}
	for i, e := range b.events {
		want := "first"
		if i == 0 || i == 301 {
			want = ""
		} else if i == 302 {
			want = "second"
		}
		if e.Room != want || (want == "") != (e.Type == "node.started") {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
	o.Close(context.Background())

	// All is told: nothing of it comes again, and the numbers go on.
	o = open(t, b.URL, inDir(dir))
	b.takes(304)
	if e := b.events[303]; e.Type != "node.started" || e.Seq != 304 {
		t.Errorf("behind a clean end comes %+v", e)
	}
}

// Over many restarts at any moment: what is told has no hole, and nothing that was told of is forgotten.
func TestManyRestarts(t *testing.T) {
	dir, b := t.TempDir(), newBackend(t)
	var n atomic.Int64
	b.answers(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%3 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	total := 0
	for round := range 12 {
		o := open(t, b.URL, func(c *Config) { c.Dir = dir; c.limits.diskSegment = 3000; c.limits.tend = time.Microsecond })
		for range 97 * (round % 4) {
			o.joined("r", total)
			total++
		}
		if round%3 == 0 {
			b.takes(total / 2)
		}
		o.leave()
	}
	o := open(t, b.URL, inDir(dir))
	o.joined("end", 0)
	b.sees("the end", func() bool { return len(b.events) > 0 && b.events[len(b.events)-1].Room == "end" })
	o.Close(context.Background())
	withoutHoles(t, b.events, 1)
	next := 0
	for seq, i := uint64(1), 0; i < len(b.events); i++ {
		e := b.events[i]
		if e.Seq < seq {
			continue
		}
		seq = e.Seq + 1
		if e.Room == "r" {
			if e.User != fmt.Sprint("user-", next) {
				t.Fatalf("seq %d is of %s, want %d", e.Seq, e.User, next)
			}
			next++
		}
	}
	if next != total {
		t.Errorf("%d of %d events came", next, total)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	if len(left) > int(classes) {
		t.Errorf("the folder keeps %v", left)
	}
}

// segmentOf is a file of n records.
func segmentOf(n int) []byte {
	b := []byte(magic)
	for i := range n {
		b = appendRecord(b, &fresh{stamp: uint64(i + 1), time: int64(1000 + i), room: strings.Repeat("r", i%7)})
	}
	return b
}

// Wherever a write was cut off, what was whole before is there.
func TestATornTailIsLeftOut(t *testing.T) {
	const n = 12
	whole := segmentOf(n)
	var ends []int
	for at := len(magic); at < len(whole); {
		r, ok := firstRecord(whole[at:])
		if !ok {
			t.Fatal("a whole record isn't read")
		}
		at += r.size()
		ends = append(ends, at)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "state-0000000000000001.log")
	o := open(t, "http://127.0.0.1:1", nil) // for its log
	for cut := range len(whole) + 1 {
		for _, garbage := range [][]byte{nil, {0}, bytes.Repeat([]byte{0}, 40), bytes.Repeat([]byte{0xff}, 40), whole[:min(40, cut)]} {
			if err := os.WriteFile(path, append(bytes.Clone(whole[:cut]), garbage...), 0o600); err != nil {
				t.Fatal(err)
			}
			want := 0
			for want < n && ends[want] <= cut {
				want++
			}
			s, highest, err := openSpool(states, dir, &o.limits, place{}, place{})
			if err != nil {
				if cut < len(magic) && len(garbage) > 0 {
					continue // it is none of our files any more
				}
				t.Fatalf("cut at %d: %v", cut, err)
			}
			got := 0
			r, lost := s.reader(), func(*segment) { t.Fatal("lost") }
			for rec, ok := r.peek(lost); ok; rec, ok = r.peek(lost) {
				if got++; rec.stamp != uint64(got) {
					t.Fatalf("cut at %d: record %d has the stamp %d", cut, got, rec.stamp)
				}
				r.skip(&rec)
			}
			if got != want || highest != uint64(want) {
				t.Fatalf("cut at %d and %d bytes behind it: %d records and the stamp %d, want %d", cut, len(garbage), got, highest, want)
			}
		}
	}
}

func FuzzSegment(f *testing.F) {
	f.Add(segmentOf(3), uint8(0))
	f.Add(segmentOf(3)[:90], uint8(40))
	f.Add([]byte(magic+"\xff\xff\xff\xff0000"), uint8(8))
	f.Fuzz(func(t *testing.T, b []byte, from uint8) {
		g := &segment{}
		_, err := g.scan(b, int64(from))
		if err != nil || g.size == 0 {
			return
		}
		if g.size > int64(len(b)) {
			t.Fatalf("%d bytes have %d of records", len(b), g.size)
		}
		// What was counted is what a reader gets.
		g.data = b
		s := &spool{segments: []*segment{g}}
		r, n, counted := s.reader(), int64(0), g.events()
		for rec, ok := r.peek(func(*segment) { t.Fatal("lost") }); ok; rec, ok = r.peek(func(*segment) { t.Fatal("lost") }) {
			if r.offset >= int64(from) {
				n++
			}
			r.skip(&rec)
		}
		if n != counted {
			t.Fatalf("%d records are read, %d were counted", n, counted)
		}
	})
}

func FuzzCursor(f *testing.F) {
	c := newCursor()
	f.Add(c.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := parseCursor(b); ok && !bytes.Equal(c.append(nil), b[:cursorSize]) {
			t.Fatal("it is read as something else")
		}
	})
}

func TestAnOutboxThatIsDamagedIsNotBegunAnew(t *testing.T) {
	dir := t.TempDir()
	o := open(t, "http://127.0.0.1:1", inDir(dir))
	o.leave()
	path := filepath.Join(dir, "cursor")
	whole, err := os.ReadFile(path)
	if err != nil || len(whole) != 2*slotSize {
		t.Fatalf("the cursor has %d bytes, %v", len(whole), err)
	}
	for slot := range 2 { // one may be torn
		b := bytes.Clone(whole)
		b[slot*slotSize+9]++
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if f, _, err := openCursor(dir); err != nil {
			t.Errorf("with slot %d torn: %v", slot, err)
		} else {
			f.close()
		}
	}
	whole[9]++
	whole[slotSize+9]++
	for _, b := range [][]byte{whole, {}, whole[:20]} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = Open(Config{Target: Target{URL: "http://127.0.0.1:1"}, Dir: dir, Log: o.cfg.Log})
		if err == nil || !strings.Contains(err.Error(), "move "+dir+" away") {
			t.Errorf("both damaged: %v", err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "state-0000000000000009.log"), []byte("hubbub\x00\x02 and more"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = Open(Config{Target: Target{URL: "http://127.0.0.1:1"}, Dir: dir, Log: o.cfg.Log}); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("a file of another version: %v", err)
	}
}

// fullDisk is one that can be full: what doesn't fit is written in part.
type fullDisk struct {
	mu   sync.Mutex
	room int64 // bytes that still fit
}

type fullFile struct {
	*os.File
	disk *fullDisk
}

func (f fullFile) Write(b []byte) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	n := min(int64(len(b)), f.disk.room)
	f.disk.room -= n
	wrote, err := f.File.Write(b[:n])
	if err == nil && wrote < len(b) {
		err = syscall.ENOSPC
	}
	return wrote, err
}

func (d *fullDisk) create(path string) (file, error) {
	f, err := limits{}.withDefaults().create(path)
	if err != nil {
		return nil, err
	}
	return fullFile{f.(*os.File), d}, nil
}

func (d *fullDisk) has(room int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = room
}

// While the disk is full events stay in memory, and get to the disk when there is room.
func TestAFullDisk(t *testing.T) {
	for room := int64(0); room < 9000; room += 611 {
		t.Run(fmt.Sprint(room, " bytes"), func(t *testing.T) {
			dir, b, disk := t.TempDir(), newBackend(t), &fullDisk{room: room}
			b.answers(status(http.StatusServiceUnavailable))
			o := open(t, b.URL, func(c *Config) { c.Dir = dir; c.limits.create = disk.create; c.limits.diskSegment = 2000 })
			const n = 200
			for i := range n {
				o.joined("r", i)
				if i%10 == 0 {
					until(t, o.stored)
				}
			}
			until(t, func() bool { return o.Figures().DiskFails })
			if f := o.Figures(); f.Memory == 0 || !strings.Contains(o.log.String(), "no space left on device") {
				t.Errorf("the figures are %+v, the log %s", f, o.log)
			}
			if room%2 == 0 { // some of it goes out meanwhile
				b.answers(nil)
				b.takes(50)
				b.answers(status(http.StatusServiceUnavailable))
			}
			disk.has(1 << 20)
			until(t, func() bool { f := o.Figures(); return !f.DiskFails && f.Memory == 0 }) // it goes to the disk in parts
			o.joined("r", n)
			o.leave()

			taken := slices.Clone(b.events)
			b = newBackend(t) // the one before may still be reading a request of the first life
			o = open(t, b.URL, inDir(dir))
			b.sees("the last of it", func() bool { return len(b.events) > 0 && b.events[len(b.events)-1].Seq == n+3 })
			events := append(taken, b.events...)
			withoutHoles(t, events, 1)
			next := 0
			for _, e := range events {
				if e.User == fmt.Sprint("user-", next) {
					next++
				}
			}
			if next != n+1 {
				t.Errorf("%d of %d events came in order", next, n+1)
			}
		})
	}
}

// A disk that stays full keeps the memory bounded.
func TestADiskThatStaysFull(t *testing.T) {
	disk := &fullDisk{}
	o := open(t, "http://127.0.0.1:1", func(c *Config) {
		c.Dir, c.limits.create, c.limits.memory, c.limits.memorySegment = t.TempDir(), disk.create, 64<<10, 4<<10
	})
	for i := range 5000 {
		o.joined("r", i)
		until(t, func() bool { return o.intake.waiting() <= 16<<10 })
		if f := o.Figures(); f.Memory > (64+16+8)<<10 {
			t.Fatalf("behind %d events the figures are %+v", i, f)
		}
	}
	o.leave()
	if f := o.Figures(); f.Dropped["member.joined"] == 0 || f.Dropped["member.joined"]+f.Events != 5001 {
		t.Errorf("the figures are %+v", f)
	}
	if !strings.Contains(o.log.String(), "in part nowhere") {
		t.Errorf("the log is %s", o.log)
	}
}

// A real full disk: a small tmpfs.
func TestASmallDisk(t *testing.T) {
	dir := t.TempDir()
	switch err := mountSmall(dir); {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, errors.ErrUnsupported):
		t.Skipf("a small tmpfs needs Linux and root, and the injected full disk is tested everywhere: %v", err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(dir) })
	b := newBackend(t)
	b.answers(status(http.StatusServiceUnavailable))
	o := open(t, b.URL, inDir(dir))
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk isn't full: %v", err)
	}
	const n = 2000
	for i := range n {
		o.joined("r", i)
	}
	until(t, func() bool { return o.Figures().DiskFails })
	b.answers(nil)
	b.takes(n + 1) // with the disk full
	withoutHoles(t, b.events, 1)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return !o.Figures().DiskFails })
	o.Close(context.Background())
	o = open(t, b.URL, inDir(dir))
	b.takes(n + 2)
	withoutHoles(t, b.events, 1)
	o.Close(context.Background())
}

// A crash while the disk is full loses what was in memory. What was under way of it keeps its numbers: they are missing
// then, and never stand for something else.
func TestACrashWhileTheDiskIsFull(t *testing.T) {
	dir, after, b, disk := t.TempDir(), t.TempDir(), newBackend(t), &fullDisk{}
	disk.has(100) // for the start
	o := open(t, b.URL, func(c *Config) { c.Dir = dir; c.limits.create = disk.create })
	b.takes(1)
	b.answers(status(http.StatusServiceUnavailable))
	for i := range 150 {
		o.joined("lost", i)
	}
	until(t, func() bool { f := o.Figures(); return f.DiskFails && f.Events == 150 })
	b.sees("what is in memory", func() bool { return b.requests[len(b.requests)-1].Events[0].Room == "lost" })
	if err := os.CopyFS(after, os.DirFS(dir)); err != nil { // as a crash leaves it
		t.Fatal(err)
	}
	o.leave()
	b.mu.Lock()
	last, all := uint64(0), []told(nil)
	for _, r := range b.requests {
		last = max(last, r.Events[len(r.Events)-1].Seq)
		all = append(all, r.Events...)
	}
	b.mu.Unlock()

	b = newBackend(t) // the one before may still be reading a request of the first life
	o = open(t, b.URL, inDir(after))
	o.joined("new", 0)
	b.sees("what is new", func() bool { return len(b.events) > 0 && b.events[len(b.events)-1].Room == "new" })
	first := b.taken[0]
	if first.Missing == nil || first.Missing.From != 2 || first.Missing.To != last || first.Events[0].Seq != last+1 || first.Events[0].Type != "node.started" {
		t.Errorf("up to %d was sent; behind the crash comes %.300s", last, first.Body)
	}
	for _, r := range b.requests {
		all = append(all, r.Events...)
	}
	withoutHoles(t, all, 1) // in the requests of both lives together
}

// A folder may be called as its owner likes, also by what is special in patterns.
func TestAFolderOfAnyName(t *testing.T) {
	dir, b := filepath.Join(t.TempDir(), `data[1]*?\`), newBackend(t)
	if runtime.GOOS == "windows" {
		t.Skip("Windows takes none of these letters")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b.answers(status(http.StatusServiceUnavailable))
	o := open(t, b.URL, inDir(dir))
	o.joined("first", 0)
	b.sees("a request", func() bool { return len(b.requests) > 0 })
	o.leave()
	b = newBackend(t) // the one before may still be reading a request of the first life
	o = open(t, b.URL, inDir(dir))
	b.takes(3)
	withoutHoles(t, b.events, 1)
	if b.events[1].Room != "first" {
		t.Errorf("behind a restart it is told %+v", b.events)
	}
}

// Who was not told how much was dropped before a restart is told behind it.
func TestWhatWasDroppedIsToldBehindARestart(t *testing.T) {
	dir, b := t.TempDir(), newBackend(t)
	b.answers(status(http.StatusServiceUnavailable))
	o := open(t, b.URL, func(c *Config) { c.Dir = dir; c.limits.disk, c.limits.diskSegment = 64<<10, 4<<10 })
	for i := range 200 {
		o.says("r", fmt.Sprintf(`"%01000d"`, i))
		until(t, o.stored)
	}
	dropped := o.Figures().Dropped["message.published"]
	if dropped == 0 {
		t.Fatal("nothing is dropped")
	}
	o.leave()
	b = newBackend(t) // the one before may still be reading a request of the first life
	o = open(t, b.URL, inDir(dir))
	b.takes(201 - int(dropped) + 1)
	o.Close(context.Background())
	var told int64
	for _, r := range b.taken {
		told += r.Dropped["message.published"]
	}
	if told != dropped {
		t.Errorf("%d were dropped, and the backend is told of %d", dropped, told)
	}
}

// Of a file that can't be read any more what is under way already is not lost.
func TestALossIsCountedOnce(t *testing.T) {
	dir, b := t.TempDir(), newBackend(t)
	b.answers(status(http.StatusServiceUnavailable))
	o := open(t, b.URL, inDir(dir))
	b.sees("node.started", func() bool { return len(b.requests) > 0 })
	for i := range 5 {
		o.joined("r", i)
	}
	until(t, o.stored)
	path := filepath.Join(dir, "state-0000000000000001.log")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole[len(whole)-2]++ // the last of the five
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	b.answers(nil)
	b.takes(5)
	o.Event(hub.Event{Kind: hub.Occupied, Room: "end"})
	b.sees("the end", func() bool { return b.events[len(b.events)-1].Room == "end" })
	until(t, func() bool { return o.Figures().Events <= 0 })
	if f := o.Figures(); f.Events != 0 || f.Dropped["member.joined"] != 1 {
		t.Errorf("%d events wait; it has dropped %v", f.Events, f.Dropped)
	}
}

// Where the disk takes nothing at all, not even the cursor, what was sent takes no memory from what is new.
func TestADiskThatIsReadOnly(t *testing.T) {
	b := newBackend(t)
	o := open(t, b.URL, func(c *Config) {
		c.Dir = t.TempDir()
		c.limits.memory, c.limits.memorySegment = 256<<10, 4<<10
		c.limits.create = func(string) (file, error) { return nil, syscall.EROFS }
	})
	o.file.f.Close()
	const n = 1500
	for i := range n {
		o.says("r", fmt.Sprintf(`"%01000d"`, i))
		o.joined("r", i)
		until(t, func() bool { return o.stored() && o.Figures().Events < 100 }) // so some wait nearly always
	}
	b.takes(1 + 2*n)
	withoutHoles(t, b.events, 1)
	for kind, dropped := range o.Figures().Dropped {
		if dropped != 0 {
			t.Errorf("%d of %s were dropped", dropped, kind)
		}
	}
}
