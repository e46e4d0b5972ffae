package front

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestAddressesThatCantBeUsedSayWhatToWrite(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for addr, says := range map[string]string{
		"":                                  "write :8080",
		"8080":                              "write :8080",
		"localhost":                         "write localhost:8080",
		"localhost:":                        "localhost:0",
		":":                                 "write :8080",
		"::1":                               "write [::1]:8080",
		"a:b:c":                             "host:port",
		"127.0.0.1:99999":                   "65535",
		":-1":                               "65535",
		":no-such-service":                  "no-such-service",
		"http://localhost:8080":             "URL",
		"/run/hubbub.sock":                  "unix:PATH",
		"unix:":                             "write unix:/run/hubbub.sock",
		"unix:///run/x":                     "write unix:/run/x",
		"unix:" + dir + "/no/x":             "no such file",
		"unix:" + file + "/x":               "no directory",
		"unix:" + file:                      "no socket",
		"unix:" + dir:                       "no socket",
		"unix:/" + strings.Repeat("x", 200): "201 bytes",
	} {
		if runtime.GOOS == "windows" && says == "no such file" {
			continue // other words
		}
		_, _, err := ListenAddress(addr)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: no %q in: %v", addr, says, err)
		}
		l, err := Listen(addr)
		if err == nil {
			l.Close()
			t.Errorf("Listen takes %q", addr)
		}
	}
	for _, addr := range []string{":0", "127.0.0.1:0", "localhost:0", "[::1]:8080", ":http"} {
		if network, address, err := ListenAddress(addr); err != nil || network != "tcp" || address != addr {
			t.Errorf("%q: %s %s, %v", addr, network, address, err)
		}
	}
}

// What a killed process left behind is replaced; what isn't a socket, and a successor's socket, is let be.
func TestStaleSocketFiles(t *testing.T) {
	dir, err := os.MkdirTemp("", "hub") // t.TempDir's is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	leave := func() {
		old, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		old.(*net.UnixListener).SetUnlinkOnClose(false) // as SIGKILL does
		old.Close()
	}
	leave()
	l, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if nc, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		nc.Close()
	}
	os.Remove(path)
	leave() // another process has this path now
	l.Close()
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the successor's file: %v", err)
	}
}
