// Package api is the HTTP API for an application's backend: calls in JSON over the hub's own functions. docs/api.md is
// the same thing for people who write the backend, and openapi.yaml for programs; a test holds that file against the
// server in both directions.
//
// # What it promises
//
// A call is looked at whole before anything is done: a body that is no JSON, an unknown field, a field that stands
// twice and a wrong type are refused with the field's name. A call without a key that counts costs a hash and a line in
// the log once a second; its body isn't read. Nothing here waits but for a client's worker, and for a body that comes
// slowly, which the listener's own time bounds.
//
// # Where things are
//
//   - api.go: API, an http.Handler: path, key, right, body; the table of calls
//   - reader.go: strict JSON, one pass, no recursion
//   - body.go: the bodies of publish and batch
//   - publish.go: publish and batch are done
//   - quick.go: a publish without net/http; plainhead.go: which heads it takes
//   - lists.go: rooms, clients, users and what is known of them
//   - nodes.go: the nodes of a cluster, and its stores
//   - manage.go: members, clients and history are changed
//   - tail.go: Server-Sent Events
//   - problem.go: errors, by the tables
//   - counts.go: what /metrics shows
//   - openapi.go, openapi.yaml: the description
package api
