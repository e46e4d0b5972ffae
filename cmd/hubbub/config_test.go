package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// selected are the settings of the command that runs, nil when it has none.
func (c *cli) selected(ctx *kong.Context) *serveCmd {
	switch ctx.Command() {
	case "serve":
		return &c.Serve
	case "config":
		return &c.Config.serveCmd
	}
	return nil
}

// parse runs the command line as main does, up to what the command would run with.
func parse(t *testing.T, env map[string]string, args ...string) (*serveCmd, *kong.Context, error) {
	t.Helper()
	for k, v := range env {
		t.Setenv(k, v)
	}
	var c cli
	ctx, err := newParser(&c).Parse(args)
	if err != nil {
		return nil, nil, err
	}
	return c.selected(ctx), ctx, nil
}

// write makes a config file.
func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "hubbub.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Every way to set one thing, and which counts.
func TestPrecedence(t *testing.T) {
	const flag, env, file, def = "11s", "12s", "13s", "25s"
	for _, c := range []struct {
		flag, env, file bool
		want, from      string
	}{
		{false, false, false, def, "the default"},
		{false, false, true, file, "from the file"},
		{false, true, false, env, "from the environment: HUBBUB_PING_INTERVAL"},
		{false, true, true, env, "from the environment: HUBBUB_PING_INTERVAL"},
		{true, false, false, flag, "from the flag --ping-interval"},
		{true, false, true, flag, "from the flag --ping-interval"},
		{true, true, false, flag, "from the flag --ping-interval"},
		{true, true, true, flag, "from the flag --ping-interval"},
	} {
		for _, command := range []string{"serve", "config"} {
			for _, by := range []string{"flag", "environment"} { // how the file itself is named
				name := strings.Join([]string{command, by, c.want, c.from}, " ")
				t.Run(name, func(t *testing.T) {
					args, set := []string{command}, map[string]string{}
					if c.file {
						path := write(t, "# a comment\nping-interval: "+file+"\n")
						if by == "flag" {
							args = append(args, "--config", path)
						} else {
							set["HUBBUB_CONFIG"] = path
						}
					}
					if c.env {
						set["HUBBUB_PING_INTERVAL"] = env
					}
					if c.flag {
						args = append(args, "--ping-interval", flag)
					}
					got, ctx, err := parse(t, set, args...)
					if err != nil {
						t.Fatal(err)
					}
					if got.PingInterval.String() != c.want {
						t.Errorf("ping-interval is %s, want %s", got.PingInterval, c.want)
					}
					from := got.origin(ctx, byName(ctx.Selected().Flags, "ping-interval"))
					if !strings.HasPrefix(from, c.from) {
						t.Errorf("it is %q, want %q", from, c.from)
					}
				})
			}
		}
	}
}

func TestTheFilesValues(t *testing.T) {
	c, _, err := parse(t, nil, "serve", "--config", write(t, `
listen: :9090
workers: 3
max-connections: 1000
max-message-bytes: 128KiB # as on the command line
send-queue-bytes: 2097152
send-queue-age: 45s
"pong-timeout": '7s'
allowed-origins:
  - https://*.example.com
  - "http://localhost:*"
io: pump
log-level: debug
log-format: json
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != ":9090" || c.Workers != 3 || c.MaxConnections != 1000 || c.MaxMessageBytes != 128<<10 || c.SendQueueBytes != 2<<20 ||
		c.SendQueueAge != 45*time.Second || c.PongTimeout != 7*time.Second || c.IO != "pump" || c.LogLevel != "debug" || c.LogFormat != "json" {
		t.Errorf("got %+v", c)
	}
	if got := strings.Join(c.AllowedOrigins, " "); got != "https://*.example.com http://localhost:*" {
		t.Errorf("allowed-origins: %s", got)
	}
	for _, text := range []string{"", "# only a comment\n", "---\n", "{}\n", "allowed-origins: []\n", "allowed-origins: https://one.example\n"} {
		if _, _, err := parse(t, nil, "serve", "--config", write(t, text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// YAML 1.1 takes an unquoted on, off, yes or no for a boolean; a switch gets what was written.
func TestSwitchesNeedNoQuotes(t *testing.T) {
	var app struct {
		Switch string `enum:"on,off,context" default:"context" env:"SWITCH"`
		Text   string `env:"TEXT"`
	}
	k := kong.Must(&app)
	for _, c := range [][2]string{{"on", "on"}, {"off", "off"}, {`"off"`, "off"}, {"'on'", "on"}} {
		f, err := parseFile([]byte("switch: "+c[0]+"\ntext: "+c[0]+"\n"), k.Model.Flags)
		if err != nil || f.values["switch"].text != c[1] || f.values["text"].text != c[1] {
			t.Errorf("%s: %v, %v", c[0], f.values, err)
		}
	}
	for _, text := range []string{"true", "yes", "1", "On"} {
		if _, err := parseFile([]byte("switch: "+text+"\n"), k.Model.Flags); err == nil || !strings.Contains(err.Error(), "switch") {
			t.Errorf("%s: %v, want a refusal", text, err)
		}
	}
	// Nor is any other text made into something else.
	for _, text := range []string{"1_000", "0x10", "1e3", "2026-01-01", "~x", "NaN"} {
		if f, err := parseFile([]byte("text: "+text+"\n"), k.Model.Flags); err != nil || f.values["text"].text != text {
			t.Errorf("%s: %v, %v", text, f.values, err)
		}
	}
}

func TestABadFileIsRefusedByNameAndLine(t *testing.T) {
	for _, c := range []struct {
		text  string
		words []string
	}{
		{"listen: :1\nno-such: 1\n", []string{"line 2", "no-such"}},
		{"ping_interval: 25s\n", []string{"line 1", "ping_interval", "ping-interval"}},
		{"Listen: :1\n", []string{"line 1", "Listen"}},
		{"\nworkers: many\n", []string{"line 2", "workers", "many"}},
		{"max-message-bytes: 64furlongs\n", []string{"line 1", "max-message-bytes", "64furlongs"}},
		{"ping-interval: 25\n", []string{"line 1", "ping-interval"}},
		{"log-level: loud\n", []string{"line 1", "log-level", "loud"}},
		{"listen:\n", []string{"line 1", "listen", "no value"}},
		{"listen: [a, b]\n", []string{"line 1", "listen", "list"}},
		{"listen: {a: b}\n", []string{"line 1", "listen"}},
		{"listen: :1\nlisten: :2\n", []string{"line 2", "listen", "line 1"}},
		{"workers: x\nlog-level: y\n", []string{"line 1", "workers", "line 2", "log-level"}}, // all at once
		{"- listen\n", []string{"line 1"}},
		{"listen: 'a\n", []string{"line 1", "a quote begins here"}},
		{"listen: :1\n---\nlisten: :2\n", []string{"second document"}},
		{"config: other.yaml\n", []string{"line 1", "config"}},
		{"help: on\n", []string{"line 1", "help"}},
		{"centrifugo: on\n", []string{"line 1", "centrifugo", "reserved"}},
	} {
		path := write(t, c.text)
		// It is read whether or not a flag or the environment would count before it.
		_, _, err := parse(t, nil, "serve", "--config", path, "--workers", "1", "--log-level", "info", "--listen", ":1")
		if err == nil {
			t.Errorf("%q is taken", c.text)
			continue
		}
		for _, word := range append(c.words, "hubbub.yaml") {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q: the error has no %q: %v", c.text, word, err)
			}
		}
	}
	if _, _, err := parse(t, nil, "serve", "--config", "/no/such/file.yaml"); err == nil || !strings.Contains(err.Error(), "/no/such/file.yaml") {
		t.Errorf("a file that isn't there: %v", err)
	}
	if _, err := printed(t, "config", "--diff", "/no/such/file.yaml"); err == nil || !strings.HasPrefix(err.Error(), "--diff: open /no/such/file.yaml") {
		t.Errorf("another file that isn't there: %v", err)
	}
	// A command without settings has no file to read.
	if _, _, err := parse(t, map[string]string{"HUBBUB_CONFIG": "/no/such/file.yaml"}, "version"); err != nil {
		t.Error(err)
	}
}

// YAML's own words help nobody: the line, and what to do.
func TestWhatIsNoYAMLIsToldInWords(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"listen: :1\n\tworkers: 2\n", `line 2: a tab before the text; YAML wants blanks there`},
		{"rooms:\n\t- match: x\n", `line 2: a tab before the text; YAML wants blanks there`},
		{"rooms:\n  - match: x\n  \tpresence: off\n", `line 3: a tab before the text; YAML wants blanks there`},
		{"allowed-origins:\n- https://a.example\n-\thttps://b.example\n", ``}, // YAML takes that one
		{"allowed-origins: *\n", `line 1: a value that begins with * means something else in YAML; put it in quotes: "*"`},
		{"allowed-origins: [*, a]\n", `line 1: a value that begins with * means something else in YAML; put it in quotes: "*"`},
		{"allowed-origins: [ https://a.example, *.b ]\n", `line 1: a value that begins with * means something else in YAML; put it in quotes: "*.b"`},
		{"allowed-origins:\n  - *.example.com # all\n", `line 2: a value that begins with * means something else in YAML; put it in quotes: "*.example.com"`},
		{"rooms:\n  - match: *\n    presence: off\n", `line 2: a value that begins with * means something else in YAML; put it in quotes: "*"`},
		{"rooms:\n  - {match: *chat, presence: off}\n", `line 2: a value that begins with * means something else in YAML; put it in quotes: "*chat"`},
		{"rooms:\n  - match: @x\n", `line 2: a value that begins with @ means something else in YAML; put it in quotes: "@x"`},
		{"rooms:\n  - match: %x\n", `line 2: a value that begins with % means something else in YAML; put it in quotes: "%x"`},
		{"listen: &\n", `line 1: a value that begins with & means something else in YAML; put it in quotes: "&"`},
		{"workers: 1\nlisten: 'a\nio: auto\n", `line 2: a quote begins here and doesn't end`},
		{"workers: 1\nlisten: \"a\n", `line 2: a quote begins here and doesn't end`},
		{"tls-key: \"C:\\keys\"\n", `line 1: a backslash in double quotes means something else in YAML; use single quotes`},
		{"workers: 1\nallowed-origins: [a\nio: auto\n", `line 2: a bracket opens here and isn't closed, or there is no comma between two values`},
		{"rooms:\n- {match: a\n", `line 2: a bracket opens here and isn't closed, or there is no comma between two values`},
		{"listen: a: b\n", `line 1: it has more blanks before it than the lines above, or there is a colon in its value, which must stand in quotes then`},
		{"workers: 1\n listen: :1\n", `line 2: it has more blanks before it than the lines above, or there is a colon in its value, which must stand in quotes then`},
		{" workers: 1\nlisten: :1\n", `line 2: it has more or less blanks before it than the lines above`},
		{"listen:8080\n", `line 1: not of the form "name: value", with a blank after the colon`},
		{"listen: \xff\n", `it is no text in UTF-8`},
		{"listen: \x01\n", `it is no text in UTF-8`},
	} {
		path := write(t, c.text)
		_, _, err := parse(t, nil, "serve", "--config", path)
		if c.want == "" {
			if err != nil {
				t.Errorf("%q: %v", c.text, err)
			}
			continue
		}
		if want := "--config: " + path + ": " + c.want; err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", c.text, err, want)
		}
	}
}

func TestAMistypedKeyIsGuessed(t *testing.T) {
	for text, meant := range map[string]string{"lisen: :1\n": "listen", "ping_interval: 1s\n": "ping-interval", "Workers: 1\n": "workers", "room: []\n": "rooms", "allowed-origin: x\n": "allowed-origins"} {
		_, _, err := parse(t, nil, "serve", "--config", write(t, text))
		if err == nil || !strings.Contains(err.Error(), "line 1: ") || !strings.HasSuffix(err.Error(), "did you mean "+meant+"?") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestReservedNamesAreRefusedEverywhere(t *testing.T) {
	for _, name := range reserved {
		for _, args := range [][]string{{"serve", "--" + name}, {"serve", "--" + name + "=x"}} {
			if err := checkReserved(args, nil); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%v: %v", args, err)
			}
		}
		env := "HUBBUB_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if err := checkReserved(nil, []string{"PATH=x", env + "=x"}); err == nil || !strings.Contains(err.Error(), env) {
			t.Errorf("%s: %v", env, err)
		}
		if _, _, err := parse(t, nil, "serve", "--config", write(t, name+": x\n")); err == nil || !strings.Contains(err.Error(), "reserved") {
			t.Errorf("%s in the file: %v", name, err)
		}
	}
	// What Kubernetes sets for a service of our name is no setting.
	if err := checkReserved([]string{"serve"}, []string{"HUBBUB_PORT=tcp://10.0.0.1:80", "HUBBUB_SERVICE_HOST=10.0.0.1", "HUBBUB_NATS_PORT=x"}); err != nil {
		t.Error(err)
	}
}

func TestSizesAreWrittenAsTheyAreRead(t *testing.T) {
	for text, want := range map[string]string{"65536": "64KiB", "64KiB": "64KiB", "1048576": "1MiB", "2GiB": "2GiB", "1500": "1500", "0": "0", "3 MiB": "3MiB"} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err != nil || s.String() != want {
			t.Errorf("%s is written %s (%v), want %s", text, s, err, want)
		}
	}
}

// An error of the library's own checks says where the value is from.
func TestAnErrorSaysWhereTheValueIsFrom(t *testing.T) {
	path := write(t, "max-message-bytes: 2MiB\nio: carrier-pigeon\n")
	c, ctx, err := parse(t, map[string]string{"HUBBUB_SEND_QUEUE_BYTES": "1KiB"}, "serve", "--config", path, "--ping-interval", "1ms")
	if err != nil {
		t.Fatal(err)
	}
	err = locate(ctx, c, c.config(nil).Validate())
	for _, want := range []string{"HUBBUB_SEND_QUEUE_BYTES: send-queue-bytes 1024", "hubbub.yaml: line 2: io ", "--ping-interval 1ms: not between"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}
