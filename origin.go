package hubbub

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"

	"example.com/hubbub/internal/hub"
)

// originAllowed says whether the page that asks may connect: a browser sends its users' cookies along wherever a page
// connects to, and enforces no same-origin rule on WebSockets (RFC 6455 10.2). Other programs send no Origin, or
// any they like, so the check is no protection against them.
func originAllowed(r *http.Request, patterns []string) bool {
	origins := r.Header["Origin"]
	if len(origins) == 0 {
		return true
	}
	if len(origins) > 1 {
		return false
	}
	scheme, host, ok := splitOrigin(origins[0])
	if !ok {
		return false
	}
	if withPort(host, scheme) == withPort(strings.ToLower(r.Host), scheme) {
		return true
	}
	for _, p := range patterns {
		if hub.NewPattern(strings.ToLower(p)).Match(scheme + "://" + host) {
			return true
		}
	}
	return false
}

// splitOrigin takes scheme://host or scheme://host:port apart, in small letters, and nothing else: "null", user
// information or a path make no origin (RFC 6454 6.2).
func splitOrigin(s string) (scheme, host string, ok bool) {
	u, err := url.Parse(strings.ToLower(s))
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || strings.Contains(s, "@") {
		return "", "", false
	}
	if u.Scheme+"://"+u.Host != strings.ToLower(s) { // a path, a query, a fragment, an escape
		return "", "", false
	}
	return u.Scheme, u.Host, true
}

// withPort adds the scheme's default port to a host that names none.
func withPort(host, scheme string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	port := map[string]string{"http": "80", "https": "443"}[scheme]
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

func checkOriginPattern(p string) error {
	if p == "*" {
		return nil
	}
	if _, host, ok := strings.Cut(p, "://"); !ok || host == "" || strings.ContainsAny(host, "/@?# ") {
		return errors.New("not of the form scheme://host or scheme://host:port")
	}
	return nil
}
