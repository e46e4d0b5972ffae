package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What the docs have for those who verify webhooks without a library takes what is signed, and nothing else.
func TestTheDocsVerifyWebhooks(t *testing.T) {
	t.Parallel()
	const secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", `{"a":"ü"}`
	docs, err := os.ReadFile("../docs/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	headers := func(change string) string {
		at := fmt.Sprint(time.Now().Unix())
		if change == "old" {
			at = fmt.Sprint(time.Now().Unix() - 3600)
		}
		key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte("msg_1." + at + "." + body + map[string]string{"body": " "}[change]))
		all := map[string]string{"webhook-id": "msg_1", "webhook-timestamp": at, "webhook-signature": "v1,ü== v1,eA== v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))}
		switch change {
		case "id":
			all["webhook-id"] = "msg_2"
		case "none":
			clear(all)
		}
		b, _ := json.Marshal(all)
		return string(b)
	}
	for language, program := range map[string]struct {
		command []string
		ask     string // with the headers, and the body, as JSON
	}{
		"js":     {[]string{"node", "-e"}, "\nconsole.log(verify(%s, Buffer.from(%s)))"},
		"python": {[]string{python, "-c"}, "\nprint(verify(%s, %s.encode()))"},
		"php":    {[]string{"php", "-r"}, "\nvar_dump(verify(json_decode('%s', true), json_decode('%s')));"},
	} {
		t.Run(language, func(t *testing.T) {
			if _, err := exec.LookPath(program.command[0]); err != nil {
				t.Fatalf("%v: make deps installs it", err)
			}
			snippet := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(docs)
			if snippet == nil {
				t.Fatal("docs/webhooks.md has none")
			}
			for change, want := range map[string]string{"": "true", "body": "false", "id": "false", "old": "false", "none": "false"} {
				quoted, _ := json.Marshal(body)
				code := string(snippet[1]) + fmt.Sprintf(program.ask, headers(change), quoted)
				cmd := exec.Command(program.command[0], program.command[1], code)
				cmd.Env = append(os.Environ(), "HUBBUB_WEBHOOK_SECRET="+secret)
				out, err := cmd.CombinedOutput()
				if err != nil || !strings.Contains(strings.ToLower(string(out)), want) {
					t.Errorf("with the change %q: %v %s, want %s", change, err, out, want)
				}
			}
		})
	}
}

// What could not be told is refused.
func TestWebhookSettingsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	refused(t, nil, []string{"--webhook-url", "http://127.0.0.1:1"}, "--webhook-url", "needs --webhook-secret")
	refused(t, nil, []string{"--webhook-secret", secret}, "--webhook-secret", "nothing to sign")
	refused(t, nil, []string{"--webhook-url", "http://127.0.0.1:1", "--webhook-secret", secret, "--webhook-events", "room.ocupied"}, "--webhook-events", "room.ocupied", "room.occupied")
}

// What hubbub config prints has no secret.
func TestConfigShowsNoSecretOfWebhooks(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	out, status := hubbub(t, []string{"HUBBUB_WEBHOOK_SECRET=" + secret}, "config", "--webhook-url", "https://backend.example/?key=hush")
	if status != 0 || strings.Contains(out, "hush") || strings.Contains(out, secret[6:]) || !strings.Contains(out, "# webhook-secret: not shown, from the environment") {
		t.Errorf("status %d: %s", status, out)
	}
}
