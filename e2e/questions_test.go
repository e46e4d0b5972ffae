package e2e

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// receiver runs the one of docs/questions.md, as it stands there, until the test ends.
func receiver(t *testing.T, secret string) (url string, stop func()) {
	t.Helper()
	doc, err := os.ReadFile("../docs/questions.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(doc), "```js\n// receiver.js\n")
	code, _, found := strings.Cut(code, "```\n")
	if !found {
		t.Fatal("docs/questions.md has no receiver.js")
	}
	path := filepath.Join(t.TempDir(), "receiver.js")
	if err := os.WriteFile(path, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command("node", path)
	cmd.Env = append(os.Environ(), "PORT="+port, "HUBBUB_WEBHOOK_SECRET="+secret)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	stop = func() {
		cmd.Process.Kill()
		<-ended
	}
	t.Cleanup(stop)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if nc, err := net.Dial("tcp", addr); err == nil {
			nc.Close()
			return "http://" + addr + "/hubbub", stop
		}
		if time.Now().After(deadline) {
			t.Fatal("the receiver doesn't listen")
		}
	}
}

func TestTheReceiverOfTheDocs(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	url, stop := receiver(t, secret)
	if r, err := http.Post(url, "application/json", strings.NewReader(`{"type":"hubbub.connect","headers":{"cookie":"session=1f0c"}}`)); err != nil || r.StatusCode != 401 {
		t.Errorf("what isn't signed: %v, %v", r, err)
	} else {
		r.Body.Close()
	}
	// Two secrets: one that is to come, and the one that the receiver has.
	s := start(t, "--hook-url", url, "--hook-events", "connect,join,publish,request",
		"--webhook-secret", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDb2Z2c3RhcnM=", "--webhook-secret", secret)
	if e := dialWS(t, s.ws("/ws")).opened().expect("close"); e.Code != 4501 || e.Reason != "sign in first" {
		t.Errorf("a stranger: %+v", e)
	}
	ann := dialWS(t, s.ws("/ws"), "Cookie=session=1f0c").welcomed()
	bob := dialWS(t, s.ws("/ws"), "Cookie=a=b; session=9b7e").welcomed()
	for _, c := range []*client{ann, bob} {
		c.send(`{"msg_type":"join_room","room":"r","id":1}`)
		c.message("joined")
	}
	ann.send(`{"msg_type":"join_room","room":"office","id":2}`)
	ann.message("joined")
	bob.send(`{"msg_type":"join_room","room":"office","id":2}`)
	if m := bob.message("error"); m.str("code") != "forbidden" || m.str("message") != "not yours" {
		t.Errorf("bob is told %s", m.text)
	}
	ann.send(`{"msg_type":"room_message","room":"r","content":"damn it"}`)
	if m := bob.message("room_message"); m.str("content") != "d**n it" || m.str("user") != "ann" {
		t.Errorf("bob hears %s", m.text)
	}
	if m := bob.ask(`{"msg_type":"request","method":"who am I","id":"q"}`, "response"); m.str("content") != "bob" {
		t.Errorf("bob is answered %s", m.text)
	}
	stop()
	bob.send(`{"msg_type":"room_message","room":"r","content":"damn it","id":3}`)
	if m := bob.message("error"); m.str("code") != "unavailable" || m.raw("retry") != "true" {
		t.Errorf("while the backend is down bob is told %s", m.text)
	}
	ann.sync() // who is in stays in
}

func TestQuestionsNeedTheirSettings(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	refused(t, nil, []string{"--hook-events", "join"}, "hook-events", "--hook-url")
	refused(t, nil, []string{"--hook-url", "http://127.0.0.1:1"}, "hook-url", "--hook-events", "--webhook-secret")
	refused(t, []string{"HUBBUB_WEBHOOK_SECRET=" + secret}, []string{"--hook-url", "127.0.0.1:1", "--hook-events", "join"}, "hook-url", "https://HOST")
	refused(t, nil, []string{"--hook-url", "http://127.0.0.1:1", "--hook-events", "join,leave", "--webhook-secret", secret}, "hook-events", `"leave"`)
}
