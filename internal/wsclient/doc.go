// Package wsclient is the client's half of RFC 6455 on bytes, for all of ours that asks the server from outside: tests,
// the test kit, drills and the load generator. It is pure: no connection, no clock, no goroutine.
//
//	out = wsclient.Append(out, true, wsclient.Text, mask, payload) // one frame, masked
//
//	for {
//		f, size, err := wsclient.Parse(in, most) // where bytes lie in a buffer
//		if err != nil || size > len(in) {
//			break // a fault of the server's, or not all there
//		}
//		in = in[size:]
//		handle(f)
//	}
//
//	f, err := wsclient.Read(stream, most) // where a goroutine may wait for them
//
// Append breaks any rule that it is told to. Parse and Read are strict: what a server may not send is an error. Parts
// joins fragments, Inflater undoes permessage-deflate, ParseClose takes a Close apart, Upgrade is a handshake.
//
// It shares nothing with internal/wire, the server's codec, not even the XOR or the names of the opcodes: who wrote
// both ends with the same code would see a length, a bit or a mask that is wrong at both as right. Inflater is built on
// the library that the server deflates with, because the load generator needs its speed; the tests of package
// conformance inflate by the standard library's.
package wsclient
