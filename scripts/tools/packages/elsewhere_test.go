package packages

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// emulated is a program for another processor or another system, and what runs it here.
type emulated struct {
	archive, program string
	by               []string // the emulator
	env              []string
	system           string // as hubbub version has it
}

func (e *emulated) command(args ...string) *exec.Cmd {
	cmd := exec.Command(e.by[0], append(append(e.by[1:len(e.by):len(e.by)], e.program), args...)...)
	cmd.Env = append(os.Environ(), e.env...)
	return cmd
}

// prints runs a command of it that must succeed; what the emulator itself says goes to the standard error.
func (e *emulated) prints(t *testing.T, args ...string) string {
	t.Helper()
	cmd := e.command(args...)
	out := toFile(t, &cmd.Stdout)
	failures := toFile(t, &cmd.Stderr)
	if err := cmd.Run(); err != nil {
		t.Fatalf("hubbub %s: %v\n%s%s", strings.Join(args, " "), err, out(), failures())
	}
	return strings.ReplaceAll(out(), "\r\n", "\n")
}

// toFile has a command write to a file, and gives what is read there. It is no pipe, since Wine's own processes hold what
// they were born with open, and go on after the command.
func toFile(t *testing.T, to ...*io.Writer) (text func() string) {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for _, w := range to {
		*w = f
	}
	return func() string { return read(t, f.Name()) }
}

// begin starts a command that goes on until the test ends, and gives what it has written so far.
func begin(t *testing.T, cmd *exec.Cmd) (written func() string, ended chan error) {
	t.Helper()
	written, ended = toFile(t, &cmd.Stdout, &cmd.Stderr), make(chan error, 1)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	return written, ended
}

// What is built for an ARM processor serves under QEMU, and is stopped as under systemd; what is for Windows serves under
// Wine. A client of this machine's own is in a room there, and hears what theirs publishes.
func TestElsewhere(t *testing.T) {
	base := "hubbub_" + newVersion + "_"
	native := filepath.Join(unpacked(t, base+"linux_amd64.tar.gz"), base+"linux_amd64", "hubbub")
	t.Run("linux/arm64", func(t *testing.T) {
		name := base + "linux_arm64"
		e := &emulated{program: filepath.Join(unpacked(t, name+".tar.gz"), name, "hubbub"), by: []string{"qemu-aarch64-static"}, system: "linux/arm64"}
		server, ended := e.serves(t, native)
		if err := server.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("it stops: %v", err)
		}
	})
	t.Run("windows/amd64", func(t *testing.T) {
		name := base + "windows_amd64"
		prefix := filepath.Join(t.TempDir(), "wine")
		e := &emulated{program: filepath.Join(unpacked(t, name+".zip"), name, "hubbub.exe"), by: []string{"wine"}, system: "windows/amd64",
			env: []string{"WINEPREFIX=" + prefix, "WINEDEBUG=-all", "WINEDLLOVERRIDES=mscoree,mshtml=", "DISPLAY="}}
		wine := func(name string, args ...string) {
			t.Helper()
			cmd := exec.Command(name, args...)
			cmd.Env = append(os.Environ(), e.env...)
			out := toFile(t, &cmd.Stdout, &cmd.Stderr)
			if err := cmd.Run(); err != nil {
				t.Errorf("%s: %v\n%s", name, err, out())
			}
		}
		t.Cleanup(func() { wine("wineserver", "--kill", "--wait") }) // the processes of that prefix alone
		wine("wineboot", "--init")
		randomNumbers(t, filepath.Join(prefix, "drive_c/windows/system32"))
		e.serves(t, native)
	})
}

// randomNumbers puts into a folder what every program in Go has from Windows, and Debian 12's Wine 8 hasn't: the library
// bcryptprimitives with its one function, which leads to the function of Wine's that does the same.
func randomNumbers(t *testing.T, folder string) {
	t.Helper()
	dir := t.TempDir()
	object, exports := filepath.Join(dir, "empty.o"), filepath.Join(dir, "exports.def")
	if err := os.WriteFile(exports, []byte("LIBRARY bcryptprimitives.dll\nEXPORTS\nProcessPrng = advapi32.SystemFunction036\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, "x86_64-w64-mingw32-as", "-o", object, os.DevNull)
	says(t, "x86_64-w64-mingw32-ld", "--shared", "--entry=0", "-o", filepath.Join(folder, "bcryptprimitives.dll"), object, exports)
}

// unpacked is a folder with what an archive of the newer release has.
func unpacked(t *testing.T, archive string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if from := filepath.Join(dists.new, archive); strings.HasSuffix(archive, ".zip") {
		says(t, "unzip", "-q", from, "-d", dir)
	} else {
		says(t, "tar", "-C", dir, "-xzf", from)
	}
	return dir
}

// serves has it say what it is, serve, and pass a message on to a client.
func (e *emulated) serves(t *testing.T, native string) (server *exec.Cmd, ended chan error) {
	t.Helper()
	if out := e.prints(t, "version"); !strings.HasPrefix(out, "hubbub "+newVersion+" go1.") || !strings.Contains(out, " "+e.system) {
		t.Errorf("its version is %s", out)
	}
	if out := e.prints(t, "--help"); !strings.Contains(out, "Run the server.") {
		t.Errorf("its help is %s", out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	server = e.command("serve", "--listen", addr)
	log, ended := begin(t, server)
	eventually(t, "the server is ready", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("it ends: %v\n%s", err, log())
		default:
		}
		health := e.command("health", "--ready", "--url", "http://"+addr)
		out := toFile(t, &health.Stdout)
		return health.Run() == nil && strings.TrimSpace(out()) == "ready"
	})
	heard, _ := begin(t, exec.Command(native, "sub", "lobby", "--url", "http://"+addr))
	eventually(t, "a client of "+e.system+" is heard:\n"+log(), func() bool { // again and again, until the other has joined
		e.prints(t, "pub", "--ws", "lobby", "from "+e.system, "--url", "http://"+addr)
		return strings.Contains(heard(), "from "+e.system)
	})
	return server, ended
}
