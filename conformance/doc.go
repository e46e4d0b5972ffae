// Package conformance holds a live server against RFC 6455 and RFC 7692 from outside: by sockets, through the public
// API, with a client that shares no code with it (internal/wsclient). It has tests only.
//
// A story (conformance_test.go) is the frames that a client sends to /echo and all that it must get for them, told in
// one packet, frame by frame and byte by byte, for each way of I/O. The cases follow the sections of Autobahn's fuzzing
// client.
//
//	conformance_test.go  stories; sizes, pings, reserved bits and opcodes, fragments, masks, lengths
//	handshake_test.go    the opening handshake, origins, bytes in odd packets
//	text_test.go         UTF-8
//	size_test.go         large messages, and those that are too large
//	close_test.go        the closing handshake, failures, resets
//	deflate_test.go      permessage-deflate
//	fuzz_test.go         garbage, mutated frames, FuzzServer
package conformance
