package conformance

import (
	"fmt"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// Text is UTF-8, and the first octet that can't be fails the connection (RFC 6455 8.1; Autobahn's section 6).

const kosme = "κόσμε"

func TestTextIsUTF8(t *testing.T) {
	var stories []story
	for i, good := range []string{
		"Hello-µ@ßöäüàá-UTF-8!!", kosme,
		// The first and the last of each length, and beside the surrogates (6.7, 6.9, 6.11, 6.22).
		"\x00", "\x7f", "\u0080", "\u07ff", "\u0800", "\uffff", "\U00010000", "\U0010ffff", "\ud7ff", "\ue000", "\ufffd", "\ufffe",
		"\U0001fffe", "\U0001ffff", "\U0002fffe", "\U000ffffe", "\U000fffff",
	} {
		var octets [][]byte
		for j := range len(good) {
			f := more(good[j : j+1])
			switch {
			case len(good) == 1:
				f = text(good)
			case j == 0:
				f = begin(good[:1])
			case j == len(good)-1:
				f = last(good[j:])
			}
			octets = append(octets, f)
		}
		want := echoed(line(wsclient.Text, []byte(good)))
		stories = append(stories,
			story{fmt.Sprintf("good %d whole", i), [][]byte{text(good), bye}, want},
			story{fmt.Sprintf("good %d octet by octet", i), append(octets, bye), want})
	}
	for i, bad := range []string{
		kosme + "\xed\xa0\x80" + "edited",                                                      // 6.3, a surrogate
		"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80", "\xfe", "\xff", "\xfe\xfe\xff\xff", // 6.8, 6.15: no such octets
		"\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf", // 6.10
		"\xf4\x90\x80\x80",                                         // 6.11, above U+10FFFF
		"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80\xbf\x80\xbf\x80", // 6.12, continuations of nothing
		"\xc0 \xc1 ", "\xe0 \xe1 ", "\xf0 \xf1 ", "\xf8 \xf9 ", "\xfc \xfd ", // 6.13, starts without continuation
		"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xdf", "\xef\xbf", "\xf7\xbf\xbf", // 6.14, the last octet missing
		"\xc3", "\xe2\x82", "\xf0\x9f\x98", kosme + "\xce",
		"\xc0\x80\xe0\x80\xf0\x80\x80",                                                                                                     // 6.16
		"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xc0\x80", // 6.17 to 6.19, overlong
		"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf", // 6.20
		"\xed\xa0\x80\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf", // 6.21, a pair of them
	} {
		half := len(bad) / 2
		stories = append(stories,
			story{fmt.Sprintf("bad %d whole", i), [][]byte{text(bad), bye}, failed(1007)},
			story{fmt.Sprintf("bad %d in two", i), [][]byte{begin(bad[:half]), last(bad[half:]), bye}, failed(1007)},
			story{fmt.Sprintf("bad %d after a good one", i), [][]byte{text(kosme), text(bad)}, failed(1007, line(wsclient.Text, []byte(kosme)))})
	}
	stories = append(stories,
		story{"6.2 cut between two runes, with a ping", [][]byte{begin("Hello-µ@ßöä"), ping(""), last("üàá-UTF-8!!"), bye},
			echoed(`pong ""`, `text "Hello-µ@ßöäüàá-UTF-8!!"`)},
		story{"cut inside of a rune, with a ping", [][]byte{begin("\xce"), ping("\xff"), last("\xba"), bye}, echoed(`pong "\xff"`, `text "κ"`)},
		story{"binary may be anything", [][]byte{binaryFrame("\xed\xa0\x80"), bye}, echoed(`binary "\xed\xa0\x80"`)},
		story{"unfinished text is forgotten with the message", [][]byte{begin("\xce"), bye}, echoed()})
	conform(t, stories)
}

// The bad octet has arrived and the rest has not, nor will it: the failure must come now (6.4).
func TestBadTextFailsAtItsFirstBadOctet(t *testing.T) {
	whole := text(kosme + "\xf4\x90\x80\x80" + "edited")
	head := len(whole) - len(kosme) - 4 - len("edited")
	for _, tt := range []struct {
		name  string
		first []byte // what is fine as far as it goes
		bad   []byte // what must fail at once
	}{
		{"6.4.1 a fragment with a bad rune", begin(kosme), more("\xf4\x90\x80\x80")},
		{"6.4.2 a fragment with half of a bad rune", begin(kosme + "\xf4"), more("\x90")},
		{"6.4.3 a frame up to behind a bad rune", whole[:head+len(kosme)], whole[head+len(kosme) : head+len(kosme)+4]},
		{"6.4.4 a frame up to the bad octet", whole[:head+len(kosme)+1], whole[head+len(kosme)+1 : head+len(kosme)+2]},
		{"a lead that leads nothing", whole[:head], []byte{0xc0 ^ rawtest.Mask[0]}},
		{"a surrogate's second octet", begin("\xed"), more("\xa0")},
		{"an empty fragment in between", append(begin("\xe0"), more("")...), more("\x9f")},
		{"a last fragment that ends too early", begin("\xf0\x9f"), last("\x98")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rawtest.EachIO(t, func(t *testing.T, io string) {
				s := rawtest.Start(t, hubbub.Config{IO: io})
				for _, path := range []string{"/echo", "/ws"} {
					c := rawtest.Dial(t, s, path)
					if path == "/ws" {
						c.NextJSON()
					}
					c.SendRaw(tt.first)
					if c.R.Buffered() == 0 && tt.first[0]&0x80 == 0 { // between two frames a ping shows that all is well
						c.Quiet()
					}
					c.SendRaw(tt.bad)
					c.ExpectClose(1007)
				}
			})
		})
	}
}
