package rawtest

import (
	"bytes"
	"compress/flate"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/internal/wsclient"
)

// OfferHeader is what begins a header line that offers extensions.
const OfferHeader = "Sec-WebSocket-Extensions: "

// deflateTail is what RFC 7692 7.2.1 takes off a message.
const deflateTail = "\x00\x00\xff\xff"

// DeflateClient is a Client that compresses what it sends, and reads what is compressed. It knows deflate from the
// standard library only, which the server doesn't use.
type DeflateClient struct {
	*Client
	Keeps bool // its messages refer to those before them
	out   bytes.Buffer
	w     *flate.Writer
	past  []byte // what the server's may refer to
}

// DialDeflate makes a WebSocket to /echo with this offer, and checks the answer.
func DialDeflate(t testing.TB, s *Server, offer, answer string) *DeflateClient {
	t.Helper()
	c := &DeflateClient{Client: Connect(t, s), Keeps: !strings.Contains(answer, "client_no_context_takeover")}
	c.SendRaw([]byte(Upgrade(s, "/echo", OfferHeader+offer)))
	r := c.Response("GET")
	if got := strings.Join(r.Header["Sec-Websocket-Extensions"], "|"); r.StatusCode != http.StatusSwitchingProtocols || got != answer {
		t.Fatalf("%q is answered %s %q, want %q", offer, r.Status, got, answer)
	}
	c.w, _ = flate.NewWriter(&c.out, flate.DefaultCompression)
	return c
}

// Squeeze is the compressed payload of a message.
func (c *DeflateClient) Squeeze(p []byte) []byte {
	c.out.Reset()
	if !c.Keeps {
		c.w.Reset(&c.out)
	}
	c.w.Write(p)
	c.w.Flush()
	return bytes.TrimSuffix(bytes.Clone(c.out.Bytes()), []byte(deflateTail))
}

// Say sends a compressed message in that many fragments. It doesn't wait: the server may want to be read from
// meanwhile.
func (c *DeflateClient) Say(op wsclient.Opcode, p []byte, fragments int) {
	z := c.Squeeze(p)
	var stream []byte
	for i := range fragments {
		this := wsclient.Continuation
		if i == 0 {
			this = op | wsclient.Deflated
		}
		stream = append(stream, Frame(this, i == fragments-1, z[i*len(z)/fragments:(i+1)*len(z)/fragments])...)
	}
	go c.TrySend(stream)
}

// Hear is the server's next message, and whether it was compressed.
func (c *DeflateClient) Hear() (op wsclient.Opcode, p []byte, deflated bool) {
	c.T.Helper()
	c.NC.SetReadDeadline(time.Now().Add(c.Timeout))
	f, err := wsclient.Read(c.R, maxFrame)
	if err != nil {
		c.T.Fatal(err)
	}
	deflated = f.Deflated
	if deflated {
		r := flate.NewReaderDict(strings.NewReader(string(f.Payload)+deflateTail+"\x01\x00\x00\xff\xff"), c.past)
		if f.Payload, err = io.ReadAll(r); err != nil {
			c.T.Fatalf("inflate: %v", err)
		}
		f.Deflated = false
	}
	if err := check(f); err != nil {
		c.T.Fatal(err)
	}
	return f.Op, f.Payload, deflated
}

// Remember keeps p for the messages behind it, as far as the window goes.
func (c *DeflateClient) Remember(p []byte, bits int) {
	c.past = append(c.past, p...)
	c.past = c.past[max(0, len(c.past)-1<<bits):]
}
