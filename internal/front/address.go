package front

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// Listen listens at an address of ListenAddress's, without TCP's own keep-alive.
func Listen(addr string) (net.Listener, error) {
	network, address, err := ListenAddress(addr)
	if err != nil {
		return nil, fmt.Errorf("listen at %q: %w", addr, err)
	}
	if network == "unix" {
		return listenUnix(address)
	}
	config := net.ListenConfig{KeepAlive: -1}
	l, err := config.Listen(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	return quiet{l.(*net.TCPListener)}, nil
}

// quiet is a listener whose connections have TCP's own keep-alive off.
type quiet struct{ *net.TCPListener }

// ListenFile makes a listener of a socket that listens already, and takes f over. TCP's own keep-alive is off on what it
// accepts, as with Listen.
func ListenFile(f *os.File) (net.Listener, error) {
	defer f.Close() // FileListener has one of its own
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listen at descriptor %s: %w", f.Name(), err)
	}
	if tcp, ok := l.(*net.TCPListener); ok {
		return noKeepAlive{tcp}, nil
	}
	return l, nil
}

// noKeepAlive does what net.ListenConfig's KeepAlive does, which a socket that is taken over can't be given.
type noKeepAlive struct{ *net.TCPListener }

func (l noKeepAlive) Accept() (net.Conn, error) {
	nc, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	nc.SetKeepAlive(false) // where it fails, it is probed as well, no more
	return nc, nil
}

// ListenAddress gives what Listen calls package net with, and says of an address that it can't use what to write
// instead. It doesn't find out whether somebody else listens there.
func ListenAddress(addr string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return "unix", path, checkSocketPath(path)
	}
	return "tcp", addr, checkTCPAddress(addr)
}

func checkTCPAddress(addr string) error {
	switch {
	case addr == "":
		return errors.New("it is empty: write :8080, 127.0.0.1:8080 or unix:PATH")
	case strings.Trim(addr, "0123456789") == "":
		return fmt.Errorf("it has no colon: write :%s", addr)
	case strings.Contains(addr, "/"):
		return errors.New("it is a URL or a path: write host:port, :port, or unix:PATH for a Unix socket")
	}
	host, port, err := net.SplitHostPort(addr)
	switch {
	case err != nil && net.ParseIP(addr) != nil && strings.Contains(addr, ":"):
		return errors.New("an IPv6 address stands in brackets: write [::1]:8080")
	case err != nil && !strings.Contains(addr, ":"):
		return fmt.Errorf("it has no port: write %s:8080", addr)
	case err != nil:
		return fmt.Errorf("it isn't of the form host:port: %w", err)
	case port == "":
		return fmt.Errorf("it has no port: write %s8080, or %s0 for any that is free", addr, addr)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("its port, %q, is no number from 0 to 65535", port)
	}
	if host == "" || net.ParseIP(host) != nil {
		return nil
	}
	if _, err := net.ResolveTCPAddr("tcp", addr); err != nil {
		return fmt.Errorf("its host, %q, is not known: %w", host, err)
	}
	return nil
}

// maxSocketPath is what the system's address of a Unix socket holds, with a zero byte behind.
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// isAbstract says whether a Unix socket has no file (Linux).
func isAbstract(path string) bool {
	return runtime.GOOS == "linux" && strings.HasPrefix(path, "@")
}

func checkSocketPath(path string) error {
	switch {
	case path == "":
		return errors.New("there is no path: write unix:/run/hubbub.sock")
	case strings.HasPrefix(path, "//"):
		return fmt.Errorf("it is a URL: write unix:%s", strings.TrimPrefix(path, "//"))
	case len(path) > maxSocketPath:
		return fmt.Errorf("the path has %d bytes, more than the %d that the system takes", len(path), maxSocketPath)
	case isAbstract(path):
		return nil
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("%s is no directory", filepath.Dir(path))
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is there, and is no socket", path)
	}
	return nil
}

// socketMode lets the process's own group connect too, such as a proxy's; by most umasks only its user could.
const socketMode = 0o660

func listenUnix(path string) (net.Listener, error) {
	if !isAbstract(path) {
		if err := removeStale(path); err != nil {
			return nil, err
		}
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", path)
	if err != nil || isAbstract(path) {
		return l, err
	}
	s := &socketFile{UnixListener: l.(*net.UnixListener), path: path}
	s.SetUnlinkOnClose(false)
	if err = os.Chmod(path, socketMode); err == nil {
		s.own, err = os.Lstat(path)
	}
	if err != nil {
		s.UnixListener.Close()
		os.Remove(path)
		return nil, err
	}
	return s, nil
}

// removeStale removes a socket file that a process left behind which was killed: nobody answers there.
func removeStale(path string) error {
	if _, err := os.Lstat(path); err != nil {
		return nil // none, or none that Listen could use either
	}
	nc, err := net.Dial("unix", path)
	if err == nil {
		nc.Close()
		return fmt.Errorf("listen unix %s: another process listens there", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// socketFile removes its file with itself, but no other that has taken its place.
type socketFile struct {
	*net.UnixListener
	path string
	own  os.FileInfo
	once sync.Once
}

func (s *socketFile) Close() error {
	s.once.Do(func() {
		if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.own) {
			os.Remove(s.path)
		}
	})
	return s.UnixListener.Close()
}
