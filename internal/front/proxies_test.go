package front

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func proxies(t testing.TB, texts ...string) (all Proxies) {
	t.Helper()
	for _, text := range texts {
		p, err := ParseProxy(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		all = append(all, p)
	}
	return all
}

func TestProxiesThatCantBeTrustedSayWhatToWrite(t *testing.T) {
	for text, says := range map[string]string{
		"":                     "write 10.0.0.1",
		"proxy.example":        "write 10.0.0.1",
		"10.0.0":               "write 10.0.0.1",
		"10.0.0.1:80":          "write 10.0.0.1",
		"[::1]:80":             "write ::1",
		"fe80::1%eth0":         "write fe80::1",
		"::ffff:10.0.0.1":      "write 10.0.0.1",
		"10.0.0.0/33":          "bits from 1 to 32",
		"10.0.0.0/x":           "bits from 1 to 32",
		"10.0.0.0/-1":          "bits from 1 to 32",
		"2001:db8::/129":       "bits from 1 to 128",
		"0.0.0.0/0":            "everyone",
		"::/0":                 "everyone",
		"10.0.0.1/8":           "write 10.0.0.0/8",
		"2001:db8::1/32":       "write 2001:db8::/32",
		"unix:/run/proxy.sock": "unix",
	} {
		if _, err := ParseProxy(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: no %q in: %v", text, says, err)
		}
	}
	proxies(t, "10.0.0.1", " 10.0.0.0/8", "2001:db8::/32", "::1", "unix")
}

// asked is a request from a peer with these headers; a header that is given twice has two lines.
func asked(peer string, headers ...string) *http.Request {
	r := httptest.NewRequest("GET", "/ws", nil)
	r.RemoteAddr = peer
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func TestTheClientsAddressIsTheLastThatAProxyVouchesFor(t *testing.T) {
	all := proxies(t, "10.0.0.0/8", "2001:db8:1::/48", "fe80::/10")
	const peer, client = "10.0.0.1:5000", "203.0.113.9:0"
	many := strings.Repeat("10.0.0.2, ", 1000)
	for _, tt := range []struct {
		name    string
		peer    string
		headers []string
		want    string
	}{
		{"no header", peer, nil, peer},
		{"from elsewhere", "192.0.2.1:5000", []string{"X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9"}, "192.0.2.1:5000"},
		{"no address at all", "pipe", []string{"X-Forwarded-For: 203.0.113.9"}, "pipe"},
		{"one proxy", peer, []string{"X-Forwarded-For: 203.0.113.9"}, client},
		{"an IPv4 proxy on an IPv6 socket", "[::ffff:10.0.0.1]:5000", []string{"X-Forwarded-For: 203.0.113.9"}, client},
		{"a proxy on the link", "[fe80::1%eth0]:5000", []string{"X-Forwarded-For: 203.0.113.9"}, client},
		{"what the client sent", peer, []string{"X-Forwarded-For: 198.51.100.1, 203.0.113.9"}, client},
		{"what the client sent, of addresses that are trusted", peer, []string{"X-Forwarded-For: 10.9.9.9, 203.0.113.9"}, client},
		{"three proxies", peer, []string{"X-Forwarded-For: 198.51.100.1, 203.0.113.9, 10.0.0.3,10.0.0.2"}, client},
		{"lines are one list", peer, []string{"X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 203.0.113.9, 10.0.0.3", "X-Forwarded-For: 10.0.0.2"}, client},
		{"proxies alone", peer, []string{"X-Forwarded-For: 10.0.0.3, 10.0.0.2"}, "10.0.0.3:0"},
		{"with a port", peer, []string{"X-Forwarded-For: 203.0.113.9:1234"}, "203.0.113.9:1234"},
		{"IPv6", peer, []string{"X-Forwarded-For: 2001:db8::9"}, "[2001:db8::9]:0"},
		{"IPv6 in brackets", peer, []string{"X-Forwarded-For: [2001:db8::9]"}, "[2001:db8::9]:0"},
		{"IPv6 with a port", peer, []string{"X-Forwarded-For: [2001:db8::9]:1234"}, "[2001:db8::9]:1234"},
		{"IPv6 past a proxy", peer, []string{"X-Forwarded-For: 2001:db8::9, 2001:db8:1::5"}, "[2001:db8::9]:0"},
		{"IPv4 in IPv6", peer, []string{"X-Forwarded-For: ::ffff:203.0.113.9"}, client},
		{"a zone", peer, []string{"X-Forwarded-For: fd00::9%eth0"}, "[fd00::9]:0"},
		// What is no address is the proxy that wrote it.
		{"garbage", peer, []string{"X-Forwarded-For: 198.51.100.1, what"}, peer},
		{"garbage behind a proxy", peer, []string{"X-Forwarded-For: 198.51.100.1, unix:, 10.0.0.2"}, "10.0.0.2:0"},
		{"unknown", peer, []string{"X-Forwarded-For: 198.51.100.1, unknown"}, peer},
		{"nothing", peer, []string{"X-Forwarded-For: 198.51.100.1, "}, peer},
		{"an empty line", peer, []string{"X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: "}, peer},
		{"a bad port", peer, []string{"X-Forwarded-For: 203.0.113.9:99999"}, peer},
		{"an open bracket", peer, []string{"X-Forwarded-For: [2001:db8::9"}, peer},
		{"IPv4 in brackets", peer, []string{"X-Forwarded-For: [203.0.113.9]"}, peer},
		{"a long one", peer, []string{"X-Forwarded-For: fe80::1%" + strings.Repeat("x", 10_000)}, peer},
		{"a thousand proxies", peer, []string{"X-Forwarded-For: 203.0.113.9, " + many + "10.0.0.3"}, "10.0.0.2:0"},
		{"a thousand before a client", peer, []string{"X-Forwarded-For: " + many + "203.0.113.9"}, client},
		// RFC 7239.
		{"Forwarded", peer, []string{"Forwarded: for=203.0.113.9"}, client},
		{"Forwarded with all", peer, []string{`Forwarded: by=10.0.0.1;For="203.0.113.9:1234" ; host=a.example;proto=https`}, "203.0.113.9:1234"},
		{"Forwarded with IPv6", peer, []string{`Forwarded: for="[2001:db8::9]:1234"`}, "[2001:db8::9]:1234"},
		{"a hidden port", peer, []string{`Forwarded: for="203.0.113.9:_p"`}, client},
		{"two elements", peer, []string{`Forwarded: for=203.0.113.9;proto=https, for=10.0.0.2`}, client},
		{"an obfuscated identifier", peer, []string{"Forwarded: for=198.51.100.1, for=_hidden"}, peer},
		{"unknown to Forwarded", peer, []string{"Forwarded: for=198.51.100.1, for=unknown"}, peer},
		{"an element for nobody", peer, []string{"Forwarded: for=198.51.100.1, proto=https"}, peer},
		{"an element for two", peer, []string{"Forwarded: for=198.51.100.1;for=203.0.113.9"}, peer},
		{"a quote that the client opened", peer, []string{`Forwarded: for=198.51.100.1;x=", for="203.0.113.9"`}, client},
		{"a quote that the client opened, on another line", peer, []string{`Forwarded: for=198.51.100.1;x="`, `Forwarded: for=203.0.113.9`}, client},
		{"a name that the client chose", peer, []string{`Forwarded: for=203.0.113.9;host="a, for=198.51.100.1"`}, peer},
		{"a name with a quote", peer, []string{`Forwarded: for=203.0.113.9;host="a\";for=198.51.100.1;x=\""`}, peer},
		// Both.
		{"both say the same", peer, []string{"X-Forwarded-For: 203.0.113.9", `Forwarded: for="203.0.113.9:7"`}, client},
		{"both differ", peer, []string{"X-Forwarded-For: 203.0.113.9", `Forwarded: for=198.51.100.1`}, peer},
		{"one of both is garbage", peer, []string{"X-Forwarded-For: 203.0.113.9", `Forwarded: x`}, peer},
		{"none of both is known", peer, []string{"X-Forwarded-For: x", `Forwarded: x`}, peer},
	} {
		got, clash := all.Client(asked(tt.peer, tt.headers...))
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if clash != (tt.name == "both differ" || tt.name == "one of both is garbage") {
			t.Errorf("%s: clash is %v", tt.name, clash)
		}
	}
}

// Who comes by a Unix socket has no address: it is trusted where the list has the word.
func TestAProxyAtAUnixSocket(t *testing.T) {
	r := asked("@", "X-Forwarded-For: 198.51.100.1, 203.0.113.9")
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.UnixAddr{Name: "/run/x", Net: "unix"})))
	if got, _ := proxies(t, "unix").Client(r); got != "203.0.113.9:0" {
		t.Errorf("trusted: %s", got)
	}
	if got, _ := proxies(t, "10.0.0.0/8").Client(r); got != "@" {
		t.Errorf("not trusted: %s", got)
	}
	if got, _ := proxies(t, "unix").Client(asked("10.0.0.1:1", "X-Forwarded-For: 203.0.113.9")); got != "10.0.0.1:1" {
		t.Errorf("by TCP: %s", got)
	}
}

// Whatever a client sends, what a trusted proxy writes behind it is what counts, on the same line or on another.
func FuzzForwarded(f *testing.F) {
	all := proxies(f, "10.0.0.0/8")
	for _, s := range []string{"", "for=1.2.3.4", `for="`, `for=1.2.3.4;x="`, `\`, `"\`, "1.2.3.4", "10.0.0.1", ",,", "[::1]:80, 1.2.3.4:80", `for="[::1]:_x"`} {
		f.Add(s, true, true)
		f.Add(s, false, true)
		f.Add(s, true, false)
	}
	const client, other = "203.0.113.9", "10.0.0.1:9"
	f.Fuzz(func(t *testing.T, sent string, standard, sameLine bool) {
		name, by := "X-Forwarded-For", client
		if standard {
			name, by = "Forwarded", `for="`+client+`";proto=https`
		}
		r := asked(other)
		r.Header[name] = []string{sent, by}
		if sameLine {
			r.Header[name] = []string{sent + ", " + by}
		}
		if got, _ := all.Client(r); got != client+":0" {
			t.Errorf("%q: %s", r.Header[name], got)
		}
		// With the other header from the client it can become a stranger, but nobody whom it chooses.
		mixed := asked(other)
		mixed.Header["X-Forwarded-For"], mixed.Header["Forwarded"] = []string{client}, []string{sent}
		if got, _ := all.Client(mixed); got != other && got != client+":0" {
			t.Errorf("Forwarded %q beside the proxy's header: %s", sent, got)
		}
		// A proxy that writes nothing of its own passes on whatever it was told: still an address.
		r.Header = http.Header{name: {sent}}
		if got, _ := all.Client(r); got != other {
			if _, err := netip.ParseAddrPort(got); err != nil {
				t.Errorf("%q: %v", sent, err)
			}
		}
	})
}
