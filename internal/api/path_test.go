package api

import (
	"net/url"
	"strings"
	"testing"
)

var apiSegments = []string{"api", "v1"}

func roomOf(t *testing.T, u *url.URL, before []string) string {
	t.Helper()
	var space [12]string
	var args [2]string
	to, _ := find("GET", args[:], below(space[:0], u, before))
	if to == nil || to.name != "room" {
		t.Fatalf("%s is no call", u.EscapedPath())
	}
	return args[0]
}

func TestPathsGiveTheRoom(t *testing.T) {
	for _, room := range []string{"a", "a/b", "/", "//", "a%b", "%2F", "%25", "a b", " ", "+", "😀", "é;,:@&=+$?#", "..", ".", `\`, strings.Repeat("€", 85), strings.Repeat("/", 255)} {
		u, err := url.Parse("http://h/api/v1/rooms/" + url.PathEscape(room))
		if err != nil {
			t.Fatal(err)
		}
		if got := roomOf(t, u, apiSegments); got != room {
			t.Errorf("%q became %q", room, got)
		}
	}
	long := strings.Split("a/b/c/d/e/f/g/h/i/j/k/l/m/n/api/v1", "/")
	if got := roomOf(t, &url.URL{Path: "/" + strings.Join(long, "/") + "/rooms/r"}, long); got != "r" {
		t.Errorf("below a long path %q", got)
	}
	for _, path := range []string{"/api/v1/rooms/a/b", "/api/v1/rooms/", "/api/v1//rooms/a", "/api%2Fv1/rooms/a", "/api/v1/rooms/a/", "/x/api/v1/rooms/a", "/api/v1", "/", "", strings.Repeat("/a", 100)} {
		var space [12]string
		var args [2]string
		if to, _ := find("GET", args[:], below(space[:0], &url.URL{Path: path}, apiSegments)); to != nil && to.name != "openapi" && args[0] != "" {
			t.Errorf("%s is the call %s with %q", path, to.name, args)
		}
	}
}

// Whatever a path is, nothing panics, and a room's name in it is the one that was escaped.
func FuzzPaths(f *testing.F) {
	f.Add("/api/v1/rooms/a%2Fb", "a/b")
	f.Add("/api/v1/rooms/%zz", "%")
	f.Add("/live/api/v1/users/x", "..")
	f.Fuzz(func(t *testing.T, path, room string) {
		if u, err := url.ParseRequestURI(path); err == nil {
			var space [12]string
			var args [2]string
			find("GET", args[:], below(space[:0], u, apiSegments))
		}
		if room == "" {
			return
		}
		u, err := url.ParseRequestURI("/live/api/v1/rooms/" + url.PathEscape(room))
		if err != nil {
			t.Fatal(err)
		}
		if got := roomOf(t, u, []string{"live", "api", "v1"}); got != room {
			t.Fatalf("%q became %q", room, got)
		}
	})
}
