package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func configFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "hubbub.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// setting is the line of `hubbub config` with a setting's value, and where that is from.
func setting(t *testing.T, out, name string) string {
	t.Helper()
	for line := range strings.Lines(out) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("hubbub config does not print %s:\n%s", name, out)
	return ""
}

func TestConfigSaysWhatCountsAndWhereItIsFrom(t *testing.T) {
	t.Parallel()
	file := configFile(t, "listen: 127.0.0.1:1111\npong-timeout: 13s\nping-interval: 13s\nsend-queue-age: 13s\nmax-message-bytes: 65536\nallowed-origins: [https://a.example, 'http://localhost:*']\n")
	env := []string{"HUBBUB_PING_INTERVAL=12s", "HUBBUB_SEND_QUEUE_AGE=12s", "GOMAXPROCS=2"}
	out, status := hubbub(t, env, "config", "--config", file, "--send-queue-age", "11s")
	if status != 0 {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	for name, want := range map[string]string{
		"send-queue-age":    "11s # from the flag --send-queue-age",
		"ping-interval":     "12s # from the environment: HUBBUB_PING_INTERVAL",
		"pong-timeout":      "13s # from the file " + file + ", line 2",
		"max-message-bytes": "64KiB # from the file " + file + ", line 5",
		"handshake-timeout": "10s # the default",
		"workers":           "2 # the default", // GOMAXPROCS
		"allowed-origins":   `["https://a.example", "http://localhost:*"] # from the file ` + file + ", line 6",
	} {
		if got := setting(t, out, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	// What it prints is a file that says the same.
	again, status := hubbub(t, nil, "config", "--config", configFile(t, out))
	if status != 0 {
		t.Fatalf("its own output is refused: %d\n%s", status, again)
	}
	values := regexp.MustCompile(`(?m)^([a-z-]+: .*) # .*$`)
	if a, b := values.FindAllStringSubmatch(out, -1), values.FindAllStringSubmatch(again, -1); len(a) != len(b) || len(a) < 15 {
		t.Errorf("%d settings, then %d", len(a), len(b))
	} else {
		for i := range a {
			if a[i][1] != b[i][1] {
				t.Errorf("%s became %s", a[i][1], b[i][1])
			}
		}
	}
	// A bad value is refused here too.
	if out, status := hubbub(t, nil, "config", "--send-queue-bytes", "1KiB"); status <= 0 || !strings.Contains(out, "send-queue-bytes") {
		t.Errorf("exit status %d\n%s", status, out)
	}
}

func TestServeTakesAFile(t *testing.T) {
	t.Parallel()
	s := &server{addr: freeAddr(t), exited: make(chan struct{})}
	file := configFile(t, "listen: "+s.addr+"\nmax-message-bytes: 4KiB\nping-interval: 11s\n")
	s.cmd = exec.Command(program, "serve", "--max-message-bytes", "2KiB")
	s.cmd.Env = append(os.Environ(), "HUBBUB_CONFIG="+file, "HUBBUB_PING_INTERVAL=12s")
	s.run(t)
	m := dialRaw(t, s, "/ws", "").message("welcome")
	if got := m.num("max_message_bytes"); got != 2048 {
		t.Errorf("max_message_bytes is %d, want the flag's 2048", got)
	}
	if got := m.num("ping_interval_ms"); got != 12_000 {
		t.Errorf("ping_interval_ms is %d, want the environment's 12000", got)
	}
}

func TestABadFileIsRefusedByNameAndLine(t *testing.T) {
	t.Parallel()
	for text, words := range map[string][]string{
		"workers: 1\nno-such: 1\n":                  {"line 2", "no-such"},
		"workers: many\n":                           {"line 1", "workers", "many"},
		"log-level: loud\n":                         {"line 1", "log-level", "loud"},
		"rooms:\n- match: '*'\n  presents: off\n":   {"line 3", "rooms[0].presents"},
		"rooms:\n- match: '*'\n  presence: loud\n":  {"line 3", "rooms[0].presence", "loud"},
		"centrifugo: x\n":                           {"line 1", "centrifugo", "reserved"},
		"io: carrier-pigeon\n":                      {"line 1", "io", "carrier-pigeon"},
		"\nsend-queue-bytes: 1KiB\n":                {"line 2", "send-queue-bytes", "max-message-bytes"},
		"listen: [a\n":                              {"hubbub.yaml"},
		"ping-interval: 1ms\npong-timeout: 1ms\n":   {"line 1", "line 2", "ping-interval", "pong-timeout"},
		"max-connections: -5\nslow-consumer: shout": {"line 1", "max-connections", "line 2", "slow-consumer"},
	} {
		refused(t, nil, []string{"--config", configFile(t, text)}, words...)
	}
	refused(t, nil, []string{"--config", "/no/such/file.yaml"}, "/no/such/file.yaml")
	if out, status := hubbub(t, nil, "config", "--room", ""); status != 2 || !strings.Contains(out, "--room") {
		t.Errorf("a room without a name: exit status %d\n%s", status, out)
	}
	refused(t, []string{"HUBBUB_CONFIG=/no/such/file.yaml"}, nil, "HUBBUB_CONFIG: ", "/no/such/file.yaml")
	refused(t, []string{"HUBBUB_CENTRIFUGO=x"}, nil, "HUBBUB_CENTRIFUGO", "reserved")
}

func TestHelpFitsATerminal(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}, {"config", "--help"}, {"token", "--help"}, {"version", "--help"}, {"doctor", "--help"}, {"top", "--help"}, {"bundle", "--help"}, {"config"}} {
		out, status := hubbub(t, []string{"COLUMNS=80"}, args...)
		if status != 0 {
			t.Errorf("%v: exit status %d", args, status)
		}
		for line := range strings.Lines(out) {
			if n := len(strings.TrimRight(line, "\n")); n > 80 {
				t.Errorf("%v: a line of %d columns: %s", args, n, line)
			}
		}
	}
	out, _ := hubbub(t, nil, "--help")
	for _, command := range []string{"serve", "config", "version"} {
		if !strings.Contains(out, "\n  "+command+" ") {
			t.Errorf("--help does not name %s", command)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	out, status := hubbub(t, nil, "version")
	if want := regexp.MustCompile(`^hubbub \S+( [0-9a-f]+)? go1\.\S+( X:\S+)? [a-z0-9]+/[a-z0-9]+\n$`); status != 0 || !want.MatchString(out) {
		t.Errorf("exit status %d, %q", status, out)
	}
}
