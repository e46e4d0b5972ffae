package loop

import (
	"testing"
	"time"

	"example.com/hubbub/internal/wire"
)

// What a connection may leave unsent, and how old that may become, is what the last reload said.
func TestAReloadBoundsWhatIsUnsent(t *testing.T) {
	w := idle()
	w.clock()
	w.loop.Reload(Config{MaxMessageBytes: 100, SendQueueBytes: 1000, SendQueueAge: time.Minute, MaxBufferedBytes: 1 << 20})
	c := &Conn{w: w, h: &script{}, via: &lazyLine{has: true}, seen: w.now}
	c.Send(NewFrame(wire.Text, make([]byte, 400)))
	if !c.Fits(NewFrame(wire.Text, make([]byte, 400))) || c.Bound() != 1000 {
		t.Fatal("it doesn't fit before")
	}
	before := w.tooOld(c)
	w.loop.Reload(Config{MaxMessageBytes: 100, SendQueueBytes: 500, SendQueueAge: time.Second, MaxBufferedBytes: 1 << 20})
	if c.Fits(NewFrame(wire.Text, make([]byte, 400))) || c.Bound() != 500 || before-w.tooOld(c) != 59_000 {
		t.Errorf("it fits still, or may wait for %d ms less", before-w.tooOld(c))
	}
}
