package packages

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// most is the score of the unit that systemd-analyze may give at most, in tenths: 0 is the best and 100 none. What is
// left is the network, which a server needs.
const most = "17"

func TestTheUnitIsHardened(t *testing.T) {
	out := says(t, "systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold="+most, abs(root+"/deploy/package/hubbub.service"))
	t.Log(regexp.MustCompile(`(?m)^→.*$`).FindString(out))
}

// chroot is a Debian of its own. No systemd runs in it but for underSystemd, and the server is started as its unit would.
type chroot struct {
	dir  string
	addr string // where its server listens: the network is this machine's
}

// newChroot takes Debian's packages from where this machine has its own.
func newChroot(t *testing.T) *chroot {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	site, _, _ := strings.Cut(says(t, "apt-get", "indextargets", "--format", "$(SITE)", "Codename: bookworm"), "\n")
	if out, err := exec.Command("debootstrap", "--variant=minbase", "--include=systemd", "bookworm", dir, site).CombinedOutput(); err != nil {
		t.Fatalf("debootstrap: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return &chroot{dir, l.Addr().String()}
}

// says runs a command in it.
func (c *chroot) says(t *testing.T, args ...string) string {
	t.Helper()
	return says(t, "chroot", append([]string{c.dir}, args...)...)
}

func (c *chroot) has(path string) bool {
	_, err := os.Lstat(filepath.Join(c.dir, path))
	return err == nil
}

// bring puts a package into it.
func (c *chroot) bring(t *testing.T, file string) string {
	t.Helper()
	says(t, "cp", file, c.dir+"/tmp/")
	return "/tmp/" + filepath.Base(file)
}

// change sets the address in the settings, as an administrator would by an editor.
func (c *chroot) change(t *testing.T) {
	t.Helper()
	path := filepath.Join(c.dir, "etc/hubbub/hubbub.yaml")
	text := read(t, path)
	changed := strings.Replace(text, "\n#listen: :8080\n", "\nlisten: "+c.addr+"\n", 1)
	if changed == text {
		t.Fatalf("there is no listen in\n%s", text)
	}
	if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
}

// serves starts what the unit starts, as its user, and asks it.
func (c *chroot) serves(t *testing.T, version string) {
	t.Helper()
	unit := read(t, c.dir, "usr/lib/systemd/system/hubbub.service")
	start := regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindStringSubmatch(unit)
	user := regexp.MustCompile(`(?m)^User=(.*)$`).FindStringSubmatch(unit)
	if start == nil || user == nil {
		t.Fatalf("the unit:\n%s", unit)
	}
	var log bytes.Buffer
	cmd := exec.Command("chroot", append([]string{"--userspec=" + user[1] + ":" + user[1], c.dir}, strings.Fields(start[1])...)...)
	cmd.Env = []string{"PATH=/usr/bin"}
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	health := func(args ...string) (string, error) {
		args = append([]string{c.dir, "hubbub", "health", "--config", "/etc/hubbub/hubbub.yaml"}, args...)
		out, err := exec.Command("chroot", args...).CombinedOutput()
		return string(out), err
	}
	eventually(t, "the server is ready", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("it ends: %v\n%s", err, log.String())
		default:
		}
		out, err := health("--ready")
		return err == nil && out == "ready\n"
	})
	if status := read(t, fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)); regexp.MustCompile(`(?m)^Uid:\s+0\s`).MatchString(status) {
		t.Error("it runs as root")
	}
	if out := c.says(t, "hubbub", "version"); !strings.HasPrefix(out, "hubbub "+version+" ") {
		t.Errorf("it is %s, want %s", out, version)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("it stops: %v\n%s", err, log.String())
	}
	if out, err := health(); err == nil {
		t.Errorf("it is stopped, and healthy: %s", out)
	}
}

// modes of what is installed; the secrets are root's alone.
func (c *chroot) modes(t *testing.T) {
	t.Helper()
	for path, mode := range map[string]fs.FileMode{
		"usr/bin/hubbub": 0o755, "etc/hubbub/hubbub.yaml": 0o644, "etc/hubbub/hubbub.env": 0o600, "usr/lib/systemd/system/hubbub.service": 0o644,
		"usr/share/man/man1/hubbub.1.gz": 0o644, "usr/share/bash-completion/completions/hubbub": 0o644, "usr/share/doc/hubbub/copyright": 0o644,
		"var/lib/hubbub": 0o700 | fs.ModeDir,
	} {
		info, err := os.Stat(filepath.Join(c.dir, path))
		if err != nil {
			t.Error(err)
			continue
		}
		uid := info.Sys().(*syscall.Stat_t).Uid
		if info.Mode() != mode || (uid == 0) != (path != "var/lib/hubbub") {
			t.Errorf("%s has %v, and is of user %d", path, info.Mode(), uid)
		}
	}
	if passwd := c.says(t, "getent", "passwd", "hubbub"); !strings.HasSuffix(passwd, ":/var/lib/hubbub:/usr/sbin/nologin\n") {
		t.Errorf("the user is %s", passwd)
	}
}

// In a Debian and nothing more: each package is installed, started, upgraded with its settings kept, removed and purged.
func TestInstall(t *testing.T) {
	c := newChroot(t)
	t.Run("deb", func(t *testing.T) {
		old, new := one(t, dists.old+"/*_amd64.deb"), one(t, dists.new+"/*_amd64.deb")
		c.says(t, "dpkg", "--install", c.bring(t, old))
		c.modes(t)
		const enabled = "/etc/systemd/system/multi-user.target.wants/hubbub.service"
		if !c.has(enabled) {
			t.Error("it isn't enabled")
		}
		if conf := c.says(t, "dpkg-query", "--show", "--showformat=${Conffiles}", "hubbub"); strings.Count(conf, " /etc/hubbub/hubbub.") != 2 {
			t.Errorf("its settings are %s", conf)
		}
		c.change(t)
		c.serves(t, oldVersion)
		kept := read(t, c.dir, "etc/hubbub/hubbub.yaml")
		c.says(t, "dpkg", "--install", c.bring(t, new))
		if v := c.says(t, "dpkg-query", "--show", "--showformat=${Version} ${Status}", "hubbub"); !strings.HasPrefix(v, newPackage) || !strings.HasSuffix(v, "install ok installed") {
			t.Errorf("after the upgrade it is %s", v)
		}
		if read(t, c.dir, "etc/hubbub/hubbub.yaml") != kept {
			t.Error("the upgrade changed the settings")
		}
		c.modes(t)
		c.serves(t, newVersion)
		c.says(t, "rm", enabled) // as systemctl disable does
		for range 2 {
			c.says(t, "dpkg", "--install", c.bring(t, new))
			if c.has(enabled) {
				t.Error("what was disabled is enabled by an upgrade, or after a removal")
			}
			c.says(t, "dpkg", "--remove", "hubbub")
		}
		c.says(t, "dpkg", "--install", c.bring(t, new))
		c.says(t, "dpkg", "--remove", "hubbub")
		if c.has("usr/bin/hubbub") || c.has("usr/lib/systemd/system/hubbub.service") || !c.has("var/lib/hubbub") || read(t, c.dir, "etc/hubbub/hubbub.yaml") != kept {
			t.Error("removing it leaves the program, or takes data or settings away")
		}
		c.says(t, "dpkg", "--purge", "hubbub")
		if c.has("etc/hubbub") || c.has("var/lib/hubbub") || exec.Command("chroot", c.dir, "getent", "passwd", "hubbub").Run() == nil {
			t.Error("purging it leaves settings, data or the user")
		}
	})
	t.Run("rpm", func(t *testing.T) { // by Debian's rpm: the commands of its scripts are this Debian's, of whom rpm doesn't know
		rpm := func(args ...string) string {
			t.Helper()
			return says(t, "rpm", append([]string{"--root", c.dir, "--dbpath", "/var/lib/rpm", "--nodeps"}, args...)...)
		}
		query := func(args ...string) string {
			t.Helper()
			return says(t, "rpm", append([]string{"--root", c.dir, "--dbpath", "/var/lib/rpm"}, args...)...)
		}
		old, new := one(t, dists.old+"/*.x86_64.rpm"), one(t, dists.new+"/*.x86_64.rpm")
		if out := says(t, "rpm", "--query", "--package", "--configfiles", old); out != "/etc/hubbub/hubbub.env\n/etc/hubbub/hubbub.yaml\n" {
			t.Errorf("its settings are %s", out)
		}
		rpm("--install", old)
		c.modes(t)
		c.change(t)
		c.serves(t, oldVersion)
		kept := read(t, c.dir, "etc/hubbub/hubbub.yaml")
		query("--verify", "--nofiledigest", "--nosize", "--nomtime", "--nodeps", "hubbub")
		rpm("--upgrade", new)
		if v := query("--query", "--queryformat", "%{VERSION} %{LICENSE}", "hubbub"); v != newPackage+" MIT" {
			t.Errorf("after the upgrade it is %s", v)
		}
		if read(t, c.dir, "etc/hubbub/hubbub.yaml") != kept {
			t.Error("the upgrade changed the settings")
		}
		c.modes(t)
		c.serves(t, newVersion)
		rpm("--erase", "hubbub")
		if c.has("usr/bin/hubbub") || c.has("etc/hubbub/hubbub.yaml") || read(t, c.dir, "etc/hubbub/hubbub.yaml.rpmsave") != kept {
			t.Error("removing it leaves the program, or loses the settings that were changed")
		}
	})
	t.Run("as docs/packages.md has it", c.thePage)
	t.Run("under systemd", c.underSystemd)
}
