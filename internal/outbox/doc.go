// Package outbox tells the application's backend what happens, by webhooks: it takes events from the hub, keeps them on
// disk or in memory until the backend has taken them, and loses none in silence.
//
//   - event.go: the events, their names, and their JSON
//   - intake.go: where they lie between a worker and the outbox; Outbox is a hub.Sink
//   - segment.go: the form in which they lie on disk and in memory
//   - spool.go: the segments of one class of events, and how they are read in order
//   - cursor.go: how far the backend has been told, on disk
//   - outbox.go: Outbox and its goroutine: what is written when, what is dropped, a disk that fails, the end
//   - batch.go: what goes into one request, and what becomes of it
//   - sender.go: the request
//   - figures.go: for the metrics
//
// One goroutine owns all but the intake. An event is numbered when it goes into a request, not when it happens: so what
// had to be dropped leaves no hole. docs/decisions/0011-outbox.md says why it is as it is.
package outbox
