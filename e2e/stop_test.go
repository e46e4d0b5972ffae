package e2e

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestStoppingSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(sig.String(), func(t *testing.T) {
			eachIO(t, []string{"--workers", "3"}, func(t *testing.T, s *server) {
				clients := []*client{dialWS(t, s.ws("/ws")).welcomed(), dialPython(t, s.ws("/")).welcomed()}
				echo := dialWS(t, s.ws("/echo")).opened()
				if status := s.stop(t, sig); status != 0 {
					t.Errorf("exit status %d, want 0", status)
				}
				for _, c := range clients {
					m := c.message("reconnect")
					if m.num("after_ms") < 0 || m.str("reason") != "drain" {
						t.Errorf("reconnect: %s", m.text)
					}
					if e := c.expect("close"); e.Code != 1001 {
						t.Errorf("closed with %d, want 1001", e.Code)
					}
				}
				if e := echo.expect("close"); e.Code != 1001 {
					t.Errorf("the echo is closed with %d, want 1001", e.Code)
				}
				if conn, err := net.Dial("tcp", s.addr); err == nil {
					conn.Close()
					t.Error("the port is still open")
				}
			})
		})
	}
}

// What was queued comes before the Close.
func TestStoppingLosesNothingThatWasQueued(t *testing.T) {
	eachIO(t, []string{"--workers", "2"}, func(t *testing.T, s *server) {
		member, publisher := dialRaw(t, s, "/ws", ""), dialRaw(t, s, "/ws", "")
		member.welcomed()
		publisher.welcomed()
		member.write(text(`{"msg_type":"join_room","room":"r","id":1}`))
		member.message("joined")
		n := 0
		for n < 100 {
			n = flood(publisher, "r", n, time.Millisecond)
		}
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		for range n {
			member.message("room_message")
		}
		member.message("reconnect")
		member.expectClose(1001)
		member.write(closeFrame(1001, ""))
		publisher.message("reconnect")
		publisher.expectClose(1001)
		publisher.write(closeFrame(1001, ""))
		if status := s.exit(t); status != 0 {
			t.Errorf("exit status %d, want 0", status)
		}
	})
}

// A client that neither reads nor answers does not keep the process.
func TestStoppingWaitsForNobodyForEver(t *testing.T) {
	eachIO(t, []string{"--shutdown-timeout", "1h"}, func(t *testing.T, s *server) { // a Close is waited for 5 s
		dialRaw(t, s, "/ws", "")
		dialRaw(t, s, "/echo", "")
		connect(t, s) // has not sent its request
		if status := s.stop(t, syscall.SIGTERM); status != 0 {
			t.Errorf("exit status %d, want 0", status)
		}
	})
}

// The hard end: clients that don't answer are cut off when the time is up, and that is no failure.
func TestStoppingEndsWhenItsTimeIsUp(t *testing.T) {
	eachIO(t, []string{"--shutdown-timeout", "1s"}, func(t *testing.T, s *server) {
		c := dialRaw(t, s, "/ws", "")
		begin := time.Now()
		if status := s.stop(t, syscall.SIGTERM); status != 0 {
			t.Errorf("exit status %d, want 0", status)
		}
		notBefore(t, begin, 900*time.Millisecond)
		if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) { // whose Close was waited for would end in good order
			t.Errorf("the client's connection ended with %v, want a reset", err)
		}
	})
}

func TestASecondSignalStopsAtOnce(t *testing.T) {
	eachIO(t, []string{"--shutdown-timeout", "1m", "--shutdown-delay", "1m"}, func(t *testing.T, s *server) {
		dialRaw(t, s, "/ws", "")
		for range 2 {
			if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			s.waitDraining(t) // two signals at once may be seen as one
		}
		if status := s.exit(t); status != 1 {
			t.Errorf("exit status %d, want 1", status)
		}
	})
}

// Who stops a group of processes may send each of them two signals at once, which are one wish.
func TestTwoSignalsAtOnceAreOne(t *testing.T) {
	eachIO(t, nil, func(t *testing.T, s *server) {
		c := dialRaw(t, s, "/ws", "")
		c.welcomed()
		for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			if err := s.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		c.message("reconnect")
		c.expectClose(1001)
		c.write(closeFrame(1001, ""))
		if status := s.exit(t); status != 0 {
			t.Errorf("exit status %d, want 0", status)
		}
	})
}

// While it is not ready but still accepting, a load balancer turns away and late clients get in. The time that clients
// have to go begins behind that: it may be the shorter of the two.
func TestTheShutdownDelayStillAccepts(t *testing.T) {
	eachIO(t, []string{"--shutdown-delay", "12s", "--shutdown-timeout", "11s"}, func(t *testing.T, s *server) {
		first := dialRaw(t, s, "/ws", "")
		first.welcomed()
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.waitDraining(t)
		late := dialRaw(t, s, "/ws", "")
		late.welcomed()
		for _, c := range []*rawConn{first, late} {
			c.message("reconnect")
			c.expectClose(1001)
			c.write(closeFrame(1001, ""))
		}
		if status := s.exit(t); status != 0 {
			t.Errorf("exit status %d, want 0", status)
		}
	})
}

// waitDraining waits until /readyz says 503, or the process has ended.
func (s *server) waitDraining(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		select {
		case <-s.exited:
			return
		default:
		}
		if r, err := s.probe(); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusServiceUnavailable && r.Header.Get("Retry-After") != "" {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatal("/readyz is not 503")
		}
	}
}
