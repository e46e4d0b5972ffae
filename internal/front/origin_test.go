package front

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// Every pattern either matches what a browser sends, or is refused with what to write instead.
func TestPatternsThatMatchNothingAreRefused(t *testing.T) {
	for _, tt := range []struct{ pattern, says string }{
		{"", "empty"},
		{"  ", "empty"},
		{`"https://a.example"`, "quotes are taken for a part of it: write https://a.example"},
		{"'https://a.example'", "write https://a.example"},
		{"“https://a.example”", "write https://a.example"},
		{"https://a.example https://b.example", "comma"},
		{"https://a.example;https://b.example", "comma"},
		{"a.example", "isn't of the form scheme://host: write https://a.example"},
		{"//a.example", "write https://a.example"},
		{"*.a.example", "write https://*.a.example"},
		{"localhost:3000", "write http://localhost:3000"},
		{"a.example/chat", "write https://a.example"},
		{"://a.example", "no scheme"},
		{"1s://a.example", "scheme"},
		{"https://", "no host"},
		{"https://:443", "no host"},
		{"https://a.example/", "path is no part of an origin: write https://a.example"},
		{"https://a.example/chat?x#y", "write https://a.example"},
		{"https://me@a.example", "write https://a.example"},
		{"https://me:secret@a.example/x", "write https://a.example"},
		{"https://.example.com", "begins with a dot: write *.example.com for every host below it"},
		{"https://*.example..com", "nothing between two dots"},
		{"http://a.example..", "nothing between two dots"},
		{"https://a.example:", "port"},
		{"https://a.example:0", "port"},
		{"https://a.example:0443", "port"},
		{"https://a.example:65536", "port"},
		{"https://a.example:https", "port"},
		{"https://a.example:0*", "port"},
		{"https://a%2eexample", "can't be in a host"},
		{"https://a!.example", "can't be in a host"},
		{"https://*bücher.example", "write the whole word"},
		{"http://127.1:3000", "four numbers"},
		{"http://10.0.0.256", "four numbers"},
		{"http://10.0.*.256", "four numbers"},
		{"http://010.0.0.1", "four numbers"},
		{"http://0x7f.0.0.0x1", "four numbers"},
		{"http://a.b.1", "four numbers"},
		{"http://[::1", "IPv6"},
		{"https:a.example", "write https://a.example"},
		{"http:/a.example:80", "write http://a.example"},
		{"file:/home/me", "write file://"},
		{"http://[::g]", "IPv6"},
		{"http://[fe80::1%25eth0]", "IPv6"},
		{"file:///home/me/page.html", "write file://"},
		{"file://*", "write file://"},
		{"about:blank", "write null"},
		{"data://x", "write null"},
		{"https://" + strings.Repeat("ü", 10_000), "longer"},
	} {
		_, err := ParseOriginPattern(tt.pattern)
		switch {
		case err == nil:
			t.Errorf("%q is taken", tt.pattern)
			continue
		case !strings.Contains(err.Error(), tt.says):
			t.Errorf("%q: no %q in: %v", tt.pattern, tt.says, err)
		}
		// What to write instead can be written.
		if write := regexp.MustCompile(`write (\S+://\S*|null)$`).FindStringSubmatch(err.Error()); write != nil {
			if _, err := ParseOriginPattern(write[1]); err != nil {
				t.Errorf("%q: the advice is refused too: %v", tt.pattern, err)
			}
		}
	}
}

// Who is refused is told what is wrong, and not what to write into a setting.
func TestAnOriginThatNoBrowserSends(t *testing.T) {
	for header, why := range map[string]string{
		"https://a.example https://b.example": "it is more than one",
		"a.example":                           "it isn't of the form scheme://host",
		"https://.a.example":                  "begins with a dot",
		"data://x":                            "the origin of such a page is null",
	} {
		got, advice := Origins(nil).Refuse(&http.Request{Header: http.Header{"Origin": {header}}})
		if !strings.HasSuffix(got, why) || advice != "" {
			t.Errorf("%s: %s, and %q", header, got, advice)
		}
	}
}
