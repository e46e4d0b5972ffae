package front

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/idna"

	"example.com/hubbub/internal/glob"
)

// A browser sends its users' cookies along wherever a page connects to, and enforces no same-origin rule on WebSockets
// (RFC 6455 10.2): the server has to. Other programs send no Origin, or any they like, so the check is no protection
// against them.

// Pages that have no host: opened files and the shells of desktop programs, which are told apart by nothing. Only a
// pattern that is exactly this lets them in, a star doesn't: any page may make itself "null".
const (
	originNull = "null"
	originFile = "file://"
)

// Origins are the patterns of those whose pages may connect, beside the server's own.
type Origins []OriginPattern

// Refuse says why the page that asks may not connect, and which pattern would let it in, if one can. An empty why: it
// may.
func (all Origins) Refuse(r *http.Request) (why, pattern string) {
	headers := r.Header["Origin"]
	if len(headers) == 0 {
		return "", ""
	}
	if len(headers) > 1 {
		return "there are two headers Origin", ""
	}
	o, err := normalOrigin(headers[0], false)
	if err != nil {
		what, _, _ := strings.Cut(err.Error(), ": write ") // which is for who sets a pattern
		return fmt.Sprintf("the header Origin, %.100q, is none that a browser sends: %s", headers[0], what), ""
	}
	if ownOrigin(o, r.Host) || ownOrigin(o, ForwardedHost(r)) || slices.ContainsFunc(all, func(p OriginPattern) bool { return p.matches(o) }) {
		return "", ""
	}
	return fmt.Sprintf("pages of %s may not connect, and the server was asked for as %.100q%s", o, r.Host, passHostOn(o, r.Host)), o
}

// passHostOn says what to set where the page is the server's own, and a proxy in between has changed the header Host.
func passHostOn(o, host string) string {
	scheme, own, _ := strings.Cut(o, "://")
	if defaultPort[scheme] == "" {
		return "" // a page of no web server
	}
	asks := "as another"
	if hasPort(own) && strings.EqualFold(own[:strings.LastIndexByte(own, ':')], host) {
		asks = "without its port"
	}
	return ". If the page is the server's own, a proxy in between asks for it " + asks + `: it must pass the header Host on as it came, in nginx by "proxy_set_header Host $http_host;" (not $host), in Apache by "ProxyPreserveHost On"`
}

// ownOrigin says whether the page is from the host that it connects to.
func ownOrigin(o, host string) bool {
	scheme, _, _ := strings.Cut(o, "://")
	if defaultPort[scheme] == "" {
		return false // a page of no web server, such as a desktop shell's app://localhost
	}
	own, err := normalOrigin(scheme+"://"+host, false)
	return err == nil && own == o
}

// OriginPattern is one of them, as normalOrigin writes it.
type OriginPattern struct {
	text string
	glob *glob.Pattern // nil where text stands for itself alone
}

// ParseOriginPattern takes what can match what a browser sends, and says of everything else what to write.
func ParseOriginPattern(text string) (OriginPattern, error) {
	o, err := normalOrigin(text, true)
	if err != nil || !strings.Contains(o, "*") {
		return OriginPattern{text: o}, err
	}
	return OriginPattern{o, glob.New(o)}, nil
}

// matches takes an origin as normalOrigin writes it. A star for the port stands for the scheme's own too.
func (p OriginPattern) matches(o string) bool {
	if p.glob == nil || o == originNull || o == originFile {
		return p.text == o
	}
	if p.glob.Match(o) {
		return true
	}
	scheme, host, _ := strings.Cut(o, "://")
	port := defaultPort[scheme]
	return port != "" && !hasPort(host) && p.glob.Match(o+":"+port)
}

// Open says whether any page on the web can have an origin that p matches.
func (p OriginPattern) Open() bool {
	const anybodys = "://anybody.invalid"
	return p.text == originNull || p.text == originFile || p.matches("https"+anybodys) || p.matches("http"+anybodys)
}

var defaultPort = map[string]string{"http": "80", "https": "443"}

// maxOrigin is longer than the name of any host; what a longer one costs to look at grows with its square.
const maxOrigin = 300

// normalOrigin writes an origin as a browser does: in small letters, its host in ASCII, without its scheme's own port.
// In a pattern a star stands for any run of characters.
func normalOrigin(text string, pattern bool) (string, error) {
	if pattern {
		text = strings.TrimSpace(text)
	}
	instead := func(why, write string) error {
		o, err := normalOrigin(write, pattern)
		if err != nil {
			return err // that is wrong with it too
		}
		return fmt.Errorf("%s: write %s", why, o)
	}
	text = strings.ToLower(text)
	switch {
	case text == originNull, text == originFile, pattern && text == "*":
		return text, nil
	case text == "":
		return "", errors.New("it is empty")
	case len(text) > maxOrigin:
		return "", fmt.Errorf("it is longer than %d bytes", maxOrigin)
	case strings.ContainsAny(text, quotes):
		return "", instead("the quotes are taken for a part of it", withoutQuotes(text))
	case strings.ContainsAny(text, " \t\r\n,;"):
		return "", errors.New("it is more than one: write a comma, and nothing else, between two")
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return "", instead("it isn't of the form scheme://host", withScheme(text))
	}
	scheme, err := normalScheme(scheme, pattern)
	if err != nil {
		return "", err
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		return "", instead("a user's name is no part of an origin", scheme+"://"+rest[at+1:])
	}
	if end := strings.IndexAny(rest, `/\?#`); end >= 0 {
		return "", instead("a path is no part of an origin", scheme+"://"+rest[:end])
	}
	host, err := normalHostAndPort(scheme, rest, pattern)
	return scheme + "://" + host, err
}

func withoutQuotes(text string) string {
	return strings.Map(func(c rune) rune {
		if strings.ContainsRune(quotes, c) {
			return -1
		}
		return c
	}, text)
}

// normalHostAndPort leaves the scheme's default port out.
func normalHostAndPort(scheme, text string, pattern bool) (host string, err error) {
	host, port := text, ""
	if hasPort(text) {
		colon := strings.LastIndexByte(text, ':')
		host, port = text[:colon], text[colon+1:]
		if err := checkPort(port, pattern); err != nil {
			return "", err
		}
	}
	if host, err = normalHost(host, pattern); err != nil {
		return "", err
	}
	if defaultPort[scheme] != "" {
		err = cmp.Or(checkDots(host), checkIPv4(host))
	}
	if port != "" && port != defaultPort[scheme] {
		host += ":" + port
	}
	return host, err
}

// quotes are what a shell or an env file was meant to take away.
const quotes = "\"'`“”‘’"

// withScheme guesses the origin that was meant by a text without "://".
func withScheme(text string) string {
	text = strings.TrimLeft(text, "/")
	before, after, _ := strings.Cut(text, ":")
	switch {
	case slices.Contains([]string{"http", "https", "ws", "wss", "file", "data", "blob", "about", "javascript"}, before):
		return before + "://" + strings.TrimLeft(after, "/")
	case before == "localhost", strings.HasPrefix(text, "127."), strings.HasPrefix(text, "[::1]"):
		return "http://" + text
	}
	return "https://" + text
}

func hasPort(host string) bool {
	return strings.LastIndexByte(host, ':') > strings.LastIndexByte(host, ']')
}

// normalScheme takes the address of a WebSocket for that of the pages that belong to it.
func normalScheme(scheme string, pattern bool) (string, error) {
	switch scheme {
	case "ws", "wss":
		return "http" + scheme[2:], nil
	case "file":
		return "", errors.New("an opened file has no host: write file://, and null for the browsers that send that")
	case "data", "blob", "about", "javascript":
		return "", errors.New("the origin of such a page is null: write null")
	}
	for i, c := range scheme {
		letter, other := 'a' <= c && c <= 'z', '0' <= c && c <= '9' || c == '+' || c == '-' || c == '.'
		if !letter && (i == 0 || !other) && !(pattern && c == '*') {
			return "", fmt.Errorf("%q can't be in its scheme", c)
		}
	}
	if scheme == "" {
		return "", errors.New("it has no scheme: write https:// or http:// before it")
	}
	return scheme, nil
}

func checkPort(port string, pattern bool) error {
	if pattern && strings.Contains(port, "*") && strings.Trim(port, "0123456789*") == "" && port[0] != '0' {
		return nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '0' {
		return fmt.Errorf("its port, %q, is no number from 1 to 65535", port)
	}
	return nil
}

// hostNames is what browsers do with the name of a host before they ask for it (the URL standard's "domain to ASCII").
var hostNames = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.CheckHyphens(false), idna.StrictDomainName(false), idna.BidiRule(), idna.CheckJoiners(true))

// normalHost is a name in ASCII, as it is asked for, or an address in its shortest form.
func normalHost(host string, pattern bool) (string, error) {
	if host == "" {
		return "", errors.New("it has no host")
	}
	if host[0] == '[' {
		return normalIPv6(strings.TrimSuffix(host[1:], "]"), pattern)
	}
	labels := strings.Split(host, ".")
	for i, label := range labels {
		if strings.IndexFunc(label, func(c rune) bool { return c > unicode.MaxASCII }) < 0 {
			continue
		}
		if strings.Contains(label, "*") {
			return "", fmt.Errorf("browsers write %q in letters of ASCII, and a star can't stand for a part of that: write the whole word", label)
		}
		name, err := hostNames.ToASCII(label)
		if err != nil || name == "" {
			return "", fmt.Errorf("%q is no name of a host", label)
		}
		labels[i] = name
	}
	host = strings.Join(labels, ".")
	for _, c := range host {
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.' || pattern && c == '*') {
			return "", fmt.Errorf("%q can't be in a host", c)
		}
	}
	return host, nil
}

// checkDots refuses what the DNS has no name for. One dot at the end is its root.
func checkDots(host string) error {
	switch {
	case host[0] == '.':
		return fmt.Errorf("%q begins with a dot: write *%s for every host below it", host, host)
	case strings.Contains(host, ".."):
		return fmt.Errorf("%q has nothing between two dots", host)
	}
	return nil
}

// checkIPv4 refuses what a browser takes for an address and would write in another way, or not ask for at all.
func checkIPv4(host string) error {
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	number := func(label string) bool { return label != "" && strings.Trim(label, "0123456789") == "" }
	if last := labels[len(labels)-1]; !number(last) && !strings.HasPrefix(last, "0x") {
		return nil
	}
	fits := len(labels) == 4 || len(labels) < 4 && strings.Contains(host, "*")
	for _, label := range labels {
		n, err := strconv.ParseUint(label, 10, 8)
		fits = fits && (strings.Contains(label, "*") || err == nil && label == strconv.FormatUint(n, 10))
	}
	if !fits {
		return fmt.Errorf("%q is neither a name nor four numbers from 0 to 255", host)
	}
	return nil
}

func normalIPv6(inner string, pattern bool) (string, error) {
	if pattern && strings.Contains(inner, "*") && strings.Trim(inner, "0123456789abcdef:*") == "" {
		return "[" + inner + "]", nil
	}
	ip, err := netip.ParseAddr(inner)
	if err != nil || !ip.Is6() || ip.Zone() != "" {
		return "", fmt.Errorf("%q is no IPv6 address", inner)
	}
	if ip.Is4In6() { // as the URL standard writes it; Go has four decimal numbers at the end
		b := ip.As16()
		return fmt.Sprintf("[::ffff:%x:%x]", uint16(b[12])<<8|uint16(b[13]), uint16(b[14])<<8|uint16(b[15])), nil
	}
	return "[" + ip.String() + "]", nil
}
