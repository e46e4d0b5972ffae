package hubbub_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// A Unix socket carries the protocol, plain and by TLS; its file is open to the group and gone at the end.
func TestAUnixSocket(t *testing.T) {
	for _, secure := range []bool{false, true} {
		dir, err := os.MkdirTemp("", "hub") // t.TempDir's is too long for a socket
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "s")
		server, err := hubbub.New(hubbub.Config{Logger: quietLogger(), PingInterval: 24 * time.Hour, MaxConnectionsPerIP: 5})
		if err != nil {
			t.Fatal(err)
		}
		config := tlsFor(t, secure)
		l, err := hubbub.Listen("unix:"+path, config)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode()&os.ModeSocket == 0 || runtime.GOOS == "linux" && info.Mode().Perm() != 0o660 {
			t.Errorf("the file: %v %v", info, err)
		}
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		for range 3 {
			nc, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(time.Minute))
			nc = overTLS(nc, secure)
			io.WriteString(nc, wsclient.Upgrade("x", "/echo"))
			r := bufio.NewReader(nc)
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%v %v", res, err)
			}
			nc.Write(rawtest.Frame(wsclient.Text, true, []byte("hello")))
			if _, p, err := rawtest.ReadFrame(r); err != nil || string(p) != "hello" {
				t.Errorf("got %q, %v", p, err)
			}
			nc.Close()
		}
		// While it lives nobody takes its place.
		if again, err := hubbub.Listen("unix:"+path, nil); err == nil || !strings.Contains(err.Error(), "another process listens there") {
			t.Errorf("a second one listens: %v %v", again, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file is still there: %v", err)
		}
	}
}

func tlsFor(t *testing.T, secure bool) *tls.Config {
	t.Helper()
	if !secure {
		return nil
	}
	cert, key := writeCertificate(t, t.TempDir(), "x")
	config, err := hubbub.CertificateFiles(cert, key, quietLogger())
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func overTLS(nc net.Conn, secure bool) net.Conn {
	if !secure {
		return nc
	}
	return tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
}

// starving has a descriptor for every second connection only, and for none in the end.
type starving struct {
	mu     sync.Mutex
	tries  int
	closed chan struct{}
	first  chan net.Conn // the other end of the first connection
}

const starvingTries = 2000

func (s *starving) Accept() (net.Conn, error) {
	s.mu.Lock()
	s.tries++
	n := s.tries
	s.mu.Unlock()
	if n > starvingTries {
		<-s.closed
		return nil, net.ErrClosed
	}
	if n%2 == 1 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	client, server := net.Pipe()
	if n == 2 {
		s.first <- client
	} else {
		go func() { io.Copy(io.Discard, client); client.Close() }()
	}
	return server, nil
}

func (s *starving) Close() error   { close(s.closed); return nil }
func (s *starving) Addr() net.Addr { return &net.TCPAddr{} }

// Out of descriptors those who connect are told, and the log gets a line a second, not one for each try.
func TestOutOfDescriptorsIsLoggedOnceASecond(t *testing.T) {
	log := &rawtest.Log{}
	server, err := hubbub.New(hubbub.Config{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	l := &starving{closed: make(chan struct{}), first: make(chan net.Conn)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	nc := <-l.first
	defer nc.Close()
	told, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(told.Body)
	if told.StatusCode != 503 || told.Header.Get("Retry-After") == "" || !told.Close || told.Header.Get("Content-Type") != "application/problem+json" || !json.Valid(body) {
		t.Errorf("the first is told %s %v %s", told.Status, told.Header, body)
	}
	rawtest.Eventually(t, "all tries are made", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.tries > starvingTries
	})
	ctx, cancel := context.WithTimeout(context.Background(), rawtest.Patience)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	<-served
	lines, most := strings.Count(log.String(), "out of file descriptors"), 1+int(time.Since(began)/time.Second)
	if lines < 1 || lines > most {
		t.Errorf("%d lines, want 1 to %d", lines, most)
	}
}
