package main

import (
	"bytes"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"example.com/hubbub"
)

// commented is what hubbub config --commented prints.
func commented(t *testing.T, args ...string) string {
	t.Helper()
	code, out, says := hubbubSays(t, append([]string{"config", "--commented"}, args...)...)
	if code != 0 {
		t.Fatalf("status %d: %s", code, says)
	}
	return out
}

// The file has every setting, and changes nothing as it is; nor does it when all defaults are set in it. With the marks
// taken away each line is one that the server can read.
func TestTheCommentedFile(t *testing.T) {
	plain, _, err := parse(t, nil, "serve")
	if err != nil {
		t.Fatal(err)
	}
	os.Unsetenv("HUBBUB_API_KEY")
	cmd, stdout, _ := program(t, "config", "--commented")
	cmd.Env = append(os.Environ(), "HUBBUB_TEST_PROGRAM=1")
	if code := status(t, cmd); code != 0 {
		t.Fatal(code)
	}
	text := stdout.String()
	same := func(what, text string) {
		t.Helper()
		c, _, err := parse(t, nil, "serve", "--config", write(t, text))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if a, b := plain.config(nil), c.config(nil); !reflect.DeepEqual(a, b) {
			t.Errorf("%s: it is\n%+v\nand the defaults\n%+v", what, b, a)
		}
	}
	same("as it is", text)
	var defaults, all strings.Builder
	for _, flag := range settings(serveFlags(t)) {
		line := regexp.MustCompile(`(?m)^#(` + flag.Name + `: .*)$`).FindStringSubmatch(text)
		if line == nil {
			t.Errorf("there is no %s", flag.Name)
			continue
		}
		if flag.Default != "" {
			defaults.WriteString(line[1] + "\n")
		} else if _, err := parseFile([]byte(line[1]), serveFlags(t)); err != nil {
			t.Errorf("%s: %v", line[1], err)
		}
	}
	same("with all defaults set", defaults.String())
	for line := range strings.Lines(text) {
		if uncommented, ok := strings.CutPrefix(line, "#"); ok && !strings.HasPrefix(uncommented, " ") || strings.HasPrefix(line, "#  ") {
			all.WriteString(uncommented)
		}
	}
	f, err := parseFile([]byte(all.String()), serveFlags(t))
	if err != nil {
		t.Fatalf("with all marks taken away: %v\n%s", err, all.String())
	}
	if len(f.rooms) != 1 || len(f.apiKeys) != 1 || f.limits == (hubbub.Limits{}) {
		t.Errorf("its examples are %+v", f)
	}
	if err := (hubbub.Config{Rooms: f.rooms, APIKeys: f.apiKeys, Limits: f.limits}).Validate(); err != nil {
		t.Errorf("its examples: %v", err)
	}
	var wide []string
	for line := range bytes.Lines([]byte(text)) {
		if len(line) > 81 && bytes.HasPrefix(line, []byte("# ")) {
			wide = append(wide, string(line))
		}
	}
	if len(wide) > 0 {
		t.Errorf("more than 80 columns: %q", wide)
	}
}

// What is set is no comment, and no secret is in it.
func TestWhatIsSetIsNoComment(t *testing.T) {
	text := commented(t, "--listen", ":9000", "--config", write(t, "rooms:\n  - match: \"a\"\nworkers: 3\n"))
	for _, want := range []string{"\nlisten: :9000\n", "\nworkers: 3\n", "\nrooms: #", "\n  - match: \"a\" #", "\n#io: auto\n", "\n# api-key: not shown, from the environment"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "akeyofsixteenbytes") {
		t.Error("a secret is shown")
	}
}
