package hubbub_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"example.com/hubbub"
)

// bye is a masked Close, code 1000: what ends a WebSocket.
const bye = "\x88\x82\x00\x00\x00\x00\x03\xe8"

// An upgrade is answered alike whether net/http has seen it or not, byte for byte, also where it is refused and where
// something comes behind it.
func TestUpgradesAreTheSameWithoutNetHTTP(t *testing.T) {
	head := func(lines ...string) string {
		return "GET /echo HTTP/1.1\r\nHost: chat.example:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + strings.Join(append(lines, "\r\n"), "\r\n")
	}
	good := head("Origin: http://chat.example:8080", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits", "User-Agent: x")
	with := func(old, to string) string { return strings.Replace(good, old, to, 1) }
	cfg := quickConfig(t)
	cfg.Subprotocols, cfg.JWT.Key, cfg.JWT.Cookie, cfg.Anonymous = []string{"a", "b"}, strings.Repeat("k", 32), "token", true
	quick, netHTTP := bothWays(t, cfg)
	secure, _, _ := startTLS(t, cfg)
	for name, stream := range map[string]string{
		"one":                     good + bye,
		"text behind":             good + "\x81\x82\x00\x00\x00\x00hi" + bye,
		"a page of another site":  with("chat.example:8080\r\nUp", "other\r\nUp"),
		"refused at /":            strings.Replace(with("/echo", "/"), "13", "8", 1),
		"another version":         with("13", "8"),
		"no version":              with("Sec-WebSocket-Version: 13\r\n", ""),
		"two versions":            head("Sec-WebSocket-Version: 13"),
		"no key":                  with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
		"a short key":             with("dGhlIHNh", "dGhl"),
		"two keys":                head("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
		"no connection":           with("Connection: Upgrade\r\n", ""),
		"two connections":         head("Connection: keep-alive") + bye,
		"another upgrade":         with("websocket", "h2c"),
		"many upgrades":           with("Upgrade: websocket", "Upgrade: h2c, WebSocket") + bye,
		"subprotocols":            head("Sec-WebSocket-Protocol: x, b", "Sec-WebSocket-Protocol: a") + bye,
		"wrong extensions":        with("permessage-deflate;", "permessage-deflate;;"),
		"extensions in two lines": head("Sec-WebSocket-Extensions: x", "sec-websocket-extensions: permessage-deflate") + bye,
		"a cookie without origin": head("Cookie: token=x; other=y"),
		"cookies":                 head("Origin: http://chat.example:8080", "Cookie: a=b", "Cookie: c=d") + bye,
		"twenty headers":          head(strings.Split(strings.Repeat("X-A: b\r\n", 20)+"X-B: c", "\r\n")...) + bye,
		"a query":                 with("/echo", "/echo?a=b&c=%20d") + bye,
		"an empty query":          with("/echo", "/echo?") + bye,
		"a query with a mark":     with("/echo", "/echo?a=b?c") + bye,
		"an escaped path":         with("/echo", "/%65cho") + bye,
		"two slashes":             with("/echo", "//echo") + bye,
		"dots":                    with("/echo", "/x/../echo") + bye,
		"a whole address":         with("/echo", "http://chat.example:8080/echo") + bye,
		"a path that isn't there": with("/echo", "/else"),
		"a path of the API":       with("/echo", "/api/v1/rooms"),
		"an asterisk":             with("/echo", "*"),
		"HTTP/1.0":                with("HTTP/1.1", "HTTP/1.0"),
		"HTTP/2.0":                with("HTTP/1.1", "HTTP/2.0"),
		"POST":                    with("GET", "POST"),
		"get":                     with("GET", "get"),
		"a body":                  head("Content-Length: 5") + "hello",
		"no body":                 head("Content-Length: 0") + bye,
		"chunks":                  head("Transfer-Encoding: chunked") + "0\r\n\r\n",
		"a trick":                 head("Transfer-Encoding : chunked") + "0\r\n\r\n",
		"expected":                head("Expect: 100-continue"),
		"trailers":                head("Trailer: X-A") + bye,
		"no cache":                head("Pragma: no-cache", "Cache-Control: no-cache") + bye,
		"an empty value":          head("X-A:", "X-B: ") + bye,
		"a folded line":           head("X-A: b\r\n c") + bye,
		"a space before a colon":  head("X-A : b") + bye,
		"no space":                with("Upgrade: websocket", "Upgrade:websocket") + bye,
		"two spaces":              with("Upgrade: websocket", "Upgrade:  websocket ") + bye,
		"a tab":                   with("Upgrade: websocket", "Upgrade:\twebsocket") + bye,
		"a sign in a name":        head("X_A: b", "X!A: b") + bye,
		"no name":                 head(": b") + bye,
		"a line without a colon":  head("X-A") + bye,
		"a letter of another":     head("X-A: \xc3\xa4") + bye,
		"a zero byte":             head("X-A: \x00") + bye,
		"a line feed alone":       with("13\r\n", "13\n") + bye,
		"line feeds alone":        strings.ReplaceAll(good, "\r\n", "\n") + bye,
		"a carriage return":       with("13\r\n", "13\rX-A: b\r\n") + bye,
		"no host":                 with("Host: chat.example:8080\r\n", ""),
		"an empty host":           with("Host: chat.example:8080", "Host: "),
		"two hosts":               head("Host: chat.example:8080"),
		"a host that is none":     with("Host: chat.example", "Host: chat/example"),
		"an empty line before":    "\r\n" + good + bye,
		"two upgrades":            with("Connection: Upgrade\r\n", "") + good + bye,
		"behind a publish":        plainPublish(`{"room":"r","content":1}`) + good + bye,
		"behind another request":  "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n" + good + bye,
		"before a publish":        with("websocket", "h2c") + plainPublish(`{"room":"r","content":1}`),
		"a long head":             head("User-Agent: "+strings.Repeat("x", 5000)) + bye,
		"too long a head":         head("User-Agent: "+strings.Repeat("x", 40<<10)) + bye,
	} {
		t.Run(name, func(t *testing.T) { sameAnswers(t, stream+lastRequest, netHTTP, quick, secure) })
	}
	r := httptest.NewRequest(http.MethodGet, "/echo", nil)
	r.Header.Set("Upgrade", "websocket")
	if hubbub.QuickUpgrade(quick.Server, r) == nil {
		t.Error("an upgrade isn't served without net/http: nothing was compared")
	}
}
