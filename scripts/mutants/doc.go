// Command mutants plants small faults, one at a time, and says which of them no test sees.
//
//	go run ./scripts/mutants -n 200 -seed 7                # of all packages
//	go run ./scripts/mutants -n 50 internal/hub            # of one
//
// A fault is a statement that is left out, two that change places, a condition that never or always holds, an operand
// of && or || that is not asked, a bound that is off by one, a plus for a minus, a min for a max. All of a sample are
// built into the test binaries once, each behind a switch (go build's -overlay; the tree stays as it is), so that a
// fault costs no build but the tests alone, of which those that come by its place are run, the shortest first, until
// one fails.
//
// What is printed is each survivor with its place and what was changed, then the score. A survivor is a question: a
// test that is missing, code that nobody needs, or a change that makes no difference. docs/decisions/0008-mutants.md
// says why this is a program of our own.
//
// The map: plant.go finds the places in a package, weave.go builds them in, tests.go runs the tests, main.go is the
// rest.
package main
