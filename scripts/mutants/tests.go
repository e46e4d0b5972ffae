package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// suite is the tests of one package, built with all faults in it.
type suite struct {
	pkg    string
	dir    string
	binary string
	tests  []test
}

// test is one of them, as it was without any fault.
type test struct {
	name   string
	took   time.Duration
	passes map[int]bool // the faults whose places it comes by
}

// build makes the test binary of a package.
func (t *tree) build(pkg, dir, overlay string) (*suite, error) {
	s := &suite{pkg: pkg, dir: filepath.Join(t.dir, pkg), binary: filepath.Join(dir, strings.ReplaceAll(path.Join("root", pkg), "/", "_")+".test")}
	cmd := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", s.binary, "./"+pkg)
	cmd.Dir = t.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, &buildError{pkg, string(out)}
	}
	return s, nil
}

// buildError is what the compiler said.
type buildError struct{ pkg, out string }

func (e *buildError) Error() string { return fmt.Sprintf("build the tests of %s:\n%s", e.pkg, e.out) }

var compilerLine = regexp.MustCompile(`(?m)^\S*?([^/\s:]+\.go):(\d+):`)

// blames says whether the compiler speaks of the line that a fault is in.
func (e *buildError) blames(f *fault) bool {
	for _, m := range compilerLine.FindAllStringSubmatch(e.out, -1) {
		if line, _ := strconv.Atoi(m[2]); line == f.line && strings.HasSuffix(f.file, strings.TrimPrefix(m[1], strings.ReplaceAll(path.Dir(f.file), "/", "_")+"_")) {
			return true
		}
	}
	return false
}

// list names the tests, not yet run.
func (s *suite) list() error {
	cmd := exec.Command(s.binary, "-test.list", "^(Test|Fuzz|Example)")
	cmd.Dir = s.dir
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("list the tests of %s: %w", s.pkg, err)
	}
	for name := range strings.FieldsSeq(string(out)) {
		s.tests = append(s.tests, test{name: name})
	}
	return nil
}

// survey runs a test by itself, without a fault, and notes how long it takes and what it comes by.
func (s *suite) survey(t *test, dir string) error {
	trace := filepath.Join(dir, strings.ReplaceAll(s.pkg, "/", "_")+"."+t.name+".trace")
	began := time.Now()
	out, err := s.run([]string{t.name}, 10*time.Minute, "MUTANT_TRACE="+trace)
	if err != nil {
		return fmt.Errorf("without a fault %s of %s fails: %w\n%s", t.name, s.pkg, err, out)
	}
	t.took = time.Since(began)
	t.passes = map[int]bool{}
	text, err := os.ReadFile(trace)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for id := range bytes.FieldsSeq(text) {
		n, _ := strconv.Atoi(string(id))
		t.passes[n] = true
	}
	return nil
}

// run runs these tests; the error says that one failed, or that it took longer than limit.
func (s *suite) run(names []string, limit time.Duration, env string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary, "-test.failfast", "-test.run", "^("+strings.Join(names, "|")+")$")
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), env, "RAPID_NOFAILFILE=1") // or each fault that a random test finds would leave a file in the tree
	cmd.WaitDelay = 5 * time.Second                           // where it has started others
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return string(out), ctx.Err()
	}
	return string(out), err
}

// round is tests of one suite that are run together.
type round struct {
	s     *suite
	names []string
	took  time.Duration
}

// rounds are the tests that come by a fault's place, the shortest first.
func rounds(suites []*suite, id int) (all []round) {
	const together = 2 * time.Second
	for _, s := range suites {
		var some []test
		for _, t := range s.tests {
			if t.passes[id] {
				some = append(some, t)
			}
		}
		slices.SortFunc(some, func(a, b test) int { return int(a.took - b.took) })
		var r round
		for _, t := range some {
			if len(r.names) > 0 && r.took+t.took > together {
				all, r = append(all, r), round{}
			}
			r.s, r.names, r.took = s, append(r.names, t.name), r.took+t.took
		}
		if len(r.names) > 0 {
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(a, b round) int { return int(a.took - b.took) })
	return all
}

// verdict is what became of a fault.
type verdict struct {
	dead bool
	by   string // the test that fails, or why nobody does
}

var failed = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

// judge has the tests look for a fault, for about limit in all.
func judge(suites []*suite, id int, limit time.Duration) verdict {
	all := rounds(suites, id)
	if len(all) == 0 {
		return verdict{false, "no test comes by"}
	}
	began := time.Now()
	ran, tests := 0, 0
	for _, r := range all {
		tests += len(r.names)
	}
	for _, r := range all {
		if time.Since(began)+r.took > limit && ran > 0 {
			return verdict{false, fmt.Sprintf("%d of the %d tests that come by had time", ran, tests)}
		}
		out, err := r.s.run(r.names, 10*time.Second+10*r.took, fmt.Sprint("MUTANT=", id))
		if err != nil {
			by := err.Error()
			if m := failed.FindStringSubmatch(out); m != nil {
				by = m[1]
			}
			return verdict{true, by}
		}
		ran += len(r.names)
	}
	return verdict{false, fmt.Sprintf("%d tests come by", tests)}
}
