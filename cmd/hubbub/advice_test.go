package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/wsclient"
)

// What the log advises works: pasted behind hubbub serve, it lets in what was refused.

func TestTheLogsAdviceWorks(t *testing.T) {
	for _, tt := range []struct{ path, origin string }{
		{"/ws", "https://evil.example"},
		{"/ws", "https://EVIL.example:443"},
		{"/ws", "http://evil.example:80"},
		{"/ws", "http://evil.example:8080"},
		{"/", "https://127.0.0.1"},
		{"/echo", "http://[::1]:3000"},
		{"/echo", "http://[0:0:0:0:0:0:0:1]"},
		{"/ws", "http://[::ffff:10.0.0.1]"},
		{"/ws", "null"},
		{"/ws", "file://"},
		{"/ws", "tauri://localhost"},
		{"/ws", "app://-"},
		{"/ws", "app://."},
		{"/ws", "chrome-extension://abcdefghijklmnopabcdefghijklmnop"},
		{"/ws", "vscode-webview://1dq3sl0f"},
		{"/ws", "wss://evil.example"},
		{"/ws", "https://xn--bcher-kva.example"},
		{"/ws", "https://bücher.example"},
		{"/ws", "https://under_score.example"},
		{"/ws", "https://a.example."},
		{"/live/ws", ""},
		{"/live/chat-1.0/ws", ""},
		{"/live/", ""},
		{"/live/echo", ""},
		{"/live/ws", "https://evil.example"}, // one after the other
	} {
		t.Run(tt.path+" from "+tt.origin, func(t *testing.T) {
			args := []string{"serve"}
			for {
				status, advice := refusedOnce(t, args, tt.path, tt.origin)
				if status == http.StatusSwitchingProtocols {
					break
				}
				if advice == "" || len(args) > 3 {
					t.Fatalf("hubbub %s: status %d, and the advice %q", strings.Join(args, " "), status, advice)
				}
				args = append(args, strings.Fields(advice)...)
			}
			if len(args) == 1 {
				t.Error("it was never refused")
			}
		})
	}
}

// refusedOnce runs a server by the command line's flags, knocks, and gives the answer and what the log advises.
func refusedOnce(t *testing.T, args []string, path, origin string) (status int, advice string) {
	t.Helper()
	set, _, err := parse(t, nil, args...)
	if err != nil {
		t.Fatalf("hubbub %s: %v", strings.Join(args, " "), err)
	}
	var log safeBuffer
	srv, err := hubbub.New(set.config(slog.New(slog.NewJSONHandler(&log, nil))))
	if err != nil {
		t.Fatalf("hubbub %s: %v", strings.Join(args, " "), err)
	}
	l, err := hubbub.Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		srv.Shutdown(ctx)
		<-done
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	var lines []string
	if origin != "" {
		lines = append(lines, "Origin: "+origin)
	}
	io.WriteString(nc, wsclient.Upgrade("chat.example", path, lines...))
	res, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(log.bytes()) { // it was written before the answer
		var attrs map[string]any
		if err := json.Unmarshal(line, &attrs); err != nil {
			t.Fatal(err)
		}
		if would, ok := attrs["would_allow"].(string); ok {
			advice = would
		}
	}
	return res.StatusCode, advice
}

// safeBuffer is written to by a server's goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.b.Bytes())
}
