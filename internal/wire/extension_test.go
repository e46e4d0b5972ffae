package wire

import (
	"strings"
	"testing"
)

func TestDeflateIsNegotiated(t *testing.T) {
	const pmd = "permessage-deflate"
	const fresh = pmd + "; server_no_context_takeover; client_no_context_takeover"
	for _, c := range []struct {
		name, offer string
		answer      string // by default; "" declines, "!" fails the handshake
		takeover    string // with contexts taken over
	}{
		{"nothing", "", "", ""},
		{"another extension", "x-webkit-deflate-frame", "", ""},
		{"the plain offer", pmd, fresh, pmd},
		{"what Chrome, ws and websockets offer", pmd + "; client_max_window_bits", fresh, pmd + "; client_max_window_bits=13"},
		{"no takeover either way", pmd + "; client_no_context_takeover; server_no_context_takeover", fresh, fresh},
		{"no takeover by the server", pmd + "; server_no_context_takeover", fresh, pmd + "; server_no_context_takeover"},
		{"no takeover by the client", pmd + ";client_no_context_takeover;client_max_window_bits", fresh, pmd + "; client_no_context_takeover"},
		{"a server's window", pmd + "; server_max_window_bits=10", fresh + "; server_max_window_bits=10", pmd + "; server_max_window_bits=10"},
		{"the smallest", pmd + "; server_max_window_bits=8", fresh + "; server_max_window_bits=8", pmd + "; server_max_window_bits=8"},
		{"the largest", pmd + "; server_max_window_bits=15", fresh + "; server_max_window_bits=15", pmd + "; server_max_window_bits=15"},
		{"a quoted value", pmd + `; server_max_window_bits="1\0"`, fresh + "; server_max_window_bits=10", pmd + "; server_max_window_bits=10"},
		{"a client's window", pmd + "; client_max_window_bits=12", fresh + "; client_max_window_bits=12", pmd + "; client_max_window_bits=12"},
		{"a client's largest", pmd + "; client_max_window_bits=15", fresh + "; client_max_window_bits=15", pmd + "; client_max_window_bits=13"},
		{"a client's smallest, which zlib can't be held to", pmd + "; client_max_window_bits=8", fresh, pmd},
		{"all at once, in odd white space", "\t" + pmd + " ;server_max_window_bits = 9\t; client_max_window_bits=9 ", fresh + "; server_max_window_bits=9; client_max_window_bits=9", pmd + "; server_max_window_bits=9; client_max_window_bits=9"},

		{"a window without a value", pmd + "; server_max_window_bits", "", ""},
		{"a window too small", pmd + "; server_max_window_bits=7", "", ""},
		{"a window too large", pmd + "; server_max_window_bits=16", "", ""},
		{"a leading zero", pmd + "; server_max_window_bits=08", "", ""},
		{"a sign", pmd + "; server_max_window_bits=+9", "", ""},
		{"no number", pmd + "; server_max_window_bits=ten", "", ""},
		{"a huge number", pmd + "; server_max_window_bits=18446744073709551626", "", ""},
		{"a client's window too small", pmd + "; client_max_window_bits=7", "", ""},
		{"a client's leading zero", pmd + "; client_max_window_bits=09", "", ""},
		{"a value where there is none", pmd + "; server_no_context_takeover=1", "", ""},
		{"a value of the client's where there is none", pmd + "; client_no_context_takeover=true", "", ""},
		{"an unknown parameter", pmd + "; foo", "", ""},
		{"a parameter in other letters", pmd + "; Server_No_Context_Takeover", "", ""},
		{"a parameter twice", pmd + "; server_no_context_takeover; server_no_context_takeover", "", ""},
		{"a window twice", pmd + "; server_max_window_bits=10; server_max_window_bits=10", "", ""},
		{"a client's window twice", pmd + "; client_max_window_bits; client_max_window_bits=10", "", ""},
		{"a client's window twice without a value", pmd + "; client_max_window_bits; client_max_window_bits", "", ""},

		{"the second offer, where the first is bad", pmd + "; foo, " + pmd + "; server_max_window_bits=11", fresh + "; server_max_window_bits=11", pmd + "; server_max_window_bits=11"},
		{"the first of two good ones", pmd + "; server_max_window_bits=12, " + pmd, fresh + "; server_max_window_bits=12", pmd + "; server_max_window_bits=12"},
		{"an offer on a second line", "foo; a=b\n" + pmd, fresh, pmd},
		{"empty elements of the list", ", ," + pmd + ",", fresh, pmd},

		{"a parameter without a name", pmd + ";", "!", "!"},
		{"two semicolons", pmd + ";; client_max_window_bits", "!", "!"},
		{"an equals sign without a value", pmd + "; client_max_window_bits=", "!", "!"},
		{"an empty quoted value", pmd + `; client_max_window_bits=""`, "!", "!"},
		{"a quoted value without an end", pmd + `; client_max_window_bits="10`, "!", "!"},
		{"a quoted value that ends in an escape", pmd + `; client_max_window_bits="10\`, "!", "!"},
		{"a quoted value that is no token", pmd + `; client_max_window_bits="1 0"`, "!", "!"},
		{"two words", pmd + " deflate", "!", "!"},
		{"no comma", pmd + "; foo=bar " + pmd, "!", "!"},
		{"a good offer before a broken one", pmd + ", =", "!", "!"},
		{"a name in brackets", "(" + pmd + ")", "!", "!"},
		{"a control character", pmd + "\x01", "!", "!"},
		{"a byte above ASCII", pmd + "; f\xc3\xbc", "!", "!"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var lines []string
			if c.offer != "" {
				lines = strings.Split(c.offer, "\n")
			}
			for takeover, want := range map[bool]string{false: c.answer, true: c.takeover} {
				offers, err := ParseExtensions(lines)
				d, got := AcceptDeflate(offers, takeover)
				if err != nil {
					got = "!"
				}
				if got != want {
					t.Errorf("takeover %v: %q gives %q, want %q", takeover, lines, got, want)
				}
				checkAgreed(t, d, got)
			}
		})
	}
}

// checkAgreed holds what the server does against what it said.
func checkAgreed(t *testing.T, d Deflate, answer string) {
	t.Helper()
	if answer == "" || answer == "!" {
		if d != (Deflate{}) {
			t.Errorf("%+v for the answer %q", d, answer)
		}
		return
	}
	if d.ServerTakeover == strings.Contains(answer, "server_no_context_takeover") || d.ClientTakeover == strings.Contains(answer, "client_no_context_takeover") {
		t.Errorf("%+v for the answer %q", d, answer)
	}
	if d.ServerBits < minBits || d.ServerBits > maxBits || d.ClientBits < minBits || d.ClientBits > maxBits {
		t.Errorf("%+v for the answer %q", d, answer)
	}
	if d.ServerBits != maxBits && !strings.Contains(answer, "server_max_window_bits") {
		t.Errorf("%+v for the answer %q", d, answer)
	}
}

// Whatever a client writes there, it is read in linear time and never answered by what it didn't offer.
func FuzzExtensions(f *testing.F) {
	f.Add("permessage-deflate; client_max_window_bits", "foo; a=\"b\\c\"")
	f.Add(",;=\"", "permessage-deflate;server_max_window_bits=\"9\"")
	f.Fuzz(func(t *testing.T, a, b string) {
		offers, err := ParseExtensions([]string{a, b})
		if err != nil && offers != nil {
			t.Fatal("both offers and an error")
		}
		for _, takeover := range []bool{false, true} {
			d, answer := AcceptDeflate(offers, takeover)
			checkAgreed(t, d, answer)
			if strings.Contains(answer, "client_max_window_bits") && !strings.Contains(a+b, "client_max_window_bits") {
				t.Fatalf("%q answers %q and %q", answer, a, b)
			}
			if again, err := ParseExtensions([]string{answer}); err != nil || answer != "" && len(again) != 1 {
				t.Fatalf("the answer %q can't be read: %v", answer, err)
			}
		}
	})
}
