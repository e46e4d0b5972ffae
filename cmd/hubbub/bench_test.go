package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/bench"
)

// patience is how long a test waits for what must come: so long that a busy machine is no reason to fail.
const patience = 3 * time.Minute

// TestMain has the binary of the tests be hubbub itself where program starts it.
func TestMain(m *testing.M) {
	if os.Getenv("HUBBUB_TEST_PROGRAM") == "1" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// program is a hubbub command that is not started yet.
func program(t *testing.T, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, os.Args[0], args...)
	// A setting of the server's is none of the generator's.
	cmd.Env = append(os.Environ(), "HUBBUB_TEST_PROGRAM=1", "HUBBUB_COMPRESSION=context")
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// status runs a command and gives the status with which it ended.
func status(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// serve runs a Hubbub in this process until the test ends, and gives its address.
func serve(t *testing.T, cfg hubbub.Config, secure *tls.Config) string {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	srv, err := hubbub.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := hubbub.Listen("127.0.0.1:0", secure)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		srv.Shutdown(ctx)
		<-done
	})
	return l.Addr().String()
}

// certificate makes one for 127.0.0.1, and a file that holds it.
func certificate(t *testing.T) (*tls.Config, string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, file
}

// Every mode, plain, with TLS and compressed, on the loop and on the pump: all comes, once and in order.
func TestBenchOnARealServer(t *testing.T) {
	secure, ca := certificate(t)
	plain := "ws://" + serve(t, hubbub.Config{Workers: 2}, nil)
	pump := "ws://" + serve(t, hubbub.Config{IO: "pump"}, nil)
	tls := "wss://" + serve(t, hubbub.Config{}, secure)
	for name, c := range map[string]struct {
		args []string
		want func(*bench.Result) bool
	}{
		"idle":           {[]string{"idle", "--conns", "50", "--settle", "10ms", "--url", plain}, func(r *bench.Result) bool { return r.Handshakes.Opened == 50 }},
		"idle in rooms":  {[]string{"idle", "--conns", "50", "--rooms", "5", "--settle", "10ms", "--url", plain}, func(r *bench.Result) bool { return r.Handshakes.Opened == 50 }},
		"connect":        {[]string{"connect", "--concurrency", "2", "--url", plain}, func(r *bench.Result) bool { return r.Handshakes.Opened > 0 }},
		"connect by TLS": {[]string{"connect", "--concurrency", "2", "--insecure", "--url", tls}, func(r *bench.Result) bool { return r.Handshakes.Opened > 0 }},
		"echo":           {[]string{"echo", "--conns", "20", "--window", "4", "--url", plain}, delivers},
		"echo at a rate": {[]string{"echo", "--conns", "20", "--rate", "200", "--url", plain}, func(r *bench.Result) bool {
			return r.Published == 60 && r.Latency.Count == 60
		}},
		"echo, large":   {[]string{"echo", "--conns", "5", "--size", "60KiB", "--window", "8", "--url", pump}, delivers},
		"fanout":        {[]string{"fanout", "--members", "50", "--url", plain}, delivers},
		"fanout, rooms": {[]string{"fanout", "--rooms", "10", "--members", "5", "--publishers", "50", "--window", "64", "--url", plain}, delivers},
		"fanout, pump":  {[]string{"fanout", "--members", "20", "--publishers", "20", "--url", pump}, delivers},
		"fanout at a rate": {[]string{"fanout", "--members", "10", "--rate", "100", "--url", plain}, func(r *bench.Result) bool {
			return r.Published == 30 && r.Latency.Count == 30*9
		}},
		"fanout by TLS":    {[]string{"fanout", "--members", "20", "--ca", ca, "--url", tls}, delivers},
		"compressed":       {[]string{"fanout", "--members", "20", "--size", "4KiB", "--compression", "--url", plain}, compresses},
		"all of it":        {[]string{"fanout", "--members", "10", "--size", "4KiB", "--compression", "--insecure", "--url", tls}, compresses},
		"not compressed":   {[]string{"fanout", "--members", "10", "--size", "4KiB", "--url", plain}, func(r *bench.Result) bool { return r.ReceivedBytes > r.Delivered*4096 }},
		"the bare address": {[]string{"fanout", "--members", "10", "--url", plain + "/"}, delivers},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := benchFor(t, "300ms", c.args)
			if !c.want(&r) && !slices.Contains(c.args, "--rate") { // on a machine so busy that nothing was published
				r = benchFor(t, "10s", c.args)
			}
			if r.Err() != nil || r.Ended != "finished" || !c.want(&r) {
				t.Errorf("%v, %+v", r.Err(), r)
			}
			if runtime.GOOS == "linux" && (r.Server == nil || len(r.Server.PIDs) != 1 || r.Server.PIDs[0] != os.Getpid() || r.Server.MemoryEnd == 0) {
				t.Errorf("the server, process %d, was not seen: %+v %s", os.Getpid(), r.Server, r.ServerUnknown)
			}
		})
	}
}

// benchFor runs hubbub bench for so long, and reads its one JSON object.
func benchFor(t *testing.T, duration string, args []string) (r bench.Result) {
	t.Helper()
	all := append(append([]string{"bench"}, args...), "--duration", duration, "--json")
	if args[0] == "echo" || args[0] == "fanout" {
		all = append(all, "--warmup", "100ms")
	}
	if args[0] != "connect" {
		all = append(all, "--concurrency", "1") // many run at once, and a busy server refuses some of many
	}
	cmd, stdout, stderr := program(t, all...)
	if got := status(t, cmd); got != 0 {
		t.Fatalf("status %d: %s", got, stderr)
	}
	dec := json.NewDecoder(stdout)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatal(err)
	}
	if dec.More() {
		t.Error("more than one JSON object")
	}
	return r
}

func delivers(r *bench.Result) bool {
	return r.Published > 0 && r.Delivered > 0 && r.Latency.Count > 0 && r.ReceivedBytes > 0
}

func compresses(r *bench.Result) bool {
	return delivers(r) && r.Compression && r.ReceivedBytes < r.Delivered*int64(r.Size)*3/4
}

// The table says what the JSON says; progress is lines where there is no terminal, and none with --quiet.
func TestBenchTable(t *testing.T) {
	url := "ws://" + serve(t, hubbub.Config{}, nil)
	cmd, stdout, stderr := program(t, "bench", "fanout", "--members", "10", "--url", url, "--duration", "200ms", "--warmup", "0s", "--quiet")
	if got := status(t, cmd); got != 0 || stderr.Len() > 0 {
		t.Errorf("status %d: %s", got, stderr)
	}
	for _, want := range []string{url + "/ws", "1 room of 10 members", "delivered", "p99.9", "0 lost, 0 doubled, 0 out of order", "generator"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
}

// Control-C ends a run, and the result is there; without faults the status is 0.
func TestBenchEndsByASignal(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no signals to other processes there")
	}
	url := "ws://" + serve(t, hubbub.Config{}, nil)
	modes := []string{"idle", "connect", "echo", "fanout"}
	if testing.Short() {
		modes = modes[:1] // the others keep the processors busy for seconds before they measure
	}
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			cmd, stdout, _ := program(t, "bench", mode, "--url", url, "--duration", "1h", "--concurrency", "2", "--json") // or a busy server refuses some
			cmd.Stderr = nil
			progress, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(progress)
			for lines.Scan() && !strings.Contains(lines.Text(), "measuring: ") && !strings.Contains(lines.Text(), "holding: ") {
			}
			for range 2 { // as timeout(1) does
				if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
					t.Fatal(err)
				}
			}
			rest, _ := io.ReadAll(progress)
			if err := cmd.Wait(); err != nil {
				t.Fatalf("%v: %s\n%s", err, rest, stdout)
			}
			var r bench.Result
			if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
				t.Fatalf("%v: %s", err, stdout)
			}
			if r.Ended != "interrupted" || r.Duration <= 0 || r.Duration > patience.Seconds() {
				t.Errorf("%+v", r)
			}
		})
	}
}

// What goes wrong is told with status 1: a server that refuses, one that closes, none at all; bad flags with 2.
func TestBenchFails(t *testing.T) {
	full := "ws://" + serve(t, hubbub.Config{MaxConnections: 5}, nil)
	small := "ws://" + serve(t, hubbub.Config{MaxMessageBytes: 1 << 10}, nil)
	for _, c := range []struct {
		args   []string
		status int
		says   []string
	}{
		{[]string{"idle", "--conns", "10", "--url", full}, 1, []string{"5 connections did not open (refused with 503", "only 5 of 10 connections opened"}},
		{[]string{"echo", "--size", "2KiB", "--conns", "3", "--url", small}, 1, []string{"3 connections broke (closed by the server with 1009", "the server closed every connection"}},
		{[]string{"fanout", "--url", "ws://127.0.0.1:1"}, 1, []string{"nothing listens at 127.0.0.1:1"}},
		{[]string{"fanout", "--url", "gopher://x"}, 2, []string{"gopher://x"}},
		{[]string{"fanout", "--duration", "0s"}, 2, []string{"--duration 0s"}},
		{[]string{"echo", "--ca", "/no/such/file"}, 2, []string{"--ca", "/no/such/file"}},
		{[]string{"fanout", "--publish", "hello"}, 2, []string{"no %p"}},
	} {
		cmd, _, stderr := program(t, append([]string{"bench"}, c.args...)...)
		if got := status(t, cmd); got != c.status {
			t.Errorf("%v: status %d, want %d", c.args, got, c.status)
		}
		for _, want := range c.says {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("%v: no %q in %s", c.args, want, stderr)
			}
		}
	}
}

// A template has commas, and none of them parts it.
func TestBenchFlags(t *testing.T) {
	var c cli
	frame := `{"a":1,"b":"%r, %p"}`
	if _, err := newParser(&c).Parse([]string{"bench", "fanout", "--init", frame, "--init", "x", "--publish", frame, "--header", "A: b, c", "--reply", "{}={},{}", "--size", "16KiB"}); err != nil {
		t.Fatal(err)
	}
	f := c.Bench.Fanout
	if len(f.Init) != 2 || f.Init[0] != frame || f.Publish != frame || len(f.Header) != 1 || f.Header[0] != "A: b, c" || len(f.Reply) != 1 || f.Size != 16<<10 {
		t.Errorf("%+v", f)
	}
}

// The live line stays within the terminal.
func TestLiveLine(t *testing.T) {
	var out bytes.Buffer
	show := liveLine(&out, func() int { return 20 })
	show(bench.Status{Phase: "measuring", Done: 1234567})
	if got, want := out.String(), "\rmeasuring: 1,234,56\x1b[K"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
