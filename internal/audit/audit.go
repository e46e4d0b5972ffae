// Package audit is how the test kit looks at the accounts of a server, which are nobody else's affair: package hubbub
// sets Server.
package audit

// Server counts anew all that a *hubbub.Server keeps, and names each account that says something else. It is for a
// moment at which nothing is under way, and may block for some milliseconds. Any goroutine.
var Server func(server any) []string
