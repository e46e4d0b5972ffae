package hubbub_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/hubbub"
)

// Every curl of docs/api.md does what stands there, one after another.
func TestTheCurlsOfTheDocsWork(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatalf("%v: make deps installs it", err)
	}
	b, err := os.ReadFile("docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	s, api := startAPI(t, hubbub.Config{Hooks: hubbub.Hooks{Connect: asUser}, RecentLog: func() []string { return []string{"a line"} }})
	ann := enterAs(t, s, "ann").join("lobby")
	commands := curls(string(b))
	if len(commands) != 27 {
		t.Errorf("found %d", len(commands))
	}
	for _, c := range commands {
		command := strings.ReplaceAll(c.command, "http://localhost:8080", "http://"+s.Addr)
		run := exec.Command("bash", "-c", strings.Replace(command, "curl ", "curl --silent --show-error --fail-with-body ", 1))
		run.Env = append(os.Environ(), "KEY="+api.key, "CLIENT="+ann.id)
		out, err := run.CombinedOutput()
		if strings.Contains(command, "/tail?") { // ended by its time
			if !strings.HasPrefix(string(out), ": listening\n") {
				t.Errorf("%s: %s", command, out)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v: %s", command, err, out)
		}
		// The names that an answer has are those that the docs show.
		names := regexp.MustCompile(`"([a-z_]+)":`)
		shown, got := map[string]bool{}, string(out)
		for _, m := range names.FindAllStringSubmatch(c.answer, -1) {
			shown[m[1]] = true
		}
		for name := range shown {
			if !strings.Contains(got, `"`+name+`":`) && name != "data" && name != "color" {
				t.Errorf("%s: the docs show %s, the answer is %s", command, name, got)
			}
		}
		if strings.HasPrefix(c.answer, "{") && len(shown) == 0 && got != "{}" {
			t.Errorf("%s: %s", command, got)
		}
	}
}

type shownCurl struct{ command, answer string }

// curls are the commands in a text's blocks, each with what stands below it.
func curls(text string) (all []shownCurl) {
	open := false // a command goes on in the next line
	for line := range strings.Lines(text) {
		command, begins := strings.CutPrefix(line, "$ ")
		switch last := len(all) - 1; {
		case begins && strings.HasPrefix(command, "curl "):
			all = append(all, shownCurl{command: command})
		case begins || last < 0 || strings.HasPrefix(line, "```"):
			all = append(all, shownCurl{}) // whatever follows is nobody's
			continue
		case open:
			all[last].command += line
		default:
			all[last].answer += line
			continue
		}
		so := all[len(all)-1].command
		open = strings.HasSuffix(so, "\\\n") || strings.Count(so, "'")%2 == 1
	}
	return slices.DeleteFunc(all, func(c shownCurl) bool { return c.command == "" })
}
