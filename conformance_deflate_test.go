package hubbub_test

import (
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"example.com/hubbub"
	"example.com/hubbub/internal/wire"
)

// Compression, RFC 7692, against a client that knows deflate from the standard library only.

const (
	offerHeader = "Sec-WebSocket-Extensions: "
	pmd         = "permessage-deflate"
	deflateTail = "\x00\x00\xff\xff"
)

// deflateClient is a rawClient that compresses what it sends, and reads what is compressed.
type deflateClient struct {
	*rawClient
	out   bytes.Buffer
	w     *flate.Writer
	keeps bool   // its messages refer to those before them
	past  []byte // what the server's may refer to
}

// dialDeflate offers, and checks the answer.
func dialDeflate(t testing.TB, s *testServer, offer, answer string) *deflateClient {
	t.Helper()
	c := &deflateClient{rawClient: connect(t, s), keeps: !strings.Contains(answer, "client_no_context_takeover")}
	c.sendRaw([]byte(upgradeHead(s, "/echo", offerHeader+offer)))
	r := c.response("GET")
	if got := strings.Join(r.Header["Sec-Websocket-Extensions"], "|"); r.StatusCode != http.StatusSwitchingProtocols || got != answer {
		t.Fatalf("%q is answered %s %q, want %q", offer, r.Status, got, answer)
	}
	c.w, _ = flate.NewWriter(&c.out, flate.DefaultCompression)
	return c
}

// squeeze is the compressed payload of a message.
func (c *deflateClient) squeeze(p []byte) []byte {
	c.out.Reset()
	if !c.keeps {
		c.w.Reset(&c.out)
	}
	c.w.Write(p)
	c.w.Flush()
	return bytes.TrimSuffix(bytes.Clone(c.out.Bytes()), []byte(deflateTail))
}

// say sends a compressed message in that many fragments.
func (c *deflateClient) say(op wire.Opcode, p []byte, fragments int) {
	z := c.squeeze(p)
	var stream []byte
	for i := range fragments {
		this := wire.Continuation
		if i == 0 {
			this = op | wire.Deflated
		}
		stream = append(stream, frame(this, i == fragments-1, z[i*len(z)/fragments:(i+1)*len(z)/fragments])...)
	}
	go c.trySend(stream) // the server may want to be read from meanwhile
}

// hear is the server's next message, and whether it was compressed.
func (c *deflateClient) hear() (op wire.Opcode, p []byte, deflated bool) {
	c.t.Helper()
	head, err := c.r.Peek(1)
	if err != nil {
		c.t.Fatal(err)
	}
	if head[0]&0x40 == 0 {
		op, p = c.next()
		return op, p, false
	}
	first, _ := c.r.ReadByte()
	op = wire.Opcode(first & 0x0f) // the frame is read as binary, since it is no text yet
	_, p, err = readServerFrame(io.MultiReader(bytes.NewReader([]byte{first&0x80 | byte(wire.Binary)}), c.r))
	if err != nil || op != wire.Text && op != wire.Binary {
		c.t.Fatalf("a compressed frame %#x: %v", first, err)
	}
	r := flate.NewReaderDict(strings.NewReader(string(p)+deflateTail+"\x01\x00\x00\xff\xff"), c.past)
	if p, err = io.ReadAll(r); err != nil {
		c.t.Fatalf("inflate: %v", err)
	}
	return op, p, true
}

// remember keeps p for the messages behind it, as far as the window goes.
func (c *deflateClient) remember(p []byte, bits int) {
	c.past = append(c.past, p...)
	c.past = c.past[max(0, len(c.past)-1<<bits):]
}

// words is text of n bytes that compresses.
func words(n int, rnd *rand.Rand) []byte {
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%s %d ", []string{"lorem", "ipsum", "dolor", "sit", "amet"}[rnd.IntN(5)], rnd.IntN(100))
	}
	return b.Bytes()[:n]
}

// The cases of the Autobahn test suite's sections 12 and 13: sizes up to 128 KiB, all windows, both ways of takeover,
// whole and in fragments.
func TestCompressedEcho(t *testing.T) {
	const fresh = "; server_no_context_takeover; client_no_context_takeover"
	eachIO(t, func(t *testing.T, io string) {
		for _, mode := range []string{"on", "context"} {
			s := startServer(t, hubbub.Config{IO: io, Compression: mode, MaxMessageBytes: 1 << 20, Workers: 2})
			for bits := 8; bits <= 15; bits++ {
				window := fmt.Sprintf("; server_max_window_bits=%d", bits)
				offers := map[string]string{pmd + window: pmd + fresh + window}
				if mode == "context" {
					offers = map[string]string{
						pmd + window: pmd + window,
						pmd + "; server_no_context_takeover" + window:                                  pmd + "; server_no_context_takeover" + window,
						pmd + "; client_no_context_takeover" + window:                                  pmd + "; client_no_context_takeover" + window,
						pmd + window + "; client_no_context_takeover" + "; server_no_context_takeover": pmd + fresh + window,
					}
				}
				for offer, answer := range offers {
					t.Run(mode+" "+answer, func(t *testing.T) {
						echoSizes(t, dialDeflate(t, s, offer, answer), bits, !strings.Contains(answer, "server_no_context_takeover"))
					})
				}
			}
		}
	})
}

func echoSizes(t *testing.T, c *deflateClient, bits int, serverKeeps bool) {
	rnd := rand.New(rand.NewPCG(1, uint64(bits)))
	for _, n := range []int{16, 64, 256, 511, 512, 1024, 4096, 8192, 16384, 65536, 131072, 0, 600} {
		for i, fragments := range []int{1, 2, 10} {
			if n > 16384 && i != bits%3 { // the race detector makes these slow
				continue
			}
			p, op := words(n, rnd), wire.Text
			if i == 1 {
				op = wire.Binary
			}
			c.say(op, p, fragments)
			gotOp, got, deflated := c.hear()
			if gotOp != op || !bytes.Equal(got, p) || deflated != (n >= 512) {
				t.Fatalf("%d bytes in %d fragments: %v %s, compressed: %v", n, fragments, gotOp, brief(got), deflated)
			}
			if deflated && serverKeeps {
				c.remember(p, bits)
			}
		}
	}
	c.send(wire.Text, true, []byte("a plain one")) // RFC 7692 6: any message may go uncompressed
	c.expect(wire.Text, []byte("a plain one"))
	noise := make([]byte, 2000)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	c.say(wire.Binary, noise, 1)
	c.expect(wire.Binary, noise)
	c.sendClose(wire.CloseNormal, "")
	c.expectClose(wire.CloseNormal)
}

func TestCompressionIsNegotiated(t *testing.T) {
	on, off := startServer(t, hubbub.Config{}), startServer(t, hubbub.Config{Compression: "off"})
	const fresh = pmd + "; server_no_context_takeover; client_no_context_takeover"
	dialDeflate(t, on, pmd+"; bogus, "+pmd+"; client_max_window_bits", fresh)
	dialDeflate(t, on, "x-other\r\n"+offerHeader+pmd, fresh) // several lines are one list
	dialDeflate(t, on, pmd+"; server_max_window_bits=16", "")
	dialDeflate(t, off, pmd, "")
	for _, s := range []*testServer{on, off} {
		c := connect(t, s)
		c.sendRaw([]byte(upgradeHead(s, "/echo", offerHeader+pmd+";;")))
		if r := c.response("GET"); r.StatusCode != http.StatusBadRequest {
			t.Errorf("a malformed header is answered %s", r.Status)
		}
	}
	if _, err := hubbub.New(hubbub.Config{Compression: "gzip"}); err == nil || !strings.Contains(err.Error(), `compression "gzip"`) {
		t.Errorf("an unknown mode: %v", err)
	}
}

func TestCompressedFaults(t *testing.T) {
	const answer = pmd + "; server_no_context_takeover; client_no_context_takeover"
	eachIO(t, func(t *testing.T, io string) {
		s := startServer(t, hubbub.Config{IO: io})
		for _, c := range []struct {
			name string
			send func(*deflateClient)
			code int
		}{
			{"broken data", func(c *deflateClient) { c.send(wire.Text|wire.Deflated, true, []byte("\xff\xff")) }, wire.CloseInvalidData},
			{"data that ends too soon", func(c *deflateClient) {
				z := c.squeeze(words(5000, rand.New(rand.NewPCG(1, 1))))
				c.send(wire.Text|wire.Deflated, true, z[:len(z)/2])
			}, wire.CloseInvalidData},
			{"a reference to the message before", func(c *deflateClient) {
				c.keeps = true
				c.send(wire.Text|wire.Deflated, true, c.squeeze([]byte("a message, a message")))
				c.hear()
				c.send(wire.Text|wire.Deflated, true, c.squeeze([]byte("a message, a message")))
			}, wire.CloseInvalidData},
			{"text that is not UTF-8", func(c *deflateClient) { c.say(wire.Text, []byte("caf\xe9 au lait"), 2) }, wire.CloseInvalidData},
			{"RSV1 on a ping", func(c *deflateClient) { c.send(wire.Ping|wire.Deflated, true, nil) }, wire.CloseProtocolError},
			{"RSV1 on a continuation", func(c *deflateClient) {
				c.send(wire.Text, false, []byte("a"))
				c.send(wire.Continuation|wire.Deflated, true, []byte("b"))
			}, wire.CloseProtocolError},
			{"RSV2", func(c *deflateClient) { c.send(wire.Text|0x20, true, nil) }, wire.CloseProtocolError},
			{"a message that inflates to too much", func(c *deflateClient) { c.say(wire.Binary, make([]byte, 64<<10+1), 3) }, wire.CloseTooBig},
		} {
			t.Run(c.name, func(t *testing.T) {
				client := dialDeflate(t, s, pmd, answer)
				c.send(client)
				client.expectClose(c.code)
			})
		}
		t.Run("the reason names what was agreed on and not kept", func(t *testing.T) {
			client := dialDeflate(t, s, pmd, answer)
			client.keeps = true
			message := []byte("a message, a message")
			client.say(wire.Text, message, 1)
			client.expect(wire.Text, message)
			client.say(wire.Text, message, 1)
			client.expect(wire.Close, closePayload(1007, "compressed data refers to an earlier message, against client_no_context_takeover"))
			client.closeNow()
		})
		t.Run("RSV1 where nothing was agreed on", func(t *testing.T) {
			c := dial(t, s, "/echo")
			c.send(wire.Text|wire.Deflated, true, []byte("\xf2\x48\xcd\xc9\xc9\x07\x00"))
			c.expectClose(wire.CloseProtocolError)
		})
	})
}

// 64 KiB that would become 64 MiB, again and again, cost under 1 MiB each, all in all.
func TestBombsCostLittle(t *testing.T) {
	s := startServer(t, hubbub.Config{Workers: 1})
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	w.Write(make([]byte, 65<<20))
	w.Flush()
	bomb := frame(wire.Binary|wire.Deflated, true, bytes.TrimSuffix(b.Bytes(), []byte(deflateTail)))
	const bombs = 5
	clients := make([]*deflateClient, bombs)
	for i := range clients {
		clients[i] = dialDeflate(t, s, pmd, pmd+"; server_no_context_takeover; client_no_context_takeover")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, c := range clients {
		go c.trySend(bomb)
		c.expectClose(wire.CloseTooBig)
	}
	runtime.ReadMemStats(&after)
	if spent := (after.TotalAlloc - before.TotalAlloc) / bombs; spent > 1<<20 {
		t.Errorf("a bomb of %d bytes took %d bytes", len(bomb), spent)
	} else {
		t.Logf("a bomb of %d bytes took %d bytes, its client's part included", len(bomb), spent)
	}
}

// A client that others wrote, in all its modes, with every mode of the server.
func TestCompressionWithAThirdPartyClient(t *testing.T) {
	eachIO(t, func(t *testing.T, io string) {
		for _, mode := range []string{"on", "context", "off"} {
			s := startServer(t, hubbub.Config{IO: io, Compression: mode, MaxMessageBytes: 1 << 20})
			for name, theirs := range map[string]websocket.CompressionMode{"takeover": websocket.CompressionContextTakeover, "no takeover": websocket.CompressionNoContextTakeover} {
				t.Run(mode+" "+name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
					defer cancel()
					c, r, err := websocket.Dial(ctx, "ws://"+s.addr+"/echo", &websocket.DialOptions{CompressionMode: theirs, CompressionThreshold: 1})
					if err != nil {
						t.Fatal(err)
					}
					defer c.CloseNow()
					if got := r.Header.Get("Sec-WebSocket-Extensions"); (got == "") != (mode == "off") {
						t.Fatalf("the answer %q", got)
					}
					c.SetReadLimit(-1)
					rnd := rand.New(rand.NewPCG(2, 3))
					for _, n := range []int{0, 1, 16, 511, 512, 513, 4096, 65535, 65536, 131072, 1000, 1000} {
						p := words(n, rnd)
						if err := c.Write(ctx, websocket.MessageText, p); err != nil {
							t.Fatal(err)
						}
						kind, got, err := c.Read(ctx)
						if kind != websocket.MessageText || err != nil || !bytes.Equal(got, p) {
							t.Fatalf("%d bytes: %v %v %s", n, kind, err, brief(got))
						}
					}
					if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
						t.Error(err)
					}
				})
			}
		}
	})
}
