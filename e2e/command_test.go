package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// refused runs `hubbub serve` and `hubbub config` with what they must refuse, and checks that the error names each of
// the words.
func refused(t *testing.T, env, args []string, words ...string) {
	t.Helper()
	for _, command := range []string{"serve", "config"} {
		out, status := hubbub(t, env, append([]string{command, "--listen", "127.0.0.1:0"}, args...)...)
		if status != 2 {
			t.Errorf("%s %v %v: exit status %d, want 2", command, env, args, status)
		}
		for _, word := range words {
			if !strings.Contains(out, word) {
				t.Errorf("%s %v %v: the error does not name %q:\n%s", command, env, args, word, out)
			}
		}
	}
}

func TestUnknownFlagIsRefusedByName(t *testing.T) {
	t.Parallel()
	refused(t, nil, []string{"--no-such-flag"}, "no-such-flag")
	refused(t, nil, []string{"surplus"}, "surplus")
	refused(t, nil, []string{"--max-conections", "1"}, "max-conections", "did you mean", "--max-connections")
	if _, status := hubbub(t, nil, "no-such-command"); status != 2 {
		t.Errorf("an unknown command: exit status %d, want 2", status)
	}
}

// What is promised for later, and what lacks another setting.
func TestReservedFlagIsRefusedByName(t *testing.T) {
	t.Parallel()
	for flag, value := range map[string]string{
		"nats": "127.0.0.1:4222", "nats-creds": "file", "nats-ca": "file", "cluster-listen": ":6222", "cluster-advertise": "a:6222", "cluster-secret": "x",
		"join": "127.0.0.1:6222", "replicas": "3", "cluster-tls-cert": "x",
		"anonymous": "on", "jwt-key": "x", "hook-url": "http://127.0.0.1:1", "pusher-app": "x", "centrifugo": "on",
	} {
		refused(t, nil, []string{"--" + flag, value}, flag)
		refused(t, nil, []string{"--" + flag + "=" + value}, flag)
	}
	// Nor is the environment ignored.
	refused(t, []string{"HUBBUB_NATS=127.0.0.1:4222"}, nil, "NATS")
}

func TestBadValueIsRefusedByName(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]string{
		{"workers", "-1"}, {"workers", "many"}, {"max-connections", "-5"}, {"max-rooms-per-client", "x"},
		{"max-message-bytes", "64furlongs"}, {"max-message-bytes", "-1"}, {"send-queue-bytes", "1XB"}, {"send-queue-age", "soon"},
		{"slow-consumer", "shout"}, {"ping-interval", "25"}, {"pong-timeout", "-1s"}, {"handshake-timeout", "never"},
		{"io", "carrier-pigeon"}, {"page", "perhaps"}, {"log-level", "loud"}, {"log-format", "xml"},
	} {
		flag, value := c[0], c[1]
		refused(t, nil, []string{"--" + flag + "=" + value}, flag, value)
		env := "HUBBUB_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
		refused(t, []string{env + "=" + value}, nil, env, value)
		refused(t, []string{env + "="}, nil, env, "empty")
	}
	// Less than one whole message is no queue.
	refused(t, nil, []string{"--send-queue-bytes", "1KiB"}, "send-queue-bytes", "max-message-bytes")
	// Here --listen stands twice, or in the environment alone.
	refused(t, nil, []string{"--listen", "no-port"}, "--listen no-port", "no-port:8080")
	refused(t, nil, []string{"--listen", "8080"}, "--listen 8080", "write :8080")
	refused(t, nil, []string{"--tls-cert", "/no/such/cert.pem"}, "--tls-cert", "--tls-key")
	refused(t, nil, []string{"--tls-cert", "/no/such/cert.pem", "--tls-key", "/no/such/key.pem"}, "--tls-cert /no/such/cert.pem")
	refused(t, []string{"HUBBUB_LISTNE=:1"}, nil, "HUBBUB_LISTNE", "did you mean HUBBUB_LISTEN")
	for _, command := range []string{"serve", "config"} {
		if out, status := hubbub(t, []string{"HUBBUB_LISTEN="}, command); status != 2 || !strings.Contains(out, "HUBBUB_LISTEN") {
			t.Errorf("%s with HUBBUB_LISTEN=: exit status %d\n%s", command, status, out)
		}
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	s := start(t)
	if out, status := hubbub(t, nil, "serve", "--listen", s.addr); status <= 0 || !strings.Contains(out, s.addr) {
		t.Errorf("exit status %d, want a failure that names %s:\n%s", status, s.addr, out)
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	s := &server{addr: freeAddr(t), exited: make(chan struct{})}
	s.cmd = exec.Command(program, "serve", "--max-message-bytes", "2KiB")
	s.cmd.Env = append(os.Environ(), "HUBBUB_LISTEN="+s.addr, "HUBBUB_MAX_MESSAGE_BYTES=4096", "HUBBUB_PING_INTERVAL=11s", "HUBBUB_LOG_FORMAT=json", "GOMAXPROCS=1")
	s.run(t)
	c := dialRaw(t, s, "/ws", "")
	m := c.message("welcome")
	if got := m.num("max_message_bytes"); got != 2048 {
		t.Errorf("max_message_bytes is %d, want the flag's 2048 before the environment's 4096", got)
	}
	if got := m.num("ping_interval_ms"); got != 11_000 {
		t.Errorf("ping_interval_ms is %d, want the environment's 11000", got)
	}
	for line := range strings.Lines(s.log.String()) {
		if !strings.HasPrefix(line, "{") {
			t.Errorf("a line of the log is not JSON: %s", line)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	out, status := hubbub(t, nil, "serve", "--help")
	if status != 0 {
		t.Errorf("serve --help: exit status %d", status)
	}
	for _, flag := range []string{
		"listen", "workers", "max-connections", "max-rooms-per-client", "max-message-bytes", "send-queue-bytes", "send-queue-age",
		"slow-consumer", "ping-interval", "pong-timeout", "handshake-timeout", "allowed-origins", "compression", "io", "log-level", "log-format",
	} {
		if !strings.Contains(out, "--"+flag) {
			t.Errorf("serve --help does not name --%s", flag)
		}
	}
	version, status := hubbub(t, nil, "version")
	if status != 0 || strings.TrimSpace(version) == "" {
		t.Errorf("version: exit status %d, %q", status, version)
	}
	for words, want := range map[string]string{"--version": version, "help serve": out} {
		if got, status := hubbub(t, nil, strings.Fields(words)...); status != 0 || got != want {
			t.Errorf("%s: exit status %d, %s", words, status, got)
		}
	}
	if out, status := hubbub(t, nil, "help"); status != 0 || !strings.Contains(out, "serve") {
		t.Errorf("help: exit status %d, %s", status, out)
	}
}
