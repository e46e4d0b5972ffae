package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// serveFlags are those that serve has.
func serveFlags(t *testing.T) []*kong.Flag {
	t.Helper()
	_, ctx, err := parse(t, nil, "serve")
	if err != nil {
		t.Fatal(err)
	}
	return ctx.Selected().Flags
}

// Every setting has a variable, and the error of a bad one names that, not the flag.
func TestABadVariableIsNamed(t *testing.T) {
	flags := serveFlags(t)
	for _, f := range flags {
		if f.Name == "help" {
			continue
		}
		if len(f.Envs) != 1 || f.Envs[0] != "HUBBUB_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")) {
			t.Errorf("--%s has the variables %v", f.Name, f.Envs)
			continue
		}
		_, err := checkEnvironment([]string{"PATH=/bin", f.Envs[0] + "="}, flags)
		if err == nil || !strings.HasPrefix(err.Error(), f.Envs[0]+": it is set, and empty") {
			t.Errorf("%s=: %v", f.Envs[0], err)
		}
	}
	for name, value := range map[string]string{
		"WORKERS": "many", "MAX_MESSAGE_BYTES": "64furlongs", "PING_INTERVAL": "25", "LOG_LEVEL": "loud", // of a flag's type
		"MAX_CONNECTIONS": "-5", "SLOW_CONSUMER": "shout", "IO": "iouring", "COMPRESSION": "yes", "SEND_QUEUE_AGE": "0s", "RESUME_WINDOW": "1ms",
		"ALLOWED_ORIGINS": "https://a.example/", "JWT_JWKS": "http://id.example", "JWT_LEEWAY": "2m0s", "JWT_COOKIE": "a b", "ANONYMOUS": "yes",
		"LISTEN": "8080", "TLS_CERT": "/no/such/file", "BASE_PATH": "live", "SUBPROTOCOLS": "a b",
	} {
		for _, command := range []string{"serve", "config"} {
			cmd, stdout, stderr := program(t, command)
			cmd.Env = append(os.Environ(), "HUBBUB_TEST_PROGRAM=1", "HUBBUB_"+name+"="+value)
			if got := status(t, cmd); got != 2 || stdout.Len() > 0 {
				t.Errorf("%s=%s: status %d, %s", name, value, got, stdout)
			}
			if text := stderr.String(); !strings.HasPrefix(text, "hubbub: error: HUBBUB_"+name) || !strings.Contains(text, value) || strings.Contains(text, "--"+strings.ToLower(name)) {
				t.Errorf("%s=%s: %s", name, value, text)
			}
		}
	}
}

// A name that is no setting's is an error where it looks mistyped; else it may be another program's, or Kubernetes set
// it for a service of our name.
func TestUnknownVariables(t *testing.T) {
	flags := serveFlags(t)
	for name, meant := range map[string]string{
		"LISTNE": "LISTEN", "LISTENS": "LISTEN", "WORKER": "WORKERS", "MAX_CONECTIONS": "MAX_CONNECTIONS", "TLS_CRT": "TLS_CERT",
		"PING_INTERVALL": "PING_INTERVAL", "ALLOWED_ORIGIN": "ALLOWED_ORIGINS", "CONFIGS": "CONFIG", "max_connections": "MAX_CONNECTIONS",
	} {
		_, err := checkEnvironment([]string{"HUBBUB_" + name + "=1"}, flags)
		if want := "HUBBUB_" + name + ": there is no such setting; did you mean HUBBUB_" + meant + "?"; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	unknown, err := checkEnvironment([]string{"HUBBUB_BIN=x", "HUBBUB_HOME=", "HUBBUB_TEST_PROGRAM=1"}, flags)
	if err != nil || !reflect.DeepEqual(unknown, []string{"HUBBUB_BIN", "HUBBUB_HOME", "HUBBUB_TEST_PROGRAM"}) {
		t.Errorf("%v %v", unknown, err)
	}
	for _, name := range []string{
		"HUBBUB_PORT", "HUBBUB_SERVICE_HOST", "HUBBUB_SERVICE_PORT", "HUBBUB_SERVICE_PORT_HTTP", "HUBBUB_PORT_8080_TCP", "HUBBUB_PORT_8080_TCP_ADDR",
		"HUBBUB_LISTEN_PORT", "HUBBUB_WEBHOOK_SERVICE_HOST", "HUBBUB_CHAT_PORT_80_TCP_PROTO",
	} {
		if unknown, err := checkEnvironment([]string{name + "=tcp://10.0.0.1:80"}, flags); err != nil || unknown != nil {
			t.Errorf("%s: %v %v", name, unknown, err)
		}
		if err := checkReserved(nil, []string{name + "=x"}); err != nil {
			t.Error(err)
		}
	}
	// All that is wrong is told at once.
	_, err = checkEnvironment([]string{"HUBBUB_LISTEN=", "HUBBUB_WORKERS=x", "HUBBUB_LOG_LEVL=x"}, flags)
	if err == nil || strings.Count(err.Error(), "HUBBUB_LISTEN")+strings.Count(err.Error(), "HUBBUB_WORKERS=x")+strings.Count(err.Error(), "HUBBUB_LOG_LEVL") != 3 {
		t.Error(err)
	}
	// A variable that does nothing is said: by serve in the log, by config beside what it prints.
	t.Setenv("HUBBUB_OF_SOMEBODY_ELSE", "x")
	out, err := printed(t, "config")
	if err != nil || !strings.Contains(out, "# HUBBUB_OF_SOMEBODY_ELSE is in the environment") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNamesThatAreNear(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"listen", "listen", 0}, {"listen", "lisen", 1}, {"listen", "listenn", 1}, {"listen", "lostin", 2},
		{"listen", "lsiten", 1}, {"io", "oi", 1}, {"abcd", "badc", 2}, {"kitten", "sitting", 3},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("from %q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
		if got := distance(c.b, c.a); got != c.want {
			t.Errorf("from %q to %q: %d, want %d", c.b, c.a, got, c.want)
		}
	}
	all := names(serveFlags(t))
	for _, name := range all {
		if got := nearest(name, all); got != name {
			t.Errorf("nearest to %s is %s", name, got)
		}
	}
	for _, name := range []string{"bin", "x", "host", "addr", "log", "url", "certificate", "home", "debug"} {
		if got := nearest(name, all); got != "" {
			t.Errorf("%s is taken for %s", name, got)
		}
	}
}

// An empty value of a flag is a script's variable that isn't set, and no wish for a random port or for no TLS.
func TestAnEmptyFlagIsRefused(t *testing.T) {
	for _, flag := range []string{"listen", "config", "tls-cert", "tls-key", "allowed-origins", "trusted-proxies", "subprotocols", "base-path", "io", "compression", "slow-consumer", "log-level", "workers", "ping-interval", "max-message-bytes"} {
		for _, args := range [][]string{{"serve", "--" + flag + "="}, {"config", "--" + flag, ""}} {
			if _, _, err := parse(t, nil, args...); err == nil || !strings.Contains(err.Error(), "--"+flag) {
				t.Errorf("%q: %v", args, err)
			}
		}
	}
	for _, text := range []string{"listen: ''\n", "listen: \"\"\n", "io: ''\n", "allowed-origins: ['']\n", "subprotocols: [a, '']\n"} {
		if _, _, err := parse(t, nil, "serve", "--config", write(t, text)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// hubbub config fails with the very error of hubbub serve.
func TestConfigFailsWhereServeDoes(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for _, name := range []string{cert, key} {
		if err := os.WriteFile(name, []byte("no PEM"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := write(t, "listen: 8080\ntls-cert: /no/such/file\n")
	for _, c := range []struct {
		args []string
		says []string
	}{
		{[]string{"--listen", "8080"}, []string{"--listen 8080", "write :8080"}},
		{[]string{"--listen", "localhost"}, []string{"--listen localhost", "localhost:8080"}},
		{[]string{"--listen", "unix:/no/such/dir/s"}, []string{"--listen unix:/no/such/dir/s", "/no/such/dir"}},
		{[]string{"--listen", "unix:/tmp/hubbub-test", "--max-connections-per-ip", "5"}, []string{"--max-connections-per-ip 5", "Unix socket"}},
		{[]string{"--tls-cert", cert}, []string{"--tls-cert", cert, "needs --tls-key"}},
		{[]string{"--tls-key", key}, []string{"--tls-key", key, "needs --tls-cert"}},
		{[]string{"--tls-cert", "/no/such/cert", "--tls-key", "/no/such/key"}, []string{"--tls-cert", "/no/such/cert"}},
		{[]string{"--tls-cert", cert, "--tls-key", key}, []string{"--tls-cert", cert, "PEM"}},
		{[]string{"--allowed-origins", "https://a.example/"}, []string{"--allowed-origins", "write https://a.example"}},
		{[]string{"--base-path", "live"}, []string{"--base-path", "write /live"}},
		{[]string{"--send-queue-bytes", "1KiB", "--ping-interval", "0s", "--io", "x"}, []string{"--send-queue-bytes", "--ping-interval 0", "--io"}},
		{[]string{"--shutdown-timeout", "0s"}, []string{"--shutdown-timeout"}},
		{[]string{"--config", file}, []string{file + ": line 1: listen 8080", file + ": line 2: tls-cert /no/such/file"}},
		{[]string{"--config", write(t, "listen: :1\n\tworkers: 1\n")}, []string{"line 2", "tab"}},
		{[]string{"--no-such-flag"}, []string{"--no-such-flag"}},
		{[]string{"--lisen", ":1"}, []string{"did you mean", "--listen"}},
		{[]string{"-listen", ":1"}, []string{"unknown flag -listen; did you mean --listen?"}},
		{[]string{"-hook-url=http://x"}, []string{"unknown flag -hook-url; did you mean --hook-url?"}},
		{[]string{"-hello"}, []string{"unknown flag -hello", "stands behind --"}},
		{[]string{"--listen", ":18080", "--admin-listen", ":18080"}, []string{"--admin-listen :18080: --listen :18080 has this address"}},
		{[]string{"--listen", "[::1]:7422", "--cluster-listen", ":7422"}, []string{"--cluster-listen :7422: --listen [::1]:7422 has this address"}},
		{[]string{"--listen", ":8080", "--cluster-listen", "127.0.0.1:8079"}, []string{"--cluster-listen 127.0.0.1:8079, by the port above it", "--listen :8080 has this address"}},
		{[]string{"--nats", "nats://n", "--nats-creds", "/no/creds"}, []string{"--nats-creds: open /no/creds"}},
		{[]string{"--join", "a:1", "--cluster-secret", "0123456789abcdef", "--cluster-tls-ca", key, "--cluster-tls-cert", cert, "--cluster-tls-key", key}, []string{"--cluster-tls-ca " + key + " has no certificate"}},
		{[]string{"--max-message-bytes", "100"}, []string{"--max-message-bytes 100: less than 128"}},
		{[]string{"surplus"}, []string{"surplus"}},
	} {
		var texts []string
		for _, command := range []string{"serve", "config"} {
			cmd, stdout, stderr := program(t, append([]string{command}, c.args...)...)
			cmd.Env = append(os.Environ(), "HUBBUB_TEST_PROGRAM=1")
			if got := status(t, cmd); got != 2 || stdout.Len() > 0 {
				t.Errorf("%s %v: status %d\n%s", command, c.args, got, stdout)
			}
			_, text, _ := strings.Cut(stderr.String(), "hubbub: error: ")
			texts = append(texts, text)
		}
		if texts[0] != texts[1] {
			t.Errorf("serve: %sconfig: %s", texts[0], texts[1])
		}
		for _, word := range c.says {
			if !strings.Contains(texts[0], word) {
				t.Errorf("%v: no %q in %s", c.args, word, texts[0])
			}
		}
	}
}

// Two addresses are one where a connection could come by both.
func TestAddressesThatOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{":80", ":80", true},
		{":80", "127.0.0.1:80", true},
		{"[::]:80", "127.0.0.1:80", true},
		{"0.0.0.0:80", "127.0.0.1:80", true},
		{"0.0.0.0:80", "[::1]:80", false},
		{"localhost:80", "127.0.0.1:80", true},
		{"127.0.0.1:80", "127.0.0.2:80", false},
		{"127.0.0.1:80", "127.0.0.1:81", false},
		{":0", "127.0.0.1:0", false},
		{"unix:a", "unix:a", true},
		{"unix:a", "unix:b", false},
		{"unix:a", ":80", false},
	} {
		if overlap(c.a, c.b) != c.want || overlap(c.b, c.a) != c.want {
			t.Errorf("%s and %s overlap: %t", c.a, c.b, !c.want)
		}
	}
}

// Settings that do nothing for anybody are taken, and said: nobody has a name, nobody comes by a Unix socket.
func TestSettingsForNobodyAreSaid(t *testing.T) {
	rooms := write(t, "rooms: [{match: a, join: granted}, {match: b, publish: users}, {match: 'c.${user}'}, {match: d, publish: server}]\n")
	for _, c := range []struct {
		args []string
		says string // "" for nothing
	}{
		{[]string{"--config", rooms}, "settings=\"rooms[0].join granted, rooms[1].publish users, rooms[2].match c.${user}\""},
		{[]string{"--config", rooms, "--jwt-key", jwtSecret}, ""},
		{[]string{"--config", rooms, "--hook-url", "http://127.0.0.1:1", "--hook-events", "connect", "--webhook-secret", "whsec_" + strings.Repeat("A", 32)}, ""},
		{[]string{"--chat", "granted", "--direct", "users"}, "settings=\"chat granted, direct users\""},
		{[]string{"--chat", "server"}, ""},
		{[]string{"--trusted-proxies", "10.0.0.1,unix"}, "it stands for nobody"},
		{[]string{"--trusted-proxies", "10.0.0.1"}, ""},
		{[]string{"--trusted-proxies", "unix", "--listen", "unix:/tmp/hubbub-test"}, ""},
	} {
		set, ctx, err := parse(t, nil, append([]string{"config"}, c.args...)...)
		if err != nil {
			t.Fatal(err)
		}
		var log safeBuffer
		if _, _, err := set.prepare(ctx, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Fatalf("%v: %v", c.args, err)
		}
		if text := string(log.bytes()); (text != "") != (c.says != "") || !strings.Contains(text, c.says) {
			t.Errorf("%v: the log has %q, want %q", c.args, text, c.says)
		}
	}
}

func TestHelpAndVersionInEveryForm(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"--version", 0, "hubbub development go1"},
		{"version", 0, "hubbub development go1"},
		{"serve --version", 0, "hubbub development go1"},
		{"help", 0, "bench fanout"},
		{"--help", 0, "bench fanout"},
		{"-h", 0, "bench fanout"},
		{"help serve", 0, "--max-connections=N"},
		{"serve --help", 0, "--max-connections=N"},
		{"help config", 0, "--room=NAME"},
		{"help bench echo", 0, "--window=N"},
		{"help version", 0, "Print the version."},
		{"help nonsense", 2, "unexpected argument nonsense"},
		{"serv", 2, `did you mean "serve"`},
		{"", 2, "expected one of"},
		{"serve --centrifugo x", 2, "--centrifugo: reserved"},
		{"serve --nats x", 2, "--nats x: an address is wanted"},
		{"serve --api-key x", 2, "--api-key: it has 1 bytes; a key has 16"},
		{"bench", 2, "expected one of"},
		{"bench fanout --members many", 2, "--members"},
	} {
		cmd, stdout, stderr := program(t, strings.Fields(c.args)...)
		cmd.Env = append(os.Environ(), "HUBBUB_TEST_PROGRAM=1")
		got, out := status(t, cmd), stdout
		if c.status != 0 {
			out = stderr
		}
		if got != c.status || !strings.Contains(out.String(), c.says) {
			t.Errorf("hubbub %s: status %d\n%s%s", c.args, got, stdout, stderr)
		}
		if c.status != 0 && stdout.Len() > 0 {
			t.Errorf("hubbub %s: an error goes to stdout: %s", c.args, stdout)
		}
	}
}

// A number or a time whose default isn't 0 can't be set to 0, which would quietly be the default again; but for those
// two in which it means none.
func TestZeroIsNoDefault(t *testing.T) {
	means := map[string]bool{"resume-window": true, "jwt-leeway": true}
	refused := 0
	for _, flag := range serveFlags(t) {
		zero := "0"
		switch flag.Target.Interface().(type) {
		case time.Duration:
			zero = "0s"
		case int, size:
		default:
			continue
		}
		if flag.Default == "" || flag.Default == "0" || flag.Default == "0s" {
			continue
		}
		c, ctx, err := parse(t, nil, "serve", "--jwt-key", jwtSecret, "--"+flag.Name, zero)
		if err == nil {
			_, _, err = c.prepare(ctx, slog.New(slog.DiscardHandler))
		}
		switch {
		case means[flag.Name] && err != nil:
			t.Errorf("--%s %s: %v", flag.Name, zero, err)
		case means[flag.Name]:
		case err == nil || !strings.Contains(err.Error(), flag.Name):
			t.Errorf("--%s %s is taken, and its default is %s: %v", flag.Name, zero, flag.Default, err)
		default:
			refused++
		}
	}
	if refused < 5 {
		t.Errorf("only %d are refused", refused)
	}
}
