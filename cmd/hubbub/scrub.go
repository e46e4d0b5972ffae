package main

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// scrubber takes out of texts what is nobody's to read: the secrets that it knows, by their values, and what looks like
// one.
type scrubber struct {
	known []string // longest first
	names bool     // names and addresses of clients may stay
}

const (
	hiddenSecret  = "(secret)"
	hiddenName    = "(name)"
	leastKnown    = 4       // bytes of a secret; a shorter one would take half of every text with it
	leastPart     = 16      // bytes of a part of a path that may be a secret by itself, and no word
	maxSecretFile = 1 << 20 // bytes
)

// newScrubber knows the secrets of the settings, and parts of addresses.
func newScrubber(c *serveCmd, names bool, more ...string) *scrubber {
	s := &scrubber{names: names}
	for _, text := range slices.Concat(more, []string{string(c.APIKey), string(c.ClusterSecret)}, c.WebhookSecret) {
		s.add(text)
	}
	for _, text := range []secret{c.JWTKey} {
		if path, isFile := strings.CutPrefix(string(text), "@"); isFile {
			if b, err := os.ReadFile(path); err == nil && len(b) <= maxSecretFile {
				s.add(strings.TrimSpace(string(b)))
			}
			continue
		}
		s.add(string(text))
	}
	for _, address := range append([]string{string(c.WebhookURL), string(c.HookURL), string(c.JWTJWKS)}, c.NATS...) {
		s.addURL(address)
	}
	slices.SortFunc(s.known, func(a, b string) int { return len(b) - len(a) })
	s.known = slices.Compact(s.known)
	return s
}

// add knows a secret in each form in which it may stand in a text.
func (s *scrubber) add(text string) {
	if len(text) < leastKnown {
		return
	}
	quoted := strconv.Quote(text)
	asJSON, _ := json.Marshal(text)
	s.known = append(s.known, text, url.QueryEscape(text), url.PathEscape(text), quoted[1:len(quoted)-1], string(asJSON[1:len(asJSON)-1]))
	if rest, ok := strings.CutPrefix(text, "whsec_"); ok {
		s.known = append(s.known, rest)
	}
}

// addURL knows what of an address may be a secret: user, password, path and query.
func (s *scrubber) addURL(address string) {
	u, err := url.Parse(address)
	if err != nil {
		s.add(address)
		return
	}
	if u.User != nil {
		password, _ := u.User.Password()
		s.add(password)
		s.add(u.User.Username())
		s.add(u.User.String())
	}
	if len(u.Path) > 8 {
		s.add(strings.TrimPrefix(u.Path, "/"))
	}
	for part := range strings.SplitSeq(u.Path, "/") {
		if len(part) >= leastPart {
			s.add(part)
		}
	}
	s.add(u.RawQuery)
	for _, values := range u.Query() {
		for _, v := range values {
			s.add(v)
		}
	}
}

// looksSecret are forms of secrets, whoever's they are.
var looksSecret = []struct {
	form *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)`), hiddenSecret},
	{regexp.MustCompile(`\bhub_[A-Za-z0-9]{12,}`), hiddenSecret},
	{regexp.MustCompile(`\bwhsec_[A-Za-z0-9+/=_-]+`), hiddenSecret},
	{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.?[A-Za-z0-9_-]*`), hiddenSecret}, // a JWT
	{regexp.MustCompile(`(?i)\b(Bearer|Basic) +[^\s",]+`), "$1 " + hiddenSecret},
	{regexp.MustCompile(`://[^/\s@"']+@`), "://" + hiddenSecret + "@"},
	{regexp.MustCompile(`(?i)\b((?:access_|refresh_|id_)?token|api_?key|secret|password|passwd|pwd)=[^&\s"#]+`), "$1=" + hiddenSecret},
	{regexp.MustCompile(`(?i)([?&](?:key|sig|signature|code))=[^&\s"#]+`), "$1=" + hiddenSecret},
}

// text is without secrets.
func (s *scrubber) text(text string) string {
	for _, known := range s.known {
		text = strings.ReplaceAll(text, known, hiddenSecret)
	}
	for _, l := range looksSecret {
		text = l.form.ReplaceAllString(text, l.to)
	}
	return text
}

var (
	clientID = regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`)
	ipv4     = regexp.MustCompile(`\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b`)
	ipv6     = regexp.MustCompile(`\[[0-9a-fA-F:]*:[0-9a-fA-F:.]*(%\w+)?\]|[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*`) // in brackets, or what may be one
	anyURL   = regexp.MustCompile(`\b([a-zA-Z][a-zA-Z0-9+.-]*://)([^\s"'<>,;]+)`)                                       // an origin, too
	lookedUp = regexp.MustCompile(`\blookup \S+`)
	barePath = regexp.MustCompile(`(^|[\s=(])/[^\s"'<>,;()]+`) // of a request
	inQuotes = regexp.MustCompile(`\\?"(?:[^"\\]|\\[^"])*\\?"`)
	bare     = regexp.MustCompile(`^-?[0-9.]+(ns|µs|us|ms|s|m|h|[0-9hms.]+)?$|^(true|false|null)$`)
)

// plainKeys are attributes of log lines whose values are the server's own words.
var plainKeys = strings.Fields("time level msg why err error status code limit more_like_it gomemlimit bytes processors setting state result verb stack panic version page websocket admin-listen socket folder dir file signal")

// logLine is a line of the log without secrets, and without names of clients and rooms, and addresses.
func (s *scrubber) logLine(line string) string {
	line = s.text(line)
	if s.names {
		return line
	}
	var fields map[string]any
	if json.Unmarshal([]byte(line), &fields) == nil {
		for key, value := range fields {
			if text, isText := value.(string); isText {
				fields[key] = s.attribute(key, text)
			} else if !bare.MatchString(strings.TrimSpace(toJSON(value))) {
				fields[key] = hiddenName
			}
		}
		return toJSON(fields)
	}
	var out []string
	for rest := line; rest != ""; {
		key, after, found := strings.Cut(rest, "=")
		if !found || strings.ContainsAny(key, " \"") { // no line of ours, or the rest of one
			out = append(out, hiddenName)
			break
		}
		value := after
		if strings.HasPrefix(after, `"`) {
			if quoted, err := strconv.QuotedPrefix(after); err == nil {
				value, rest = quoted, strings.TrimPrefix(after[len(quoted):], " ")
				text, _ := strconv.Unquote(quoted)
				out = append(out, key+"="+strconv.Quote(s.attribute(key, text)))
				continue
			}
			out = append(out, key+"="+hiddenName) // it was cut
			break
		}
		value, rest, _ = strings.Cut(after, " ")
		out = append(out, key+"="+s.attribute(key, value))
	}
	return strings.Join(out, " ")
}

func toJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// attribute is the value of a line's attribute.
func (s *scrubber) attribute(key, value string) string {
	switch {
	case bare.MatchString(value) || key == "time":
		return value
	case !slices.Contains(plainKeys, key):
		return hiddenName
	case key == "why": // in others a path is a folder of the server's
		value = barePath.ReplaceAllString(value, "$1/"+hiddenName)
	}
	return s.withoutNames(value)
}

// withoutNames is a text in the server's words without what it quotes, ids, addresses and origins, of which the scheme stays.
func (s *scrubber) withoutNames(text string) string {
	text = inQuotes.ReplaceAllString(text, `"`+hiddenName+`"`)
	text = lookedUp.ReplaceAllString(text, "lookup "+hiddenName)
	text = anyURL.ReplaceAllStringFunc(text, func(address string) string {
		parts := anyURL.FindStringSubmatch(address)
		host, path, _ := strings.Cut(parts[2], "/")
		name, _, _ := strings.Cut(host, ":")
		if ip, _ := netip.ParseAddr(name); name != "localhost" && !ip.IsLoopback() {
			return parts[1] + hiddenName
		}
		if path != "" {
			return parts[1] + host + "/" + hiddenName
		}
		return address // everybody has it
	})
	text = clientID.ReplaceAllString(text, hiddenName)
	text = ipv6.ReplaceAllStringFunc(text, func(text string) string {
		if _, err := netip.ParseAddr(text); err != nil && text[0] != '[' { // a time of the day
			return text
		}
		return hiddenName
	})
	return ipv4.ReplaceAllStringFunc(text, func(address string) string {
		if strings.HasPrefix(address, "127.") || address == "0.0.0.0" {
			return address // everybody has it
		}
		return hiddenName
	})
}
