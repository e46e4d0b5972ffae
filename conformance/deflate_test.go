package conformance

import (
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// Compression, RFC 7692, against a client that knows deflate from the standard library only.

const pmd = "permessage-deflate"

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
	rawtest.EachIO(t, func(t *testing.T, io string) {
		for _, mode := range []string{"on", "context"} {
			s := rawtest.Start(t, hubbub.Config{IO: io, Compression: mode, MaxMessageBytes: 1 << 20, Workers: 2})
			for bits := 8; bits <= 15; bits++ {
				if io != "epoll" && bits%7 != 1 { // 8 and 15: it is deflated by the same code
					continue
				}
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
						echoSizes(t, rawtest.DialDeflate(t, s, offer, answer), bits, !strings.Contains(answer, "server_no_context_takeover"))
					})
				}
			}
		}
	})
}

func echoSizes(t *testing.T, c *rawtest.DeflateClient, bits int, serverKeeps bool) {
	rnd := rand.New(rand.NewPCG(1, uint64(bits)))
	for _, n := range []int{16, 64, 256, 511, 512, 1024, 4096, 8192, 16384, 65536, 131072, 0, 600} {
		for i, fragments := range []int{1, 2, 10} {
			if n > 16384 && i != bits%3 { // the race detector makes these slow
				continue
			}
			p, op := words(n, rnd), wsclient.Text
			if i == 1 {
				op = wsclient.Binary
			}
			c.Say(op, p, fragments)
			gotOp, got, deflated := c.Hear()
			if gotOp != op || !bytes.Equal(got, p) || deflated != (n >= 512) {
				t.Fatalf("%d bytes in %d fragments: %v %s, compressed: %v", n, fragments, gotOp, rawtest.Brief(got), deflated)
			}
			if deflated && serverKeeps {
				c.Remember(p, bits)
			}
		}
	}
	c.Send(wsclient.Text, true, []byte("a plain one")) // RFC 7692 6: any message may go uncompressed
	c.Expect(wsclient.Text, []byte("a plain one"))
	noise := make([]byte, 2000)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	c.Say(wsclient.Binary, noise, 1)
	c.Expect(wsclient.Binary, noise)
	c.SendClose(1000, "")
	c.ExpectClose(1000)
}

func TestCompressionIsNegotiated(t *testing.T) {
	on, off := rawtest.Start(t, hubbub.Config{}), rawtest.Start(t, hubbub.Config{Compression: "off"})
	const fresh = pmd + "; server_no_context_takeover; client_no_context_takeover"
	rawtest.DialDeflate(t, on, pmd+"; bogus, "+pmd+"; client_max_window_bits", fresh)
	rawtest.DialDeflate(t, on, "x-other\r\n"+rawtest.OfferHeader+pmd, fresh) // several lines are one list
	rawtest.DialDeflate(t, on, pmd+"; server_max_window_bits=16", "")
	rawtest.DialDeflate(t, off, pmd, "")
	for _, s := range []*rawtest.Server{on, off} {
		c := rawtest.Connect(t, s)
		c.SendRaw([]byte(rawtest.Upgrade(s, "/echo", rawtest.OfferHeader+pmd+";;")))
		if r := c.Response("GET"); r.StatusCode != http.StatusBadRequest {
			t.Errorf("a malformed header is answered %s", r.Status)
		}
	}
	if _, err := hubbub.New(hubbub.Config{Compression: "gzip"}); err == nil || !strings.Contains(err.Error(), `compression "gzip"`) {
		t.Errorf("an unknown mode: %v", err)
	}
}

func TestCompressedFaults(t *testing.T) {
	const answer = pmd + "; server_no_context_takeover; client_no_context_takeover"
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		for _, c := range []struct {
			name string
			send func(*rawtest.DeflateClient)
			code int
		}{
			{"broken data", func(c *rawtest.DeflateClient) { c.Send(wsclient.Text|wsclient.Deflated, true, []byte("\xff\xff")) }, 1007},
			{"data that ends too soon", func(c *rawtest.DeflateClient) {
				z := c.Squeeze(words(5000, rand.New(rand.NewPCG(1, 1))))
				c.Send(wsclient.Text|wsclient.Deflated, true, z[:len(z)/2])
			}, 1007},
			{"a reference to the message before", func(c *rawtest.DeflateClient) {
				c.Keeps = true
				c.Send(wsclient.Text|wsclient.Deflated, true, c.Squeeze([]byte("a message, a message")))
				c.Hear()
				c.Send(wsclient.Text|wsclient.Deflated, true, c.Squeeze([]byte("a message, a message")))
			}, 1007},
			{"text that is not UTF-8", func(c *rawtest.DeflateClient) { c.Say(wsclient.Text, []byte("caf\xe9 au lait"), 2) }, 1007},
			{"RSV1 on a ping", func(c *rawtest.DeflateClient) { c.Send(wsclient.Ping|wsclient.Deflated, true, nil) }, 1002},
			{"RSV1 on a continuation", func(c *rawtest.DeflateClient) {
				c.Send(wsclient.Text, false, []byte("a"))
				c.Send(wsclient.Continuation|wsclient.Deflated, true, []byte("b"))
			}, 1002},
			{"RSV2", func(c *rawtest.DeflateClient) { c.Send(wsclient.Text|0x20, true, nil) }, 1002},
			{"a message that inflates to too much", func(c *rawtest.DeflateClient) { c.Say(wsclient.Binary, make([]byte, 64<<10+1), 3) }, 1009},
		} {
			t.Run(c.name, func(t *testing.T) {
				client := rawtest.DialDeflate(t, s, pmd, answer)
				c.send(client)
				client.ExpectClose(c.code)
			})
		}
		t.Run("the reason names what was agreed on and not kept", func(t *testing.T) {
			client := rawtest.DialDeflate(t, s, pmd, answer)
			client.Keeps = true
			message := []byte("a message, a message")
			client.Say(wsclient.Text, message, 1)
			client.Expect(wsclient.Text, message)
			client.Say(wsclient.Text, message, 1)
			client.Expect(wsclient.Close, wsclient.ClosePayload(1007, "compressed data refers to an earlier message, against client_no_context_takeover"))
			client.CloseNow()
		})
		t.Run("RSV1 where nothing was agreed on", func(t *testing.T) {
			c := rawtest.Dial(t, s, "/echo")
			c.Send(wsclient.Text|wsclient.Deflated, true, []byte("\xf2\x48\xcd\xc9\xc9\x07\x00"))
			c.ExpectClose(1002)
		})
	})
}

// 64 KiB that would become 64 MiB, again and again, cost under 1 MiB each, all in all.
func TestBombsCostLittle(t *testing.T) {
	s := rawtest.Start(t, hubbub.Config{Workers: 1})
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	w.Write(make([]byte, 65<<20))
	w.Flush()
	bomb := rawtest.Frame(wsclient.Binary|wsclient.Deflated, true, bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff")))
	const bombs = 5
	clients := make([]*rawtest.DeflateClient, bombs)
	for i := range clients {
		clients[i] = rawtest.DialDeflate(t, s, pmd, pmd+"; server_no_context_takeover; client_no_context_takeover")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, c := range clients {
		go c.TrySend(bomb)
		c.ExpectClose(1009)
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
	rawtest.EachIO(t, func(t *testing.T, io string) {
		for _, mode := range []string{"on", "context", "off"} {
			s := rawtest.Start(t, hubbub.Config{IO: io, Compression: mode, MaxMessageBytes: 1 << 20})
			for name, theirs := range map[string]websocket.CompressionMode{"takeover": websocket.CompressionContextTakeover, "no takeover": websocket.CompressionNoContextTakeover} {
				t.Run(mode+" "+name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), 2*rawtest.Patience)
					defer cancel()
					c, r, err := websocket.Dial(ctx, "ws://"+s.Addr+"/echo", &websocket.DialOptions{CompressionMode: theirs, CompressionThreshold: 1})
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
							t.Fatalf("%d bytes: %v %v %s", n, kind, err, rawtest.Brief(got))
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
