// Package rate is token buckets: how much of a thing may be done at once, and how much in the long run. It is pure: the
// time is an argument, in milliseconds of any clock, and may even go back; nothing runs, and nothing is rounded.
//
//	limits := rate.Limits{rate.Messages: {N: 50, Per: 1000, Burst: 100}}
//	var b rate.Buckets // all full
//	if wait, of := b.Take(&limits, now, &rate.Amounts{rate.Messages: 1}); wait > 0 {
//		return fmt.Errorf("too many %s, try again in %d ms", of, wait)
//	}
//
// Values are owned by their caller: none is safe for two goroutines at once.
//
//   - bucket.go: Limit, Bucket: one thing
//   - buckets.go: Limits, Buckets, Amounts: all that a client, a user or an address may do; taken together or not at all
//   - excess.go: Excess: who goes on though it is refused
package rate
