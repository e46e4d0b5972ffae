package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"example.com/hubbub"
)

// healthOf runs hubbub health with that environment.
func healthOf(t *testing.T, env []string, args ...string) (code int, out, says string) {
	t.Helper()
	cmd, stdout, stderr := program(t, append([]string{"health"}, args...)...)
	cmd.Env = append(append(os.Environ(), "HUBBUB_TEST_PROGRAM=1"), env...)
	return status(t, cmd), stdout.String(), stderr.String()
}

// It finds the server by the settings with which that runs: address, path, TLS, Unix socket.
func TestHealthOfARunningServer(t *testing.T) {
	dir := t.TempDir()
	secure, cert := certificate(t)
	for name, of := range map[string]struct {
		listen string
		secure *tls.Config
		env    []string
	}{
		"plain":    {"127.0.0.1:0", nil, []string{"HUBBUB_BASE_PATH=/live"}},
		"TLS":      {"127.0.0.1:0", secure, []string{"HUBBUB_BASE_PATH=/live", "HUBBUB_TLS_CERT=" + cert}},
		"a socket": {"unix:" + dir + "/s", nil, []string{"HUBBUB_BASE_PATH=/live"}},
	} {
		t.Run(name, func(t *testing.T) {
			srv, err := hubbub.New(hubbub.Config{BasePath: "/live", MaxConnections: 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { srv.Shutdown(context.Background()) })
			l, err := hubbub.Listen(of.listen, of.secure)
			if err != nil {
				t.Fatal(err)
			}
			go srv.Serve(l)
			at := of.listen
			if tcp, ok := l.Addr().(*net.TCPAddr); ok {
				at = tcp.String()
			}
			env := append(of.env, "HUBBUB_LISTEN="+at)
			if code, out, says := healthOf(t, env); code != 0 || out != "alive\n" {
				t.Errorf("status %d, %s%s", code, out, says)
			}
			if code, out, says := healthOf(t, env, "--ready"); code != 0 || out != "ready\n" {
				t.Errorf("ready: status %d, %s%s", code, out, says)
			}
			if tcp := at == l.Addr().String(); tcp && of.secure == nil {
				elsewhere := []string{"HUBBUB_LISTEN=127.0.0.1:1", "HUBBUB_URL=http://" + at + "/live"} // as the other commands
				if code, out, says := healthOf(t, elsewhere); code != 0 || out != "alive\n" {
					t.Errorf("by HUBBUB_URL: status %d, %s%s", code, out, says)
				}
				if code, _, says := healthOf(t, elsewhere, "--listen", "127.0.0.1:1"); code != 1 || !strings.Contains(says, "http://127.0.0.1:1/") {
					t.Errorf("--listen doesn't count before HUBBUB_URL: status %d, %s", code, says)
				}
				if code, out, says := healthOf(t, nil, "--listen", "127.0.0.1:1", "--url", "http://"+at+"/live"); code != 0 {
					t.Errorf("--url doesn't count before --listen: status %d, %s%s", code, out, says)
				}
				if code, _, _ := healthOf(t, elsewhere, "--url", "http://127.0.0.1:1"); code != 1 {
					t.Errorf("--url doesn't count before HUBBUB_URL: status %d", code)
				}
			}
			if code, _, says := healthOf(t, env, "--url", "http://"+at+"/elsewhere"); of.secure == nil && at == l.Addr().String() && (code != 1 || says == "") {
				t.Errorf("at another path: status %d, %s", code, says)
			}
		})
	}
}

// What doesn't answer, or answers no, is not well; what says too much is not read to its end.
func TestHealthOfWhatIsNotWell(t *testing.T) {
	no := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write([]byte("no, " + r.URL.Path + strings.Repeat(" x", 1<<20)))
	}))
	defer no.Close()
	if code, out, says := healthOf(t, nil, "--url", no.URL, "--ready"); code != 1 || out != "" || !strings.Contains(says, "503") || !strings.Contains(says, "no, /readyz") || len(says) > 2*maxHealth {
		t.Errorf("status %d, %s, %.200s", code, out, says)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // it takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if code, _, says := healthOf(t, nil, "--url", "http://"+silent.Addr().String(), "--timeout", "50ms"); code != 1 || !strings.Contains(says, "deadline") {
		t.Errorf("silence: status %d, %s", code, says)
	}
	if code, _, says := healthOf(t, nil, "--url", "127.0.0.1:18080"); code != statusUsage || !strings.Contains(says, `--url "127.0.0.1:18080": an address is wanted such as http://`) {
		t.Errorf("no scheme: status %d, %s", code, says)
	}
	if code, _, says := healthOf(t, []string{"HUBBUB_LISTEN=:0"}); code != statusUsage || !strings.Contains(says, "--url") {
		t.Errorf("no port: status %d, %s", code, says)
	}
}
