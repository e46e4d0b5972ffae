package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

func TestMain(m *testing.M) { rawtest.Main(m) }

// What a server owes a client by RFC 6455, told as stories: the frames that a client sends to /echo, and all that it
// must get for them, up to the end of the stream. The cases follow the sections of Autobahn's fuzzing client, which
// their names give; what that suite calls "non-strict" fails here.

// story is one connection to /echo.
type story struct {
	name string
	sent [][]byte // frames, in the client's form
	want []string // as lines gives them; the stream ends after the last
}

// play tells each story three times: with all frames in one packet, one packet a frame, and byte by byte.
func play(t *testing.T, s *rawtest.Server, stories []story) {
	t.Helper()
	for _, st := range stories {
		for _, how := range []string{"at once", "frame by frame", "byte by byte"} {
			t.Run(st.name+" "+how, func(t *testing.T) {
				t.Parallel()
				c := rawtest.Dial(t, s, "/echo")
				sent := make(chan struct{})
				go func() { // the server may answer, and hang up, before all is sent
					defer close(sent)
					sendAs(c, st.sent, how)
				}()
				got := lines(c)
				<-sent
				if last := len(got) - 1; how != "at once" && last >= 0 && strings.HasSuffix(got[last], "connection reset by peer") {
					got[last] = "EOF" // the server had hung up when the rest of what was sent came
				}
				if !slices.Equal(got, st.want) {
					t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(st.want, "\n\t"))
				}
			})
		}
	}
}

func sendAs(c *rawtest.Client, frames [][]byte, how string) {
	switch how {
	case "at once":
		frames = [][]byte{slices.Concat(frames...)}
	case "byte by byte":
		all := slices.Concat(frames...)
		frames = nil
		for len(all) > 1024 { // of a long story the head and the tail
			frames = append(frames, all[:512])
			all = all[512:]
		}
		for i := range all {
			frames = append(frames, all[i:i+1])
		}
	}
	for _, f := range frames {
		if c.TrySend(f) != nil {
			return
		}
	}
}

// lines reads all that comes up to the end of the stream. A reset after a Close counts as an end: the client sent more
// than the server had to read.
func lines(c *rawtest.Client) (lines []string) {
	for {
		op, p, err := c.TryNext()
		if err != nil {
			closed := len(lines) > 0 && strings.HasPrefix(lines[len(lines)-1], "close")
			if !closed || !rawtest.IsEndOrReset(err) {
				lines = append(lines, err.Error())
			}
			return lines
		}
		if op != wsclient.Ping { // the heartbeat
			lines = append(lines, line(op, p))
		}
	}
}

func line(op wsclient.Opcode, p []byte) string {
	switch {
	case op == wsclient.Close && len(p) == 0:
		return "close without a code"
	case op == wsclient.Close:
		return fmt.Sprintf("close %d", int(p[0])<<8|int(p[1])) // the reason is for people
	}
	return op.String() + " " + rawtest.Brief(p)
}

// The client's frames, in short.
func text(p string) []byte        { return rawtest.Text(p) }
func binaryFrame(p string) []byte { return rawtest.Frame(wsclient.Binary, true, []byte(p)) }
func begin(p string) []byte       { return rawtest.Frame(wsclient.Text, false, []byte(p)) }
func more(p string) []byte        { return rawtest.Frame(wsclient.Continuation, false, []byte(p)) }
func last(p string) []byte        { return rawtest.Frame(wsclient.Continuation, true, []byte(p)) }
func ping(p string) []byte        { return rawtest.Frame(wsclient.Ping, true, []byte(p)) }
func pong(p string) []byte        { return rawtest.Frame(wsclient.Pong, true, []byte(p)) }
func closing(code int, reason string) []byte {
	return wsclient.AppendClose(nil, rawtest.Mask, code, reason)
}

// reserved sets reserved bits of a frame.
func reserved(bits byte, f []byte) []byte {
	f[0] |= bits << 4
	return f
}

var bye = closing(1000, "")

// echoed are the lines of echoes, then of the answer to bye.
func echoed(lines ...string) []string { return append(lines, "close 1000") }

// failed are the lines of what comes before a failure, then of the failure.
func failed(code int, lines ...string) []string {
	return append(lines, fmt.Sprintf("close %d", code))
}

// conform plays the stories against a server of each kind.
func conform(t *testing.T, stories []story) {
	t.Helper()
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		t.Run("stories", func(t *testing.T) { play(t, s, stories) })
	})
}

func TestEchoesEverySize(t *testing.T) {
	var stories []story
	for _, n := range []int{0, 1, 125, 126, 127, 128, 1000, 65535, 65536} {
		p := strings.Repeat("*", n)
		b := strings.Repeat("\xfe", n)
		stories = append(stories,
			story{fmt.Sprintf("1.1 text of %d", n), [][]byte{text(p), bye}, echoed(line(wsclient.Text, []byte(p)))},
			story{fmt.Sprintf("1.2 binary of %d", n), [][]byte{binaryFrame(b), bye}, echoed(line(wsclient.Binary, []byte(b)))})
	}
	conform(t, stories)
}

func TestPingsAndPongs(t *testing.T) {
	long := strings.Repeat("\xfe", 125)
	var answers []string
	var pings [][]byte
	for i := range 10 {
		p := fmt.Sprintf("payload-%d", i)
		pings = append(pings, ping(p))
		answers = append(answers, line(wsclient.Pong, []byte(p)))
	}
	conform(t, []story{
		{"2.1 empty ping", [][]byte{ping(""), bye}, echoed(`pong ""`)},
		{"2.2 ping with text", [][]byte{ping("Hello, world!"), bye}, echoed(`pong "Hello, world!"`)},
		{"2.3 ping with bytes", [][]byte{ping("\x00\xff\xfe\xfd\xfc\xfb\x00\xff"), bye}, echoed(`pong "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"`)},
		{"2.4 ping of 125 bytes", [][]byte{ping(long), bye}, echoed(line(wsclient.Pong, []byte(long)))},
		{"2.5 ping of 126 bytes", [][]byte{ping(long + "\xfe"), bye}, failed(1002)},
		{"2.7 unsolicited empty pong", [][]byte{pong(""), bye}, echoed()},
		{"2.8 unsolicited pong", [][]byte{pong("unsolicited"), bye}, echoed()},
		{"2.9 unsolicited pong, then ping", [][]byte{pong("unsolicited"), ping("ping"), bye}, echoed(`pong "ping"`)},
		{"2.10 ten pings", append(slices.Clone(pings), bye), echoed(answers...)},
		{"a pong of 126 bytes", [][]byte{pong(long + "\xfe"), bye}, failed(1002)},
		{"two pongs for each ping", [][]byte{ping("a"), pong("a"), pong("a"), text("b"), bye}, echoed(`pong "a"`, `text "b"`)},
	})
}

func TestReservedBitsFail(t *testing.T) {
	stories := []story{
		{"3.2 after a message", [][]byte{text("good"), reserved(2, text("bad")), ping("")}, failed(1002, `text "good"`)},
		{"3.5 binary", [][]byte{reserved(5, binaryFrame("bad"))}, failed(1002)},
		{"3.6 ping", [][]byte{reserved(6, ping("bad"))}, failed(1002)},
		{"3.7 close", [][]byte{reserved(7, closing(1000, ""))}, failed(1002)},
		{"in a continuation", [][]byte{begin("good"), reserved(4, last("bad"))}, failed(1002)},
	}
	for bits := byte(1); bits <= 7; bits++ {
		stories = append(stories, story{fmt.Sprintf("3.1 text with %03b", bits), [][]byte{reserved(bits, text("bad"))}, failed(1002)})
	}
	conform(t, stories)
}

func TestReservedOpcodesFail(t *testing.T) {
	var stories []story
	for _, op := range []wsclient.Opcode{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		bare, full := rawtest.Frame(op, true, nil), rawtest.Frame(op, true, []byte("reserved opcode"))
		stories = append(stories,
			story{fmt.Sprintf("4.x.1 opcode %d", op), [][]byte{bare}, failed(1002)},
			story{fmt.Sprintf("4.x.2 opcode %d with a payload", op), [][]byte{full}, failed(1002)},
			story{fmt.Sprintf("4.x.3 opcode %d between others", op), [][]byte{text("good"), full, ping("")}, failed(1002, `text "good"`)},
			story{fmt.Sprintf("opcode %d inside a message", op), [][]byte{begin("good"), bare, last("")}, failed(1002)})
	}
	conform(t, stories)
}

func TestFragments(t *testing.T) {
	conform(t, []story{
		{"5.1 ping in two", [][]byte{rawtest.Frame(wsclient.Ping, false, []byte("a")), last("b")}, failed(1002)},
		{"5.2 pong in two", [][]byte{rawtest.Frame(wsclient.Pong, false, []byte("a")), last("b")}, failed(1002)},
		{"close in two", [][]byte{rawtest.Frame(wsclient.Close, false, wsclient.ClosePayload(1000, "")), last("b")}, failed(1002)},
		{"5.3 text in two", [][]byte{begin("a"), last("b"), bye}, echoed(`text "ab"`)},
		{"5.6 ping between", [][]byte{begin("a"), ping("!"), last("b"), bye}, echoed(`pong "!"`, `text "ab"`)},
		{"pong between", [][]byte{begin("a"), pong("!"), last("b"), bye}, echoed(`text "ab"`)},
		{"5.9 continuation of nothing", [][]byte{last("a"), text("b"), bye}, failed(1002)},
		{"5.12 unfinished continuation of nothing", [][]byte{more("a"), text("b"), bye}, failed(1002)},
		{"5.15 continuation after a whole message", [][]byte{begin("a"), last("b"), more("c"), text("d")}, failed(1002, `text "ab"`)},
		{"5.16 continuation of nothing, again and again", [][]byte{more("a"), begin("b"), last("c"), more("a"), begin("b"), last("c")}, failed(1002)},
		{"5.17 finished continuation of nothing", [][]byte{last("a"), begin("b"), last("c")}, failed(1002)},
		{"5.18 text inside of a text", [][]byte{begin("a"), text("b")}, failed(1002)},
		{"binary inside of a text", [][]byte{begin("a"), binaryFrame("b")}, failed(1002)},
		{"5.19 five with pings between", [][]byte{
			begin("a"), more("b"), ping("1"), more("c"), more("d"), ping("2"), last("e"), bye,
		}, echoed(`pong "1"`, `pong "2"`, `text "abcde"`)},
		{"6.1.1 empty text", [][]byte{text(""), bye}, echoed(`text ""`)},
		{"6.1.2 three empty fragments", [][]byte{begin(""), more(""), last(""), bye}, echoed(`text ""`)},
		{"6.1.3 only the middle one has bytes", [][]byte{begin(""), more("middle"), last(""), bye}, echoed(`text "middle"`)},
		{"binary in three", [][]byte{rawtest.Frame(wsclient.Binary, false, []byte("\xff")), more("\xfe"), last("\xfd"), bye}, echoed(`binary "\xff\xfe\xfd"`)},
		{"two messages in fragments", [][]byte{begin("a"), last("b"), begin("c"), last("d"), bye}, echoed(`text "ab"`, `text "cd"`)},
		{"never finished", [][]byte{begin("a"), more("b"), bye}, echoed()},
	})
}

func TestFramesMustBeMasked(t *testing.T) {
	bare := func(op wsclient.Opcode, p string) []byte { return append([]byte{0x80 | byte(op), byte(len(p))}, p...) }
	conform(t, []story{
		{"text", [][]byte{bare(wsclient.Text, "bare")}, failed(1002)},
		{"ping", [][]byte{bare(wsclient.Ping, "")}, failed(1002)},
		{"close", [][]byte{bare(wsclient.Close, "\x03\xe8")}, []string{"EOF"}}, // a proxy may have sent it: the client isn't told off for it
		{"close after a good one", [][]byte{text("good"), bare(wsclient.Close, "")}, []string{`text "good"`, "EOF"}},
		{"after a good one", [][]byte{text("good"), bare(wsclient.Text, "bare")}, failed(1002, `text "good"`)},
	})
}

func TestLengthsMustBeMinimal(t *testing.T) {
	long16 := func(n byte) []byte {
		return append([]byte{0x81, 0xfe, 0, n, 0, 0, 0, 0}, bytes.Repeat([]byte("*"), int(n))...)
	}
	long64 := func(n uint16) []byte {
		head := []byte{0x81, 0xff, 0, 0, 0, 0, 0, 0, byte(n >> 8), byte(n), 0, 0, 0, 0}
		return append(head, bytes.Repeat([]byte("*"), int(n))...)
	}
	conform(t, []story{
		{"125 in two bytes", [][]byte{long16(125)}, failed(1002)},
		{"0 in two bytes", [][]byte{long16(0)}, failed(1002)},
		{"126 in two bytes is minimal", [][]byte{long16(126), bye}, echoed(line(wsclient.Text, bytes.Repeat([]byte("*"), 126)))},
		{"126 in eight bytes", [][]byte{long64(126)}, failed(1002)},
		{"65535 in eight bytes", [][]byte{long64(65535)}, failed(1002)},
		{"ping with its length in two bytes", [][]byte{{0x89, 0xfe, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5}}, failed(1002)},
	})
}

func TestMasksOfEveryKind(t *testing.T) {
	var stories []story
	for _, mask := range [][4]byte{{}, {0xff, 0xff, 0xff, 0xff}, {1, 2, 3, 4}, {0, 0, 0, 1}} {
		p := strings.Repeat("every byte once at each place of the key. ", 20)
		stories = append(stories, story{fmt.Sprintf("%x", mask),
			[][]byte{wsclient.Append(nil, true, wsclient.Text, mask, []byte(p)), bye},
			echoed(line(wsclient.Text, []byte(p)))})
	}
	conform(t, stories)
}
