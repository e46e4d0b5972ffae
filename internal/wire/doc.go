// Package wire is the WebSocket protocol, RFC 6455, on byte slices: what came in becomes whole messages, what goes out
// becomes frames. It is pure: no connection, no clock, no goroutine. A Reader belongs to one goroutine at a time; the
// functions may be called from any.
//
// The receiving half is Reader. Its owner reads bytes from wherever they come and asks for events until they are used
// up:
//
//	for len(b) > 0 {
//		ev, n, ok, err := r.Next(b, maxMessage, nil)
//		if err != nil {
//			return wire.AppendClose(out, err.Code, err.Reason) // and hang up
//		}
//		b = b[n:]
//		if ok {
//			handle(ev) // ev.Payload lives until the next call of Next
//		}
//	}
//
// A frame that lies whole in b costs no copy and no memory: it is unmasked in place and the Reader stays zero. So one
// Reader can serve all connections that have nothing half received: it is copied for keeps when it is not Idle.
//
// The sending half is functions that append: AppendFrame, AppendHeader (for a payload that is written from elsewhere)
// and AppendClose. A server's frames are neither masked nor fragmented.
//
// The map:
//
//	frame.go      opcodes, and the headers and frames that are sent
//	reader.go     Reader: from bytes to events, and every rule about frames
//	close.go      close codes, Error, the body of a Close frame
//	utf8.go       the check of text that comes in pieces
//	mask.go       the XOR
//	extension.go  the header Sec-WebSocket-Extensions, permessage-deflate in it
//	deflate.go    Inflater, Deflater, and the windows of context takeover
//
// Compression, RFC 7692: AcceptDeflate agrees on it, Next gets an Inflater and then gives messages as they were before;
// a Deflater makes payloads for frames whose opcode has Deflated beside it.
//
// To debug a stream, put its bytes into the table of TestStreams or the seeds of FuzzReader: they feed it whole, split
// at every place, and byte by byte.
package wire
