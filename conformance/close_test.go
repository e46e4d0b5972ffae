package conformance

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// The end of a connection (RFC 6455 5.5.1 and 7; Autobahn's section 7).

func TestClosingHandshake(t *testing.T) {
	reason := strings.Repeat("*", 123)
	stories := []story{
		{"7.1.1 after a message", [][]byte{text("Hello"), bye}, echoed(`text "Hello"`)},
		{"7.1.2 twice", [][]byte{bye, bye}, echoed()},
		{"7.1.3 a ping after it", [][]byte{bye, ping("")}, echoed()},
		{"7.1.4 a text after it", [][]byte{bye, text("too late")}, echoed()},
		{"7.1.5 in a message", [][]byte{begin("fragment"), bye, last("too late")}, echoed()},
		{"garbage after it", [][]byte{bye, []byte("\xff\xff garbage")}, echoed()},
		{"7.3.1 without a code", [][]byte{closing(wsclient.NoStatus, "")}, []string{"close without a code"}},
		{"7.3.2 of one byte", [][]byte{rawtest.Frame(wsclient.Close, true, []byte{3})}, failed(1002)},
		{"7.3.4 with a reason", [][]byte{closing(1000, "Hello World!")}, echoed()},
		{"7.3.5 with the longest reason", [][]byte{closing(1000, reason)}, echoed()},
		{"7.3.6 with too long a reason", [][]byte{closing(1000, reason+"*")}, failed(1002)},
		{"7.5.1 with a reason that is not UTF-8", [][]byte{closing(1000, kosme+"\xed\xa0\x80edited")}, failed(1007)},
		{"with half a rune as its reason", [][]byte{closing(1000, "\xce")}, failed(1007)},
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		stories = append(stories, story{fmt.Sprintf("7.7 valid %d", code), [][]byte{closing(code, "")}, failed(code)})
	}
	for _, code := range []int{0, 1, 999, 1004, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		stories = append(stories, story{fmt.Sprintf("7.9 invalid %d", code), [][]byte{closing(code, "")}, failed(1002)})
	}
	stories = append(stories, story{"7.9 invalid 1005", [][]byte{rawtest.Frame(wsclient.Close, true, []byte{0x03, 0xed})}, failed(1002)})
	conform(t, stories)
}

// Who closes first keeps the TCP connection in TIME_WAIT; RFC 6455 7.1.1 wants that to be the server.
func TestServerHangsUpAfterTheClosingHandshake(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		for _, path := range []string{"/echo", "/ws"} {
			c := rawtest.Dial(t, s, path)
			if path == "/ws" {
				c.NextJSON()
			}
			c.SendClose(4321, "enough")
			c.ExpectClose(4321)
		}
		rawtest.Eventually(t, "no connection is left", func() bool { return s.Connections() == 0 })
	})
}

func TestEchoesComeBeforeTheClose(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, MaxMessageBytes: 1 << 20})
		c := rawtest.Dial(t, s, "/echo")
		big := bytes.Repeat([]byte("BAsd7&jh23"), 26_000) // 7.1.6: 260 kB, then the end
		go c.SendRaw(bytes.Join([][]byte{rawtest.Frame(wsclient.Text, true, big), text("Hello"), bye, ping("")}, nil))
		c.Expect(wsclient.Text, big)
		c.Expect(wsclient.Text, []byte("Hello"))
		c.ExpectCloseFrame(1000)
	})
}

// A socket that is closed while it holds unread bytes resets the connection, and the peer may never see the code.
func TestFailureIsToldDespiteMuchUnreadData(t *testing.T) {
	for _, tt := range []struct {
		name string
		bad  []byte
		code int
	}{
		{"protocol error", []byte{0xff, 0xff}, 1002},
		{"bad text", text("\xff"), 1007},
		{"too big", []byte{0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4}, 1009},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rawtest.EachIO(t, func(t *testing.T, io string) {
				s := rawtest.Start(t, hubbub.Config{IO: io})
				for _, path := range []string{"/echo", "/ws"} {
					c := rawtest.Dial(t, s, path)
					if path == "/ws" {
						c.NextJSON()
					}
					c.SendRaw(append(bytes.Clone(tt.bad), make([]byte, 1<<20)...))
					c.ExpectClose(tt.code)
					c.CloseNow()
				}
				rawtest.Eventually(t, "no connection is left", func() bool { return s.Connections() == 0 })
			})
		})
	}
}

func TestFailureBehindTheHandshakeIsTold(t *testing.T) {
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		c := rawtest.Connect(t, s)
		c.SendRaw(append([]byte(rawtest.Upgrade(s, "/echo")), 0x81, 0x05)) // unmasked
		c.ExpectUpgrade()
		c.ExpectClose(1002)
	})
}

func TestHalfClosedAndResetConnectionsEnd(t *testing.T) {
	half := text("never whole")
	half = half[:len(half)-3]
	for _, tt := range []struct {
		name string
		do   func(c *rawtest.Client)
	}{
		{"end of the stream between two frames", func(c *rawtest.Client) { c.EndSending(); c.ExpectEOF() }},
		{"end of the stream inside of a frame", func(c *rawtest.Client) { c.SendRaw(half); c.EndSending(); c.ExpectEOF() }},
		{"end of the stream behind a message", func(c *rawtest.Client) {
			c.SendRaw(append(ping("you there?"), half...))
			c.EndSending()
			c.Expect(wsclient.Pong, []byte("you there?"))
			c.ExpectEOF()
		}},
		{"end of the stream behind a Close", func(c *rawtest.Client) { c.SendRaw(bye); c.EndSending(); c.ExpectClose(1000) }},
		{"end of the stream behind a fault", func(c *rawtest.Client) { c.SendRaw([]byte{0xff}); c.EndSending(); c.ExpectClose(1002) }},
		{"a Close that is not masked", func(c *rawtest.Client) { c.SendRaw([]byte{0x88, 2, 0x03, 0xe9}); c.ExpectEOF() }},
		{"reset between two frames", func(c *rawtest.Client) { c.Reset() }},
		{"reset inside of a frame", func(c *rawtest.Client) { c.SendRaw(half); c.Reset() }},
		{"reset with much unread", func(c *rawtest.Client) { c.SendRaw(bytes.Repeat(text("echo this"), 10_000)); c.Reset() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rawtest.EachIO(t, func(t *testing.T, io string) {
				s := rawtest.Start(t, hubbub.Config{IO: io})
				for _, path := range []string{"/echo", "/ws"} {
					c := rawtest.Dial(t, s, path)
					if path == "/ws" {
						c.NextJSON()
					}
					tt.do(c)
					rawtest.Eventually(t, "the connection is gone", func() bool { return s.Connections() == 0 })
				}
			})
		})
	}
}
