package doctor

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// holder is who listens at an address; 0 where nobody does, or it can't be seen.
func (s *Subject) holder(address string) (pid int, program string) {
	_, portText, err := net.SplitHostPort(address)
	if err != nil {
		return 0, ""
	}
	port, _ := strconv.Atoi(portText)
	inode := ""
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		for line := range strings.Lines(s.text(table)) {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) { // 0A is LISTEN
				inode = f[9]
			}
		}
	}
	if inode == "" {
		return 0, ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == "socket:["+inode+"]" {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			program := filepath.Base(strings.TrimSuffix(exe, " (deleted)"))
			if program == "." {
				program = s.text(fmt.Sprintf("/proc/%d/comm", pid))
			}
			return pid, program
		}
	}
	return 0, ""
}

// descriptors holds the limit of open files against --max-connections.
func descriptors(_ context.Context, s *Subject) []Finding {
	folder, whose := s.process()
	var most int64
	for line := range strings.Lines(s.text(folder + "/limits")) {
		if rest, found := strings.CutPrefix(line, "Max open files"); found {
			if f := strings.Fields(rest); len(f) > 1 { // soft, hard: Go raises the first to the second
				most, _ = strconv.ParseInt(f[1], 10, 64)
			}
		}
	}
	if most == 0 {
		var r syscall.Rlimit
		if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil {
			return nil
		}
		most = int64(min(r.Max, 1<<40))
	}
	want := int64(s.MaxConnections)
	room := most - max(64, most/32) // what --max-connections is by default
	need := max(want+64, want*32/31+1)
	var all []Finding
	switch change := fmt.Sprintf("LimitNOFILE=%d in the unit, --ulimit nofile=%[1]d in Docker, or ulimit -n %[1]d; or --max-connections %d", need, room); {
	case want > most:
		all = append(all, fault("descriptors", change, "--max-connections is %d, and a process may open %d files (%s)", want, most, whose))
	case want > room:
		all = append(all, warning("descriptors", change, "--max-connections is %d, and of the %d files that a process may open (%s) so many aren't left beside those for requests and the log", want, most, whose))
	case most < 4096:
		all = append(all, warning("descriptors", "LimitNOFILE=1048576 in the unit, or ulimit -n", "a process may open %d files (%s), and each connection is one: %d connections", most, whose, want))
	default:
		all = append(all, ok("descriptors", "%d files, for %d connections (%s)", most, want, whose))
	}
	if files, found := s.number("/proc/sys/fs/file-max", 0); found && files < need {
		all = append(all, fault("fs.file-max", fmt.Sprintf("sysctl -w fs.file-max=%d", 2*need), "all processes together may open %d files, and --max-connections is %d", files, want))
	}
	return all
}

// memory holds the memory that there is against what the server may buffer.
func memory(_ context.Context, s *Subject) []Finding {
	folder, whose := s.process()
	limit, from := s.memoryLimit(folder)
	if limit == 0 {
		return nil
	}
	mib := func(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
	switch buffered := s.MaxBufferedBytes; {
	case buffered > limit*9/10:
		return []Finding{fault("memory", fmt.Sprintf("--max-buffered-bytes %dMiB, or a larger limit", limit/4>>20), "--max-buffered-bytes is %s, and the limit is %s by %s (%s): the kernel would kill the server before it sheds load", mib(buffered), mib(limit), from, whose)}
	case buffered > limit/2:
		return []Finding{warning("memory", fmt.Sprintf("--max-buffered-bytes %dMiB, or a larger limit", limit/4>>20), "--max-buffered-bytes is %s of %s by %s: what the process has beside that, and the kernel's buffers, may not fit", mib(buffered), mib(limit), from)}
	default:
		return []Finding{ok("memory", "%s by %s; --max-buffered-bytes is %s of it", mib(limit), from, mib(buffered))}
	}
}

// kernel looks at the sysctls that bound a server with many connections.
func kernel(_ context.Context, s *Subject) (all []Finding) {
	want := int64(s.MaxConnections)
	if n, found := s.number("/proc/sys/net/core/somaxconn", 0); found {
		if n < 1024 && want > 1024 {
			all = append(all, warning("net.core.somaxconn", "sysctl -w net.core.somaxconn=4096, then restart the server", "%d: when more clients than that connect at once, as after a restart, the kernel drops their packets and they wait a second or more", n))
		} else {
			all = append(all, ok("net.core.somaxconn", "%d connections may wait to be accepted", n))
		}
	}
	if n, found := s.number("/proc/sys/net/ipv4/tcp_max_syn_backlog", 0); found && n < 512 && want > 1024 {
		all = append(all, warning("net.ipv4.tcp_max_syn_backlog", "sysctl -w net.ipv4.tcp_max_syn_backlog=4096", "%d: so many handshakes of TCP may be under way; clients that come back all at once have to try again", n))
	}
	if pages, found := s.number("/proc/sys/net/ipv4/tcp_mem", 2); found {
		bytes := pages * int64(os.Getpagesize())
		if each := bytes / max(1, want); each < 4096 {
			all = append(all, warning("net.ipv4.tcp_mem", fmt.Sprintf("sysctl -w net.ipv4.tcp_mem='%d %d %d'", want*4, want*6, want*8), "the kernel's buffers of all connections together may take %d MiB, which is %d bytes for each of %d connections: beyond it packets are dropped", bytes>>20, each, want))
		} else {
			all = append(all, ok("net.ipv4.tcp_mem", "%d MiB for the kernel's buffers of all connections", bytes>>20))
		}
	}
	if most, found := s.number("/proc/sys/net/netfilter/nf_conntrack_max", 0); found {
		count, _ := s.number("/proc/sys/net/netfilter/nf_conntrack_count", 0)
		change := fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d, or leave the port out of tracking: nft add rule … notrack", 2*want)
		switch {
		case count > most*9/10:
			all = append(all, fault("net.netfilter.nf_conntrack_max", change, "%d of %d entries are taken: a full table drops packets of new connections", count, most))
		case most < want && count > 0:
			all = append(all, warning("net.netfilter.nf_conntrack_max", change, "the firewall tracks %d connections at most, and --max-connections is %d", most, want))
		default:
			all = append(all, ok("net.netfilter.nf_conntrack_max", "%d of %d entries are taken", count, most))
		}
	}
	if low, found := s.number("/proc/sys/net/ipv4/ip_local_port_range", 0); found && len(s.TrustedProxies) > 0 {
		high, _ := s.number("/proc/sys/net/ipv4/ip_local_port_range", 1)
		if ports := high - low + 1; ports < want {
			all = append(all, warning("net.ipv4.ip_local_port_range", "sysctl -w net.ipv4.ip_local_port_range='1024 65535' on the proxy, or more addresses or ports of the server, or --listen unix:PATH", "a proxy on this machine has %d ports for its connections to one address of the server, and --max-connections is %d", ports, want))
		}
	}
	return all
}

// clock asks the kernel whether something keeps its time.
func clock(ctx context.Context, s *Subject) []Finding {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	off, from := s.peerClock(ctx)
	change := "timedatectl set-ntp true, or run chrony"
	if from != "" && off.Abs() > 5*time.Second {
		f := warning("clock", change, "%s has a time that is %s from ours (one of the two is wrong)", from, off.Round(time.Second))
		if s.Tokens && off.Abs() > time.Minute {
			f.Level = Fault
			f.Found += ": tokens count as expired, or as not yet good"
		}
		return []Finding{f}
	}
	agrees := ""
	if from != "" {
		agrees = "; " + from + " agrees to the second or so"
	}
	if err == nil && (state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0) {
		return []Finding{warning("clock", change, "the kernel says that nothing keeps its time%s: it will drift, and tokens and signatures have times in them", agrees)}
	}
	return []Finding{ok("clock", "it is kept in time%s", agrees)}
}

// free is the space of a folder's disk, in bytes and as a share, and that of its files.
func free(folder string) (bytes uint64, share, inodes float64, ok bool) {
	var st unix.Statfs_t
	if unix.Statfs(folder, &st) != nil || st.Blocks == 0 {
		return 0, 0, 0, false
	}
	inodes = 1
	if st.Files > 0 {
		inodes = float64(st.Ffree) / float64(st.Files)
	}
	return st.Bavail * uint64(st.Bsize), float64(st.Bavail) / float64(st.Blocks), inodes, true
}
