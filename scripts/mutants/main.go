package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
)

// judges are the packages whose faults are looked for, and whose tests look.
var judges = map[string][]string{
	"internal/wire":          {"internal/wire"},
	"internal/protocol":      {"internal/protocol", "internal/protocol/room"},
	"internal/protocol/room": {"internal/protocol/room"},
	"internal/history":       {"internal/history", "internal/hub"},
	"internal/presence":      {"internal/presence", "internal/hub"},
	"internal/loop":          {"internal/loop", "internal/hub", ".", "hubbubtest", "conformance"},
	"internal/hub":           {"internal/hub", ".", "hubbubtest"},
	"internal/front":         {"internal/front", ".", "conformance"},
	"internal/glob":          {"internal/glob", "internal/hub", "."},
	".":                      {".", "hubbubtest", "conformance"},
}

type options struct {
	n     int
	seed  uint64
	jobs  int
	limit time.Duration
	long  bool
	out   io.Writer
}

func main() {
	var o options
	flag.IntVar(&o.n, "n", 100, "how many faults, of all that there are; 0: every one")
	flag.Uint64Var(&o.seed, "seed", 1, "which of them")
	flag.IntVar(&o.jobs, "jobs", runtime.GOMAXPROCS(0), "how many are looked for at once")
	flag.DurationVar(&o.limit, "limit", time.Minute, "how long tests look for one")
	flag.BoolVar(&o.long, "v", false, "print also what was found, and by which test")
	flag.Parse()
	pkgs := flag.Args()
	if len(pkgs) == 0 {
		pkgs = slices.Sorted(maps.Keys(judges))
	}
	o.out = os.Stdout
	t, err := openTree(".")
	if err == nil {
		err = mutants(t, judges, pkgs, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// lines is a writer of whole lines for several goroutines.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func mutants(t *tree, judges map[string][]string, pkgs []string, o options) error {
	o.out = &lines{w: o.out}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var sources []*source
	var all []*fault
	for _, pkg := range pkgs {
		if judges[pkg] == nil {
			return fmt.Errorf("%s: not one of the packages that this is for", pkg)
		}
		files, err := t.read(pkg)
		if err != nil {
			return err
		}
		for _, s := range files {
			s.find()
			all = append(all, s.faults...)
		}
		sources = append(sources, files...)
	}
	possible := len(all)
	random := rand.New(rand.NewPCG(o.seed, 0))
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if o.n > 0 {
		all = all[:min(o.n, len(all))]
	}
	began := time.Now()
	suites, all, err := build(t, judges, pkgs, dir, sources, all)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "%d faults of %d, seed %d; built in %s\n", len(all), possible, o.seed, time.Since(began).Round(time.Second))
	if err := survey(suites, dir, o); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "the tests ran without a fault, by %s\n\n", time.Since(began).Round(time.Second))
	report(all, look(judges, suites, all, o), pkgs, o, began)
	return nil
}

// build makes all test binaries; faults that don't compile are left out of the sample.
func build(t *tree, judges map[string][]string, pkgs []string, dir string, sources []*source, all []*fault) (map[string]*suite, []*fault, error) {
	for {
		overlay, err := t.overlay(dir, sources, all)
		if err != nil {
			return nil, nil, err
		}
		suites := map[string]*suite{}
		err = nil
		for _, pkg := range pkgs {
			for _, by := range judges[pkg] {
				if err == nil && suites[by] == nil {
					suites[by], err = t.build(by, dir, overlay)
				}
			}
		}
		if err == nil {
			return suites, all, nil
		}
		var bad *buildError
		if !errors.As(err, &bad) {
			return nil, nil, err
		}
		left := slices.DeleteFunc(slices.Clone(all), bad.blames)
		if len(left) == len(all) {
			return nil, nil, err
		}
		all = left
	}
}

// survey runs each test once. Those of one suite run one after the other: some measure. What fails now could not be
// believed later, and is left out.
func survey(suites map[string]*suite, dir string, o options) error {
	var group sync.WaitGroup
	var mu sync.Mutex
	var all error
	places := make(chan struct{}, o.jobs)
	for _, s := range suites {
		group.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			err := s.list()
			var good []test
			for _, t := range s.tests {
				if why := s.survey(&t, dir); why != nil {
					fmt.Fprintln(o.out, "left out:", why)
					continue
				}
				good = append(good, t)
			}
			s.tests = good
			mu.Lock()
			defer mu.Unlock()
			all = errors.Join(all, err)
		})
	}
	group.Wait()
	return all
}

func look(judges map[string][]string, suites map[string]*suite, all []*fault, o options) []verdict {
	verdicts := make([]verdict, len(all))
	next := make(chan int)
	var group sync.WaitGroup
	for range o.jobs {
		group.Go(func() {
			for i := range next {
				var by []*suite
				for _, pkg := range judges[all[i].pkg] {
					by = append(by, suites[pkg])
				}
				verdicts[i] = judge(by, i+1, o.limit)
				if v := verdicts[i]; !v.dead || o.long {
					fmt.Fprintf(o.out, "%s %s:%d: %s (%s)\n", map[bool]string{true: "dead ", false: "lives"}[v.dead], all[i].file, all[i].line, all[i].what, v.by)
				}
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	group.Wait()
	return verdicts
}

func report(all []*fault, verdicts []verdict, pkgs []string, o options, began time.Time) {
	fmt.Fprintln(o.out)
	dead := 0
	for _, pkg := range pkgs {
		d, n := 0, 0
		for i, f := range all {
			if f.pkg == pkg {
				n++
				if verdicts[i].dead {
					d++
				}
			}
		}
		dead += d
		fmt.Fprintf(o.out, "%-18s %3d of %3d found\n", pkg, d, n)
	}
	fmt.Fprintf(o.out, "%-18s %3d of %3d found, %d %%, in %s (seed %d)\n", "all", dead, len(all), 100*dead/max(1, len(all)), time.Since(began).Round(time.Second), o.seed)
}
