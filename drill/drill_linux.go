package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A drill is one fault and what may be seen of it from outside.
type drill struct {
	name    string
	promise string
	limit   time.Duration // of the full form; then it is ended
	run     func(*drill)

	short      bool
	seed       uint64
	rng        *rand.Rand
	program    string      // the server's binary
	logs       string      // a folder of the servers' logs; "" for none
	dir        string      // what it may make, and is removed
	prometheus *prometheus // nil where alarms aren't judged
	deadline   time.Time
	ns         string // the network namespace that its thread is in; "" for its own
	figures    []string
	faults     []string
	undo       []func() // last first
}

// stop is set by SIGINT and SIGTERM.
var stop atomic.Bool

// errAborted carries a drill that can't go on out of its depth.
var errAborted = errors.New("aborted")

func (d *drill) abort(format string, args ...any) {
	d.faults = append(d.faults, fmt.Sprintf(format, args...))
	panic(errAborted)
}

func (d *drill) check(err error) {
	if err != nil {
		d.abort("%v\n%s", err, debug.Stack())
	}
}

// alive ends a drill whose time is over.
func (d *drill) alive() {
	if stop.Load() {
		d.abort("interrupted")
	}
	if time.Now().After(d.deadline) {
		d.abort("did not end within its time")
	}
}

func (d *drill) cleanup(f func()) { d.undo = append(d.undo, f) }

// patience is how long is waited for what must come: a machine that is busy otherwise is no reason to fail.
const patience = 2 * time.Minute

// say adds a figure to the line.
func (d *drill) say(format string, args ...any) {
	d.figures = append(d.figures, fmt.Sprintf(format, args...))
}

// must judges a count, in both forms.
func (d *drill) must(ok bool, format string, args ...any) {
	if !ok {
		d.faults = append(d.faults, fmt.Sprintf(format, args...))
	}
}

// timed judges a time, which counts in the full form only.
func (d *drill) timed(ok bool, format string, args ...any) { d.must(ok || d.short, format, args...) }

// pick is a figure of the full form or of the short one.
func pick[T any](d *drill, full, short T) T {
	if d.short {
		return short
	}
	return full
}

// judge adds what the checker says of all logs.
func (d *drill) judge(f *fleet, v *verdict) {
	d.say("%s", v)
	d.must(v.clean(), "%s", strings.Join(v.examples, "; "))
	d.must(v.refused == 0, "%d publishes were answered with an error", v.refused)
	d.must(v.unrecovered == 0, "%d rooms were not recovered", v.unrecovered)
	d.must(v.acked > 0 && v.deliveries > 0, "nothing was delivered")
	d.must(len(f.faults) == 0, "%d answers make no sense: %s", len(f.faults), strings.Join(f.faults[:min(3, len(f.faults))], "; "))
}

// perform runs the drill and cleans up after it, whatever happens.
func (d *drill) perform() (ok bool) {
	began, others := time.Now(), othersBusy()
	d.deadline = began.Add(pick(d, d.limit, 8*time.Minute))
	d.rng = rand.New(rand.NewPCG(d.seed, 0))
	d.guarded(func() {
		d.run(d)
		d.judgeAlarms()
	})
	if d.prometheus != nil { // before the servers: what fires when these end is no fault
		d.prometheus.end()
		d.prometheus = nil
	}
	d.deadline = time.Now().Add(time.Minute)
	for i := len(d.undo) - 1; i >= 0; i-- {
		d.guarded(d.undo[i])
	}
	if share := (othersBusy() - others) / time.Since(began).Seconds() / float64(runtime.NumCPU()); share > 0.05 && time.Since(began) > 2*time.Second {
		d.say("other programs took %.0f %% of the processors", 100*share)
	}
	result := "PASS"
	if len(d.faults) > 0 {
		result = "FAIL"
		d.figures = append(d.figures, "FAULTS: "+strings.Join(d.faults, "; "))
	}
	fmt.Printf("%s %-12s %s (seed %d, %.0f s)\n", result, d.name, strings.Join(d.figures, "; "), d.seed, time.Since(began).Seconds())
	return result == "PASS"
}

// othersBusy is how many seconds the processors have worked for what is not of the drill. Servers count when they have
// ended.
func othersBusy() float64 {
	var name string
	var user, nice, system float64
	b, _ := os.ReadFile("/proc/stat")
	fmt.Sscan(string(b), &name, &user, &nice, &system) // in hundredths of a second
	busy := (user + nice + system) / 100
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		_ = unix.Getrusage(who, &u)
		busy -= time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
	}
	return busy
}

func (d *drill) guarded(f func()) {
	defer func() {
		if r := recover(); r != nil && r != errAborted {
			d.faults = append(d.faults, fmt.Sprintf("the drill itself panics: %v\n%s", r, debug.Stack()))
		}
	}()
	f()
}

func (d *drill) needRoot(what string) {
	if os.Getuid() != 0 {
		d.abort("needs root for %s: run it as root", what)
	}
}

// command runs a program that must succeed, and returns what it says.
func (d *drill) command(words ...string) string {
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		d.abort("not possible here: %s: %v %s", strings.Join(words, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out)
}
