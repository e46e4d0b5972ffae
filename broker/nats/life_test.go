package nats

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A process that is killed loses nothing, so its log goes on; a machine that went down may have lost the newest messages,
// so the log is another one, with what is left of it.
func TestAMachineThatWentDown(t *testing.T) {
	r := testRoom("r")
	dir := t.TempDir()
	on := func(dir, boot string, then func(n *testNode)) {
		t.Helper()
		b, err := startOn(dir, boot, Config{})
		if err != nil {
			t.Fatal(err)
		}
		n := run(t, b)
		then(n)
		n.stop()
	}
	crashed := func() string {
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		return copied
	}
	var first string
	var killed, down string
	on(dir, "boot-1", func(n *testNode) {
		first = n.publish(r, "one", "").at.Epoch
		killed, down = crashed(), crashed()
	})
	on(dir, "boot-2", func(n *testNode) { // it had ended well
		if e := n.publish(r, "two", "").at.Epoch; e != first {
			t.Errorf("behind a good end the epoch is %s, it was %s", e, first)
		}
	})
	on(killed, "boot-1", func(n *testNode) {
		if e := n.publish(r, "two", "").at.Epoch; e != first {
			t.Errorf("behind a process that was killed the epoch is %s, it was %s", e, first)
		}
	})
	for range 2 { // also for the process behind that one
		on(down, "boot-2", func(n *testNode) {
			if e := n.publish(r, "two", "").at.Epoch; e != first+".1" {
				t.Errorf("behind a machine that went down the epoch is %s, it was %s", e, first)
			}
			n.open(r)
			n.sees(r.Name, "what is left", hasLast("two"))
		})
	}
	last := filepath.Join(dir, "last")
	for _, text := range []string{"", "running", "what"} {
		if err := os.WriteFile(last, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := startOn(dir, "boot-2", Config{}); err == nil || !strings.Contains(err.Error(), last+" can't be read: remove it") {
			t.Errorf("with %q in it: %v", text, err)
		}
	}
}
