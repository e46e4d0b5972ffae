package hubbubtest

import (
	"testing/synctest"
	"time"
)

// Step puts a bubble's clock forward by d, and returns when all that was to happen by then has happened: timers have
// fired, what they sent has arrived. Step(0) only waits until nothing moves any more. Outside of a bubble it panics.
//
// What the server does at a time it does at most a second late.
func Step(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
