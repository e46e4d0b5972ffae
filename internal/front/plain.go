package front

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// plainUpgrade reads the request at the front of b where it is an upgrade about whose meaning there is no doubt: GET and
// HTTP/1.1, a path and a query of few signs, one Host, a name and a value of visible ASCII in each line of the head, and
// no body. size is where it ends; 0: it isn't one, or not whole. Any other request is net/http's, which alone says then
// what it means; of this one net/http says the same (FuzzPlainUpgrade). It keeps nothing of b.
func plainUpgrade(b []byte) (r *http.Request, size int) {
	head, _, whole := strings.Cut(string(b), "\r\n\r\n") // a copy, which names and values are parts of
	line, lines, _ := strings.Cut(head, "\r\n")
	target, get := strings.CutPrefix(line, "GET ")
	target, http11 := strings.CutSuffix(target, " HTTP/1.1")
	address := plainTarget(target)
	if !whole || !get || !http11 || address == nil {
		return nil, 0
	}
	most := min(strings.Count(lines, "\r\n")+1, 32)
	r = &http.Request{
		Method: http.MethodGet, URL: address, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header, most),
		Body: http.NoBody, RequestURI: target,
	}
	values := make([]string, 0, most) // of all headers, in one piece
	for lines != "" {
		line, lines, _ = strings.Cut(lines, "\r\n")
		name, value, ok := plainLine(line)
		if !ok {
			return nil, 0
		}
		switch {
		case name == "Host" && r.Host == "" && PlainHost(value):
			r.Host = value
		case name == "Host" || notPlain[name]:
			return nil, 0
		case r.Header[name] != nil:
			r.Header[name] = append(r.Header[name], value)
		default:
			values = append(values, value)
			r.Header[name] = values[len(values)-1 : len(values) : len(values)]
		}
	}
	if r.Host == "" || r.Header["Upgrade"] == nil {
		return nil, 0
	}
	return r, len(head) + len("\r\n\r\n")
}

// notPlain is what gives a request a body, or net/http something to do beside the request.
var notPlain = map[string]bool{
	"Content-Length": true, "Transfer-Encoding": true, "Trailer": true, "Expect": true, "Pragma": true,
}

// plainTarget takes a path of letters, digits and a few signs, that begins with one slash, and a query of such signs and
// those of forms; nil for any other.
func plainTarget(target string) *url.URL {
	path, query, asks := strings.Cut(target, "?")
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || asks && query == "" ||
		!all(path, "/-_.~") || !all(query, "/-_.~=&%+:,") {
		return nil
	}
	return &url.URL{Path: path, RawQuery: query}
}

// plainLine is a header's name in its usual letters, and its value.
func plainLine(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, ": ")
	if !ok || name == "" || !all(name, "-") || !Visible(value) {
		return "", "", false
	}
	return textproto.CanonicalMIMEHeaderKey(name), value, true
}

// all says whether there are only letters and digits of ASCII in a text, and these signs.
func all[text string | []byte](s text, signs string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(signs, c) < 0 {
			return false
		}
	}
	return true
}

// Visible says whether the value of a header is of visible ASCII, with spaces only within.
func Visible[text string | []byte](value text) bool {
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return false
		}
	}
	return len(value) > 0 && value[0] != ' ' && value[len(value)-1] != ' '
}

// PlainHost says whether the value of the header Host is a name or an address, with a port or without.
func PlainHost[text string | []byte](value text) bool { return len(value) > 0 && all(value, ".:-[]") }
