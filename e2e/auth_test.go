package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// A server that wants tokens, and those that its own command makes, as programs that aren't ours and a browser show
// them.
func TestTokensOfForeignClients(t *testing.T) {
	t.Parallel()
	file := configFile(t, "jwt-key: 0123456789abcdef0123456789abcdef\nrooms:\n- match: team.*\n  join: granted\n")
	s := start(t, "--config", file)
	out, status := hubbub(t, nil, "token", "--config", file, "--user", "ann", "--join", "team.*")
	token := strings.TrimSpace(out)
	if status != 0 || strings.Count(token, ".") != 2 {
		t.Fatalf("exit status %d: %s", status, out)
	}
	for name, command := range map[string][]string{"ws": {"node", "ws/client.js"}, "websockets": {python, "websockets_client.py"}} {
		for _, way := range []struct {
			path, offers string
			headers      []string
		}{
			{"/ws?token=" + token, "[]", nil},
			{"/ws", "[]", []string{"Authorization=Bearer " + token}},
			{"/ws", `["hubbub","token.` + token + `"]`, nil},
		} {
			cmd := exec.Command(command[0], append(append(command[1:], s.ws(way.path)), way.headers...)...)
			cmd.Env = append(os.Environ(), "SUBPROTOCOLS="+way.offers)
			c := drive(t, name, cmd)
			if e := c.expect("open"); way.offers != "[]" && e.Reason != "hubbub" {
				t.Errorf("%s has the subprotocol %q", name, e.Reason)
			}
			if m := c.message("welcome"); m.str("user") != "ann" {
				t.Errorf("%s: %v", name, m)
			}
			c.send(`{"msg_type":"join_room","room":"team.red","id":1}`)
			c.message("joined")
		}
		if e := drive(t, name, exec.Command(command[0], append(command[1:], s.ws("/ws"))...)).expect("refused"); e.Status != 401 {
			t.Errorf("%s without a token: %d", name, e.Status)
		}
	}
	p := openPage(t, s)
	p.shows("main", "lets you in with a token") // a browser tells nothing of a status
	p.do(chromedp.Navigate("about:blank"), chromedp.Navigate(s.http("/#token="+token)))
	p.shows("#state", "connected")
	if log := s.log.String(); strings.Contains(log, token) || strings.Contains(log, token[strings.LastIndexByte(token, '.'):]) {
		t.Errorf("the log has the token:\n%s", log)
	}
}
