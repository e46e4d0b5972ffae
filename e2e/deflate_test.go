package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// prose is text of n bytes that compresses well.
func prose(n int, rnd *rand.Rand) string {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "%s %d ", []string{"lorem", "ipsum", "dolor", "сит", "amet"}[rnd.IntN(5)], rnd.IntN(100))
	}
	return strings.ToValidUTF8(b.String()[:n], "")
}

// echoes sends texts of many sizes, whole and in fragments, and expects each back.
func echoes(t *testing.T, c *client) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 16, 511, 600, 1024, 4096, 65536, 131072, 2000, 2000} {
		want := prose(n, rnd)
		c.send(want)
		if got := c.expect("text").Data; got != want {
			t.Fatalf("%d bytes came back as %d: %.60q", len(want), len(got), got)
		}
		third := strings.ToValidUTF8(want[:n/3], "")
		c.sendFragments(third, "", want[len(third):])
		if got := c.expect("text").Data; got != want {
			t.Fatalf("%d bytes in fragments came back as %d: %.60q", len(want), len(got), got)
		}
	}
}

// Both foreign clients offer compression by default. They get it in both modes, and a room's messages by it.
func TestForeignClientsCompress(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"on", "context", "off"} {
		t.Run(mode, func(t *testing.T) {
			eachClient(t, []string{"--compression", mode, "--max-message-bytes", "256KiB"}, func(t *testing.T, s *server, dial dialer) {
				c := dial(t, s.ws("/echo"))
				if got := c.expect("open").Data; (got == "permessage-deflate") != (mode != "off") {
					t.Fatalf("the extensions %q", got)
				}
				echoes(t, c)
				c.close(1000, "")
				c.expect("close")

				members := []*client{dial(t, s.ws("/ws")).welcomed(), dial(t, s.ws("/ws")).welcomed(), dialWS(t, s.ws("/ws")).welcomed(), dialPython(t, s.ws("/ws")).welcomed()}
				for _, m := range members {
					m.join("r")
				}
				for i := range 20 {
					content := fmt.Sprint(i, " ", prose(100+i*300, rand.New(rand.NewPCG(3, 4))))
					members[0].sendf(`{"msg_type":"room_message","room":"r","content":%q}`, content)
					for _, m := range members[1:] {
						if got := m.message("room_message").str("content"); got != content {
							t.Fatalf("message %d is %.60q", i, got)
						}
					}
				}
			})
		})
	}
}

// The npm package's options, which zlib obeys on its side.
func TestEveryWindowOfZlib(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"on", "context"} {
		t.Run(mode, func(t *testing.T) {
			eachIO(t, []string{"--compression", mode, "--max-message-bytes", "256KiB"}, func(t *testing.T, s *server) {
				for bits := 8; bits <= 15; bits++ {
					for _, fresh := range []bool{false, true} {
						set := map[string]any{"serverMaxWindowBits": bits, "clientMaxWindowBits": max(bits, 9), "threshold": 0}
						if fresh { // false would refuse the answer that has it, so it is left out
							set["serverNoContextTakeover"], set["clientNoContextTakeover"] = true, true
						}
						options, _ := json.Marshal(set)
						cmd := exec.Command("node", "ws/client.js", s.ws("/echo"))
						cmd.Env = append(os.Environ(), "DEFLATE="+string(options))
						c := drive(t, "ws", cmd)
						if got := c.expect("open").Data; got != "permessage-deflate" {
							t.Fatalf("%s gives %q", options, got)
						}
						echoes(t, c)
						c.close(1000, "")
						c.expect("close")
					}
				}
			})
		})
	}
}
