package bench

import (
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"
)

// What /proc/net/tcp and tcp6 say on a little-endian machine; the order of bytes is the machine's.
const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0
   3: 00000000000000000000000000000000:1F91 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 444 1
   4: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 555 1
   5: 0000000000000000FFFF00000100007F:1F92 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 666 1
   6: nonsense:1F90 x 0A 0 0 0 0 0 777
   7: 0100007F:
`

func TestWhoListens(t *testing.T) {
	if ip, ok := tableAddr("0100007F"); !ok || ip != netip.MustParseAddr("127.0.0.1") {
		t.Skip("the table below is a little-endian machine's")
	}
	for addr, want := range map[string][]string{
		"127.0.0.1:8080": {"socket:[111]"}, // its own rather than that of all addresses
		"10.0.0.1:8080":  {"socket:[222]"},
		"[::1]:8081":     {"socket:[555]"},
		"127.0.0.1:8081": {"socket:[444]"}, // of both families
		"127.0.0.1:8082": {"socket:[666]"},
		"127.0.0.1:80":   nil,
	} {
		if got := listeners(table, netip.MustParseAddrPort(addr)); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
}

func TestAProcessIsSeen(t *testing.T) {
	p := process{pids: []int{os.Getpid()}}
	if n, ok := p.memory(); !ok || n < 1<<20 {
		t.Errorf("memory: %d, %v", n, ok)
	}
	before, ok := p.cpu()
	for end := time.Now().Add(patience); ok && time.Now().Before(end); {
		if now, _ := p.cpu(); now > before {
			break
		}
	}
	if now, ok := p.cpu(); !ok || now <= before {
		t.Errorf("processor time went from %s to %s while it was used", before, now)
	}
	if _, ok := (process{pids: []int{1 << 29}}).memory(); ok {
		t.Error("a process that isn't there has memory")
	}
	if _, err := findServer(netip.MustParseAddrPort("192.0.2.1:80")); err == nil {
		t.Error("a server of another machine was found here")
	}
}
