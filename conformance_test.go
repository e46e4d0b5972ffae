package hubbub_test

import (
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/wire"
)

func TestSmoke(t *testing.T) {
	eachIO(t, func(t *testing.T, io string) {
		s := startServer(t, hubbub.Config{IO: io})
		c := dial(t, s, "/echo")
		c.text("hallo")
		c.expect(wire.Text, []byte("hallo"))
		c.sendClose(1000, "bye")
		c.expectClose(1000)
		c = dial(t, s, "/ws")
		if m := c.nextJSON(); m["msg_type"] != "welcome" {
			t.Fatal(m)
		}
		c.sendRaw([]byte{0xff})
		c.expectClose(1002)
	})
}
