package bench

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// process is the server: one process, or several that share a listening socket.
type process struct{ pids []int }

// findServer finds who listens at an address of this machine.
func findServer(addr netip.AddrPort) (process, error) {
	if !isLocal(addr.Addr()) {
		return process{}, fmt.Errorf("the server runs on another machine (%s)", addr.Addr())
	}
	var inodes []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err == nil {
			inodes = append(inodes, listeners(string(b), addr)...)
		}
	}
	if len(inodes) == 0 {
		return process{}, fmt.Errorf("no socket of this machine (or container) listens at %s", addr)
	}
	var p process
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return p, err
	}
	for _, link := range links {
		// Unreadable where it is another user's, or gone.
		if to, err := os.Readlink(link); err == nil && slices.Contains(inodes, to) {
			if pid, _ := strconv.Atoi(strings.Split(link, "/")[2]); !slices.Contains(p.pids, pid) {
				p.pids = append(p.pids, pid)
			}
		}
	}
	switch {
	case len(p.pids) == 0:
		return p, fmt.Errorf("who listens at %s is hidden: probably another user's process; root may see it", addr)
	case slices.Contains(p.pids, os.Getpid()):
		return process{}, errors.New("the server runs in this very process")
	}
	return p, nil
}

func isLocal(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(net.IP(ip.AsSlice()))
	})
}

// listeners gives the sockets, as /proc/PID/fd names them, that listen at an address, in the form of /proc/net/tcp and
// tcp6: those of the address itself, or else of all addresses.
func listeners(table string, addr netip.AddrPort) []string {
	var exact, all []string
	for line := range strings.Lines(table) {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
		fields := strings.Fields(line)
		if len(fields) < 10 || fields[3] != "0A" { // TCP_LISTEN
			continue
		}
		host, port, _ := strings.Cut(fields[1], ":")
		n, err := strconv.ParseUint(port, 16, 16)
		ip, ok := tableAddr(host)
		if err != nil || !ok || uint16(n) != addr.Port() {
			continue
		}
		socket := "socket:[" + fields[9] + "]"
		switch {
		case ip == addr.Addr():
			exact = append(exact, socket)
		case ip.IsUnspecified():
			all = append(all, socket)
		}
	}
	if len(exact) > 0 {
		return exact
	}
	return all
}

// tableAddr reads an address as the kernel prints it: words in the machine's order.
func tableAddr(s string) (netip.Addr, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	ip, ok := netip.AddrFromSlice(b)
	return ip.Unmap(), ok
}

// clockTick is what /proc counts processor time in: USER_HZ, 100 on every Linux.
const clockTick = 10 * time.Millisecond

// cpu is the processor time that the server has used, the kernel's on its behalf included. ok is false when it is gone.
func (p process) cpu() (total time.Duration, ok bool) {
	for _, pid := range p.pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, false
		}
		// The name, in brackets, may have spaces; utime and stime are the 14th and 15th.
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(fields) < 13 {
			return 0, false
		}
		for _, f := range fields[11:13] {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, false
			}
			total += time.Duration(n) * clockTick
		}
	}
	return total, len(p.pids) > 0
}

// memory is the server's resident memory in bytes.
func (p process) memory() (total int64, ok bool) {
	for _, pid := range p.pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			return 0, false
		}
		fields := strings.Fields(string(b))
		if len(fields) < 2 {
			return 0, false
		}
		pages, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, false
		}
		total += pages * int64(os.Getpagesize())
	}
	return total, len(p.pids) > 0
}

// machineIdle is how long the machine's processors were idle and busy, all together.
func machineIdle() (idle, busy time.Duration, ok bool) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, false
	}
	first, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(first)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, 0, false
	}
	for i, f := range fields[1:9] { // user nice system idle iowait irq softirq steal
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, 0, false
		}
		if i == 3 || i == 4 {
			idle += time.Duration(n) * clockTick
		} else {
			busy += time.Duration(n) * clockTick
		}
	}
	return idle, busy, true
}
