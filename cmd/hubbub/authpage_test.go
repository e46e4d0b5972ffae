package main

import (
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"example.com/hubbub/internal/rawtest"
)

// What docs/auth.md has people type works, and its first file does what is said of it.
func TestThePageAboutTokens(t *testing.T) {
	page, err := os.ReadFile("../../docs/auth.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	yamls, commands, tokens := blocks(page, "yaml"), "", ""
	for _, block := range blocks(page, "console") {
		for line := range strings.Lines(block) {
			command, ok := strings.CutPrefix(line, "$ ")
			switch {
			case !ok, strings.HasPrefix(command, "curl"), strings.HasPrefix(command, "websocat"):
			case strings.HasPrefix(command, "hubbub serve"):
				commands += strings.Replace(command, "hubbub serve", "hubbub config >/dev/null", 1) // which fails where serve would
			default:
				commands += command
			}
		}
	}
	tokens = script(t, yamls[0], "hubbub() { HUBBUB_TEST_PROGRAM=1 "+os.Args[0]+" \"$@\"; }\nset -e\n"+commands+"echo $ANN\necho $BOB\n")
	for _, text := range yamls {
		if out := script(t, text, "HUBBUB_TEST_PROGRAM=1 "+os.Args[0]+" config --config hubbub.yaml"); !strings.Contains(out, "rooms:") {
			t.Error(out)
		}
	}
	if err := os.WriteFile("hubbub.yaml", []byte(yamls[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	c, ctx, err := parse(t, nil, "serve", "--config", "hubbub.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, _, err := c.prepare(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := &rawtest.Server{Addr: serve(t, cfg, nil)}
	user := func(token string) func(message, want string) {
		m := rawtest.Dial(t, s, "/ws?token="+token)
		if got := m.NextJSON(); got["user"] == nil {
			t.Fatalf("%v", got)
		}
		return func(message, want string) {
			t.Helper()
			m.Text(message)
			got := m.NextJSON()
			if code, _ := got["code"].(string); got["msg_type"] != want && code != want {
				t.Errorf("%s: %v, want %s", message, got, want)
			}
		}
	}
	join := func(room string) string { return `{"msg_type":"join_room","id":1,"room":"` + room + `"}` }
	publish := func(room string) string {
		return `{"msg_type":"room_message","id":1,"content":1,"room":"` + room + `"}`
	}
	of := strings.Fields(tokens)
	ann, bob := user(of[len(of)-2]), user(of[len(of)-1])
	for room, want := range map[string][2]string{
		"team.red": {"joined", "forbidden"}, "inbox.ann": {"joined", "forbidden"}, "inbox.bob": {"forbidden", "joined"}, "inbox.*": {"forbidden", "forbidden"}, "news": {"joined", "joined"},
	} {
		ann(join(room), want[0])
		bob(join(room), want[1])
	}
	ann(publish("team.red"), "ack")
	ann(publish("inbox.ann"), "forbidden")
	bob(publish("inbox.bob"), "forbidden")
	bob(publish("news"), "forbidden")
	ann(publish("news"), "ack")
}

// blocks are what stands between the fences of a language.
func blocks(page []byte, language string) (all []string) {
	for _, found := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllSubmatch(page, -1) {
		all = append(all, string(found[1]))
	}
	return all
}

// script runs sh where hubbub.yaml has that text.
func script(t *testing.T, yaml, text string) string {
	t.Helper()
	if err := os.WriteFile("hubbub.yaml", []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", text).CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v %s", text, err, out)
	}
	return string(out)
}
