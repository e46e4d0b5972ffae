// Package front is what stands before a session: what a listener, a handshake and a certificate need before anybody has
// joined anything. It knows net/http and sockets, and neither rooms nor frames; what is said to those who are refused
// is the caller's.
//
// Goroutines: all of it may be used from any; only Gate.Accept blocks, and Listen and ReadCertificate as package os
// does. A Gate with a Quick has one that accepts and, for each connection that net/http doesn't have, one that reads; with
// sockets one for all of which nothing has come, and one for each that has sent something else than a whole upgrade. They
// end with Close and these connections.
//
// The map:
//
//	gate.go         Gate: how many connections may be between Accept and the upgrade
//	arrival.go      whether a connection's client keeps the server waiting
//	heads.go        the goroutines that read what comes first, where there is a Quick
//	quick.go        Quick: requests that are answered without net/http
//	sockets_*.go    the same for TCP on Linux, without package net: accepting, and waiting for what comes first
//	socket_linux.go socket: one such connection, which is a net.Conn when somebody must wait for it
//	upgrade.go      an upgrade that net/http doesn't see
//	turn.go         TakeTurn: how many upgrades are under way at once, and who goes first
//	lane.go         Lane: how many requests of a kind that want no WebSocket
//	perip.go        PerIP: how many connections of an address
//	origin.go       Origins: the pages that may connect
//	proxies.go      Proxies: who may say for whom it speaks, and what it says
//	proxyheader.go  the PROXY protocol's header; pure
//	proxyconn.go    ProxyListener: connections that begin with one
//	address.go      Listen: addresses, and the files of Unix sockets
//	certificate.go  Certificate: PEM files that are read again
//	quiet.go        Quiet: gives memory back behind a burst of connects
//	unread_*.go     whether a socket has anything to read
package front
