package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"example.com/hubbub/internal/wsclient"
)

func TestStreams(t *testing.T) {
	long := strings.Repeat("x", 300)
	huge := strings.Repeat("Ж", 40000)
	tests := []struct {
		name   string
		stream []byte
		want   []string
	}{
		{"the RFC's masked Hello",
			[]byte{0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58},
			[]string{`text "Hello"`}},
		{"an empty text", final(Text, ""), []string{`text ""`}},
		{"an empty binary", final(Binary, ""), []string{`binary ""`}},
		{"binary need not be UTF-8", final(Binary, "\xff\xfe\x80"), []string{`binary "\xff\xfe\x80"`}},
		{"125 bytes, the longest with a short header", final(Binary, long[:125]),
			[]string{fmt.Sprintf("binary %q", long[:125])}},
		{"126 bytes, the shortest with a length of two bytes", final(Binary, long[:126]),
			[]string{fmt.Sprintf("binary %q", long[:126])}},
		{"80,000 bytes, with a length of eight bytes", final(Text, huge),
			[]string{fmt.Sprintf("text %q", huge)}},
		{"several messages in one packet",
			join(final(Text, "a"), final(Binary, "b"), final(Text, "c")),
			[]string{`text "a"`, `binary "b"`, `text "c"`}},
		{"a message in fragments",
			join(part(Text, "Hel"), part(Continuation, "lo, "), final(Continuation, "world")),
			[]string{`text "Hello, world"`}},
		{"a message in empty fragments",
			join(part(Text, ""), part(Continuation, ""), final(Continuation, "")),
			[]string{`text ""`}},
		{"two messages in fragments, one after the other",
			join(part(Text, "a"), final(Continuation, "b"), part(Binary, "\xff"), final(Continuation, "\xfe")),
			[]string{`text "ab"`, `binary "\xff\xfe"`}},
		{"control frames between the fragments of a message",
			join(part(Text, "a"), final(Ping, "p"), part(Continuation, "b"), final(Pong, long[:125]), final(Continuation, "c")),
			[]string{`ping "p"`, fmt.Sprintf("pong %q", long[:125]), `text "abc"`}},
		{"a Close between the fragments of a message",
			join(part(Text, "a"), final(Close, "\x03\xe8")),
			[]string{`close 1000 ""`}},
		{"text whose runes are cut by the fragments",
			join(part(Text, "\xf0"), part(Continuation, "\x9f\x98"), final(Ping, ""), part(Continuation, "\x80\xd0"), final(Continuation, "\x96")),
			[]string{`ping ""`, `text "😀Ж"`}},
		{"the last rune there is", final(Text, "\U0010FFFF"), []string{fmt.Sprintf("text %q", "\U0010FFFF")}},
		{"unsolicited pongs", join(final(Ping, "1"), final(Pong, "1"), final(Pong, "1"), final(Pong, "")),
			[]string{`ping "1"`, `pong "1"`, `pong "1"`, `pong ""`}},
		{"a Close without a code", final(Close, ""), []string{`close 1005 ""`}},
		{"a Close with a code", final(Close, "\x0f\xa0"), []string{`close 4000 ""`}},
		{"a Close with a reason", final(Close, "\x03\xe9до свидания"), []string{`close 1001 "до свидания"`}},
		{"the longest Close", final(Close, "\x03\xe8"+long[:123]), []string{fmt.Sprintf("close 1000 %q", long[:123])}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wantLines(t, test.stream, testLimit, test.want...)
		})
	}
}

// Each stream of TestFaults ends with the byte that makes it faulty: without that byte it is none, with it it is,
// whatever follows.
func TestFaults(t *testing.T) {
	tests := []struct {
		name   string
		stream []byte
		code   int
	}{
		{"RSV1 without an extension", []byte{0xc1}, 1002},
		{"RSV2", []byte{0xa1}, 1002},
		{"RSV3", []byte{0x91}, 1002},
		{"RSV1 on a continuation", join(part(Text, "a"), []byte{0xc0}), 1002},
		{"RSV1 on a control frame", []byte{0xc9}, 1002},
		{"the first reserved data opcode", []byte{0x83}, 1002},
		{"the last reserved data opcode", []byte{0x87}, 1002},
		{"the first reserved control opcode", []byte{0x8b}, 1002},
		{"the last reserved control opcode", []byte{0x8f}, 1002},
		{"an unmasked frame", []byte{0x81, 0x05}, 1002},
		{"an unmasked control frame", []byte{0x89, 0x00}, 1002},
		{"an unmasked Close", []byte{0x88, 0x02}, 1006},
		{"a fragmented ping", []byte{0x09}, 1002},
		{"a fragmented close", []byte{0x08}, 1002},
		{"a ping of 126 bytes", []byte{0x89, 0xfe}, 1002},
		{"a ping with a length of eight bytes", []byte{0x89, 0xff}, 1002},
		{"a continuation of nothing", []byte{0x80}, 1002},
		{"a first fragment that continues nothing", []byte{0x00}, 1002},
		{"a continuation after the last fragment", join(part(Text, "a"), final(Continuation, "b"), []byte{0x80}), 1002},
		{"a continuation after a whole message and a ping", join(final(Text, "a"), final(Ping, ""), []byte{0x00}), 1002},
		{"a text inside a fragmented message", join(part(Text, "a"), []byte{0x81}), 1002},
		{"a binary fragment inside a fragmented message", join(part(Text, ""), final(Ping, ""), []byte{0x02}), 1002},

		{"125 in two bytes", []byte{0x82, 0xfe, 0x00, 0x7d}, 1002},
		{"0 in two bytes", []byte{0x82, 0xfe, 0x00, 0x00}, 1002},
		{"65,535 in eight bytes, seen at their sixth", []byte{0x82, 0xff, 0, 0, 0, 0, 0, 0}, 1002},
		{"a length with its high bit set", []byte{0x82, 0xff, 0x80}, 1002},
		{"a length of all ones", []byte{0x82, 0xff, 0xff}, 1002},

		{"a Close of one byte", []byte{0x88, 0x81}, 1002},
		{"a Close with code 999", final(Close, "\x03\xe7"), 1002},
		{"a Close with the reserved code 1004", final(Close, "\x03\xec"), 1002},
		{"a Close with code 1005", final(Close, "\x03\xed"), 1002},
		{"a Close with code 1006", final(Close, "\x03\xee"), 1002},
		{"a Close with code 1015", final(Close, "\x03\xf7"), 1002},
		{"a Close with code 2999", final(Close, "\x0b\xb7"), 1002},
		{"a Close with code 5000", final(Close, "\x13\x88reason"), 1002},
		{"a Close whose reason is not UTF-8", final(Close, "\x03\xe8\xc3\x28"), 1007},
		{"a Close whose reason ends inside a rune", final(Close, "\x03\xe8\xd0"), 1007},

		{"text that ends inside a rune", final(Text, "a\xd0"), 1007},
		{"fragments that end inside a rune", join(part(Text, "a\xf0\x9f"), final(Continuation, "\x98")), 1007},
		{"an empty last fragment inside a rune", join(part(Text, "\xd0"), final(Continuation, "")), 1007},

		{"a message over the limit, in two bytes of length", []byte{0x82, 0xfe, 0x04, 0x01}, 1009},
		{"a message far over the limit, seen at its first byte of length", []byte{0x82, 0xfe, 0x05}, 1009},
		{"a message over the limit, in eight bytes of length", []byte{0x82, 0xff, 0, 0, 0, 0, 0, 1}, 1009},
		{"fragments over the limit together",
			join(part(Binary, strings.Repeat("x", 1000)), part(Continuation, ""), []byte{0x00, 0x80 | 25}), 1009},
		{"fragments whose sum overflows", // gorilla/websocket, CVE-2020-27813
			join(part(Binary, "0123456789"), []byte{0x80, 0xff, 0x7f}), 1009},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			const limit = 1024
			last := len(test.stream) - 1
			for _, line := range receive(t, limit, test.stream[:last]) {
				if line[0] == '!' {
					t.Fatalf("%s before the last byte", line)
				}
			}
			more := join(test.stream, bytes.Repeat([]byte{0x80}, 20))
			for _, chunks := range [][][]byte{{test.stream}, single(test.stream), {more}, single(more), {test.stream[:last], more[last:]}} {
				got := receive(t, limit, chunks...)
				if len(got) == 0 || got[len(got)-1] != fmt.Sprintf("! %d", test.code) {
					t.Fatalf("got %q, want ! %d", got, test.code)
				}
			}
		})
	}
}

// Text fails with the byte that spoils it, though the frame claims more.
func TestInvalidTextFailsAtOnce(t *testing.T) {
	for _, text := range []string{
		"\x80", "\xbf", "ok\xc0", "\xc1", "\xc3\x28", "\xe0\x9f", "\xed\xa0", "\xf0\x8f", "\xf4\x90", "\xf5", "\xff",
		"Ж\xd0\xd0", "\xe2\x82\x28", "\xf0\x9f\x98\xff", strings.Repeat("a", 5000) + "\xf4\x90",
	} {
		frame := final(Text, text+strings.Repeat("a", 60))
		frame = frame[:len(frame)-60]
		fragments := join(part(Text, text[:len(text)-1]), part(Continuation, text[len(text)-1:]+"aaa"))
		fragments = fragments[:len(fragments)-3]
		for _, stream := range [][]byte{frame, fragments} {
			if got := receive(t, testLimit, stream[:len(stream)-1]); len(got) > 0 {
				t.Errorf("%.20q: %q before the last byte", text, got)
			}
			wantLines(t, stream, testLimit, "! 1007")
		}
	}
}

func TestLimitIsOfTheWholeMessage(t *testing.T) {
	tests := []struct {
		name   string
		stream []byte
		limit  int
		want   []string
	}{
		{"exactly the limit", final(Binary, "12345678"), 8, []string{`binary "12345678"`}},
		{"one more", final(Binary, "123456789"), 8, []string{"! 1009"}},
		{"exactly the limit in fragments", join(part(Binary, "1234"), part(Continuation, ""), final(Continuation, "5678")), 8, []string{`binary "12345678"`}},
		{"one more in fragments", join(part(Binary, "1234"), final(Ping, "many bytes of ping"), final(Continuation, "56789")), 8, []string{`ping "many bytes of ping"`, "! 1009"}},
		{"each message anew", join(final(Binary, "12345678"), final(Binary, "12345678")), 8, []string{`binary "12345678"`, `binary "12345678"`}},
		{"control frames aside", join(final(Ping, "ping"), final(Close, "\x03\xe8bye")), 0, []string{`ping "ping"`, `close 1000 "bye"`}},
		{"no byte at all", join(final(Text, ""), final(Text, "1")), 0, []string{`text ""`, "! 1009"}},
		{"a limit below 0 is 0", final(Text, "1"), -5, []string{"! 1009"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wantLines(t, test.stream, test.limit, test.want...)
		})
	}
}

// ws (npm), CVE-2026-48779: many tiny fragments.
func TestTinyFragments(t *testing.T) {
	fragments := func(n int, payload string) []byte {
		return join(part(Binary, payload), bytes.Repeat(part(Continuation, payload), n-1))
	}
	fifteen, sixteen := strings.Repeat("x", 15), strings.Repeat("x", 16)
	tests := []struct {
		name   string
		stream []byte
		want   []string
	}{
		{"4,096 empty ones pass", join(fragments(4095, ""), final(Continuation, "")), []string{`binary ""`}},
		{"4,097 empty ones don't", join(fragments(4096, ""), []byte{0x00, 0x80}), []string{"! 1008"}},
		{"nor when the last one is the message's last", join(fragments(4096, ""), []byte{0x80, 0x80}), []string{"! 1008"}},
		{"4,097 of 15 bytes don't", join(fragments(4096, fifteen), []byte{0x00, 0x80 | 15}), []string{"! 1008"}},
		{"5,000 of 16 bytes pass", join(fragments(4999, sixteen), final(Continuation, sixteen)),
			[]string{fmt.Sprintf("binary %q", strings.Repeat(sixteen, 5000))}},
		{"empty ones after much payload pass until the mean is too small",
			join(part(Binary, strings.Repeat(sixteen, 4200)), bytes.Repeat(part(Continuation, ""), 4199), []byte{0x00, 0x80}), []string{"! 1008"}},
		{"the next message counts anew", join(fragments(4000, ""), final(Continuation, ""), fragments(4000, ""), final(Continuation, "")),
			[]string{`binary ""`, `binary ""`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, chunks := range [][][]byte{{test.stream}, single(test.stream)} {
				if got := receive(t, testLimit, chunks...); !slices.Equal(got, test.want) {
					t.Fatalf("got %.100q, want %.100q", got, test.want)
				}
			}
			if test.want[0][0] == '!' {
				if got := receive(t, testLimit, test.stream[:len(test.stream)-1]); len(got) > 0 {
					t.Fatalf("%.100q before the last byte", got)
				}
			}
		})
	}
}

// gobwas/ws#223: what a frame claims is not what it gets.
func TestMemoryGrowsWithWhatArrived(t *testing.T) {
	const claimed = 1 << 30
	var r Reader
	head := AppendHeader(nil, Binary, claimed)
	head[1] |= maskBit
	head = append(head, testKey[:]...)
	if _, _, ok, err := r.Next(head, claimed, nil); ok || err != nil || r.Buffered() > 0 {
		t.Fatalf("after the header: %v, %v, %d bytes held", ok, err, r.Buffered())
	}
	for arrived := 0; arrived < 1<<20; arrived += 1000 {
		if r.Buffered() > 2*arrived+minBuffer {
			t.Fatalf("%d bytes held after %d", r.Buffered(), arrived)
		}
		r.Next(make([]byte, 1000), claimed, nil)
	}
}

// tungstenite, CVE-2023-43669: byte by byte costs no more than it must. What is copied when the buffer grows is all
// that a byte could cost again.
func TestWorkIsLinear(t *testing.T) {
	const size = 1 << 20
	text := strings.Repeat("Ж", size/2)
	for name, stream := range map[string][]byte{
		"one frame": final(Text, text),
		"fragments": join(part(Text, ""), bytes.Repeat(part(Continuation, text[:64]), size/64), final(Continuation, "")),
	} {
		t.Run(name, func(t *testing.T) {
			var r Reader
			copied, held := 0, 0
			for i := range stream {
				_, _, ok, err := r.Next(stream[i:i+1], size, nil)
				if err != nil || ok != (i == len(stream)-1) {
					t.Fatalf("at byte %d: %v, %v", i, ok, err)
				}
				if now := r.Buffered(); now > held {
					copied += held
					held = now
				}
			}
			if copied > 2*size {
				t.Errorf("%d bytes copied to receive %d", copied, size)
			}
		})
	}
}

// nats-server #8029: a truncated header must not look like nothing at all.
func TestIdleOnlyBetweenMessages(t *testing.T) {
	stream := join(part(Text, "ab"), final(Ping, "ping"), final(Continuation, "c"))
	var r Reader
	for i := range stream {
		if r.Idle() != (i == 0) {
			t.Fatalf("Idle is %v after %d bytes", r.Idle(), i)
		}
		r.Next(stream[i:i+1], testLimit, nil)
	}
	if !r.Idle() || r.Buffered() != 0 {
		t.Fatalf("after the message: Idle %v, %d bytes held", r.Idle(), r.Buffered())
	}
}

func TestWholeFrameIsNotCopied(t *testing.T) {
	b := final(Text, "Hello")
	var r Reader
	ev, _, _, _ := r.Next(b, testLimit, nil)
	if &ev.Payload[0] != &b[6] {
		t.Error("the payload lies elsewhere")
	}
	// The header came before: the payload still lies whole in b.
	b = final(Text, "Hello")
	r.Next(b[:3], testLimit, nil)
	ev, _, ok, _ := r.Next(b[3:], testLimit, nil)
	if !ok || &ev.Payload[0] != &b[6] {
		t.Error("the payload lies elsewhere when the header came in two pieces")
	}
	if cap(ev.Payload) != len(ev.Payload) {
		t.Error("appending to the payload would write over what follows")
	}
}

func TestAssembledPayloadIsTheOwners(t *testing.T) {
	b := join(part(Text, "first "), final(Continuation, "message"), part(Text, "XXXXXXXXXXXX"), final(Continuation, "X"))
	var r Reader
	ev, n, _, _ := r.Next(b, testLimit, nil)
	r.Next(b[n:], testLimit, nil)
	if string(ev.Payload) != "first message" {
		t.Errorf("became %q with the next message", ev.Payload)
	}
}

func TestFastPathAllocatesNothing(t *testing.T) {
	var r Reader
	frames := join(final(Text, "Hello"), final(Binary, strings.Repeat("x", 5000)), final(Ping, "ping"), final(Close, "\x03\xe8bye"))
	faulty := []byte{0xc1, 0x80}
	b := make([]byte, len(frames))
	got := testing.AllocsPerRun(100, func() {
		copy(b, frames)
		for p := b; len(p) > 0; {
			_, n, ok, err := r.Next(p, testLimit, nil)
			if !ok || err != nil || !r.Idle() {
				t.Fatal(ok, err)
			}
			p = p[n:]
		}
		if _, _, _, err := r.Next(faulty, testLimit, nil); err == nil {
			t.Fatal("no fault")
		}
	})
	if got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// Any messages, in any fragments, with control frames between them, cut anywhere, come out as they were sent.
func TestRandomStreams(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		var stream []byte
		var want []string
		for range 1 + rnd.IntN(5) {
			op := Text + Opcode(rnd.IntN(2))
			payload := strings.Repeat("aЖ€😀", rnd.IntN(30)*rnd.IntN(30))
			frameOp, rest := op, payload
			for fin := false; !fin; frameOp = Continuation {
				fin = rnd.IntN(3) == 0
				n := len(rest)
				if !fin {
					n = rnd.IntN(len(rest) + 1)
				}
				stream = wsclient.Append(stream, fin, wsclient.Opcode(frameOp), randomKey(rnd), []byte(rest[:n]))
				rest = rest[n:]
				if !fin && rnd.IntN(2) == 0 {
					ping := Event{Op: Ping, Payload: []byte(payload[:rnd.IntN(min(len(payload), 125)+1)])}
					stream = wsclient.Append(stream, true, wsclient.Ping, randomKey(rnd), ping.Payload)
					want = append(want, line(ping))
				}
			}
			want = append(want, line(Event{Op: op, Payload: []byte(payload)}))
		}
		for range 5 {
			if got := receive(t, testLimit, cuts(stream, rnd)...); !slices.Equal(got, want) {
				t.Fatalf("got %.300q\nwant %.300q", got, want)
			}
		}
	}
}

func randomKey(rnd *rand.Rand) [4]byte {
	return [4]byte(binary.LittleEndian.AppendUint32(nil, rnd.Uint32()))
}
