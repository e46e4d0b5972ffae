package conformance

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
	"example.com/hubbub/internal/wsclient"
)

// Nothing that a client sends ends the process, or keeps others from being served.

// witness is a client that asks again and again until stop is called, and fails the test when it isn't answered.
func witness(t *testing.T, s *rawtest.Server) (stop func()) {
	t.Helper()
	c := rawtest.Dial(t, s, "/ws")
	c.NextJSON()
	ask := func(id int) error {
		if err := c.TrySend(text(fmt.Sprintf(`{"msg_type":"ping","id":%d}`, id))); err != nil {
			return err
		}
		want := fmt.Sprintf(`"id":%d}`, id)
		for {
			op, p, err := c.TryNext()
			switch {
			case err != nil:
				return err
			case op == wsclient.Close:
				return fmt.Errorf("closed: %x", p)
			case op == wsclient.Text && len(p) > len(want) && string(p[len(p)-len(want):]) == want:
				return nil
			}
		}
	}
	over, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		for id := 1; ; id++ {
			select {
			case <-over:
				failed <- nil
				return
			default:
			}
			if err := ask(id); err != nil {
				failed <- fmt.Errorf("after %d questions: %w", id-1, err)
				return
			}
		}
	}()
	return func() {
		t.Helper()
		close(over)
		if err := <-failed; err != nil {
			t.Errorf("another client was not served all along: %v", err)
		}
		c.CloseNow()
	}
}

func TestGarbageInsteadOfHandshakes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io, HandshakeTimeout: 10 * time.Second})
		stop := witness(t, s)
		const clients, each = 50, 40
		var all sync.WaitGroup
		for i := range clients {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				for range each {
					garbage(s, rng)
				}
			})
		}
		all.Wait()
		stop()
		rawtest.Dial(t, s, "/echo").Quiet() // and who comes now is served too
	})
}

// garbage opens a connection and sends it bytes that are no handshake, or one with an end that is none.
func garbage(s *rawtest.Server, rng *rand.Rand) {
	nc, err := net.DialTimeout("tcp", s.Addr, rawtest.Patience)
	if err != nil {
		return
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(rawtest.Patience))
	b := make([]byte, rng.IntN(2000))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	switch rng.IntN(4) {
	case 0:
		b = append([]byte("GET /ws HTTP/1.1\r\n"), b...)
	case 1:
		b = append([]byte(rawtest.Upgrade(s, "/ws")), b...)
	case 2:
		b = []byte(rawtest.Upgrade(s, "/echo"))
		b = b[:rng.IntN(len(b))]
	}
	nc.Write(b)
	if rng.IntN(2) == 0 {
		nc.(*net.TCPConn).SetLinger(0)
	}
}

// mutated is a stream of good frames in which some things are no more good.
func mutated(rng *rand.Rand) []byte {
	var b []byte
	texts := []string{"", "hello", kosme, `{"msg_type":"chat","content":"hi"}`, `{"msg_type":"join_room","room":"r","id":1}`,
		`{"msg_type":"room_message","room":"r","content":[1,{"a":null}]}`, `{"msg_type":"leave_room","room":"r"}`,
		`{"msg_type":"direct_message","to":"nobody","content":1}`, `{"msg_type":"ping","id":"x"}`, `{"msg_type":`}
	ops := []wsclient.Opcode{wsclient.Text, wsclient.Text, wsclient.Text, wsclient.Binary, wsclient.Continuation, wsclient.Ping, wsclient.Pong}
	for range 1 + rng.IntN(20) {
		p := []byte(texts[rng.IntN(len(texts))])
		if rng.IntN(20) == 0 {
			p = pattern(rng.IntN(1 << rng.IntN(18)))
		}
		fin := rng.IntN(8) != 0
		op := ops[rng.IntN(len(ops))]
		if op == wsclient.Continuation && rng.IntN(4) != 0 {
			op = wsclient.Text
		}
		b = append(b, rawtest.Frame(op, fin, p)...)
	}
	if rng.IntN(8) == 0 {
		b = append(b, bye...)
	}
	for range rng.IntN(3) {
		at := rng.IntN(len(b))
		switch rng.IntN(4) {
		case 0:
			b[at] ^= 1 << rng.IntN(8)
		case 1:
			b[at] = byte(rng.Uint32())
		case 2:
			b = append(b[:at:at], b[min(len(b), at+1+rng.IntN(16)):]...)
		case 3:
			b = append(b[:at:at], append([]byte{byte(rng.Uint32())}, b[at:]...)...)
		}
		if len(b) == 0 {
			return []byte{0}
		}
	}
	return b
}

func TestMutatedFrames(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rawtest.EachIO(t, func(t *testing.T, io string) {
		s := rawtest.Start(t, hubbub.Config{IO: io})
		stop := witness(t, s)
		const fuzzers, streams, long = 64, 200, time.Second
		var all sync.WaitGroup
		for i := range fuzzers {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				for began, n := time.Now(), 0; n < streams && time.Since(began) < long; n++ {
					path := []string{"/ws", "/echo"}[rng.IntN(2)]
					switch err := converse(s, path, mutated(rng), 1+rng.IntN(3000), rng.IntN(4) == 0); {
					case err == errStorm:
						time.Sleep(20 * time.Millisecond)
						n--
					case err != nil:
						t.Errorf("fuzzer %d, stream %d: %v", i, n, err)
						return
					}
				}
			})
		}
		all.Wait()
		stop()
		s.CheckLog(t)
		rawtest.Eventually(t, "no connection is left", func() bool { return s.Connections() == 0 })
	})
}

// converse opens a WebSocket, sends it bytes in pieces of chop, and reads what comes: good frames up to a Close or an
// end between two frames, whatever was sent. With rude it hangs up with a reset instead of reading.
func converse(s *rawtest.Server, path string, b []byte, chop int, rude bool) error {
	nc, err := net.DialTimeout("tcp", s.Addr, rawtest.Patience)
	if err != nil {
		return err
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(rawtest.Patience))
	if _, err := nc.Write([]byte(rawtest.Upgrade(s, path))); err != nil {
		return err
	}
	switch err := skipHead(nc); {
	case err == errStorm:
		return err
	case err != nil:
		return fmt.Errorf("the handshake: %w", err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for len(b) > 0 {
			n := min(chop, len(b))
			if _, err := nc.Write(b[:n]); err != nil {
				return
			}
			b = b[n:]
		}
		if rude {
			nc.(*net.TCPConn).SetLinger(0)
			nc.Close()
		} else {
			nc.(*net.TCPConn).CloseWrite()
		}
	}()
	defer func() { <-sent }()
	closed := false
	for {
		op, _, err := rawtest.ReadFrame(nc)
		switch {
		case err == nil && closed:
			return fmt.Errorf("a frame %v behind a Close", op)
		case err == nil:
			closed = op == wsclient.Close
		case rude, rawtest.IsEndOrReset(err):
			return nil
		default:
			return err
		}
	}
}

// errStorm is what a busy machine says where many connect at once.
var errStorm = errors.New("more connect at once than can be let in")

// skipHead reads the answer to the handshake, byte by byte lest it take a frame along.
func skipHead(r io.Reader) error {
	var head []byte
	for b := make([]byte, 1); len(head) < 4 || string(head[len(head)-4:]) != "\r\n\r\n"; {
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		head = append(head, b[0])
	}
	switch {
	case len(head) >= 12 && string(head[9:12]) == "503":
		return errStorm
	case len(head) < 12 || string(head[9:12]) != "101":
		return fmt.Errorf("got %s", rawtest.Brief(head))
	}
	return nil
}

// FuzzServer feeds a live server bytes behind a handshake: it must not panic, and what it says must be good frames.
func FuzzServer(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		f.Add(mutated(rng), uint16(1+rng.IntN(100)), true)
		f.Add(mutated(rng), uint16(0), false)
	}
	f.Add(append(text("good"), bye...), uint16(1), false)
	s := rawtest.Start(f, hubbub.Config{Workers: 1})
	f.Fuzz(func(t *testing.T, b []byte, chop uint16, rooms bool) {
		path := "/echo"
		if rooms {
			path = "/ws"
		}
		// At least a sixteenth of the stream at once: each piece is a system call on both sides.
		if err := converse(s, path, b, max(int(chop), 1+len(b)/16), false); err != nil {
			t.Error(err)
		}
		s.CheckLog(t)
	})
}
