package packages

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// boot has systemd be PID 1 in the folder $1, in namespaces of its own, so that it has a network, processes and control
// groups that are nobody else's. What it could change of this machine's kernel it can't write.
const boot = `set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for d in null zero full random urandom tty; do
	touch dev/$d
	mount --bind /dev/$d dev/$d
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
pivot_root . mnt
exec chroot . sh -c 'umount -l /mnt && exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target'`

// machine is a chroot in which systemd runs.
type machine struct {
	*chroot
	pid string // of its systemd
}

// boots runs systemd in it until the test ends.
func (c *chroot) boots(t *testing.T) *machine {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, "etc/hosts"), []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	unified, _, _ := strings.Cut(says(t, "findmnt", "--noheadings", "--types", "cgroup2", "--output", "TARGET"), "\n")
	group := filepath.Join(unified, fmt.Sprint("hubbub-packages-", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually(t, "its control groups are gone", func() bool {
			_ = exec.Command("find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
			_, err := os.Stat(group)
			return os.IsNotExist(err)
		})
	})
	var log bytes.Buffer
	cmd := exec.Command("sh", "-c", `echo $$ >"$1/cgroup.procs" && exec unshare --pid --mount --cgroup --uts --ipc --net --fork --kill-child sh -c "$2" sh "$3"`, "sh", group, boot, c.dir)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() { // with all that is in it
		_ = cmd.Process.Kill()
		<-ended
	})
	m := &machine{chroot: c}
	eventually(t, "systemd is PID 1", func() bool {
		select {
		case <-ended:
			t.Fatalf("it ends:\n%s", log.String())
		default:
		}
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		m.pid = strings.TrimSpace(string(children))
		name, _ := os.ReadFile("/proc/" + m.pid + "/comm")
		return m.pid != "" && string(name) == "systemd\n"
	})
	eventually(t, "it has started", func() bool {
		out, _ := m.try("systemctl", "is-active", "multi-user.target")
		return out == "active\n"
	})
	return m
}

// try runs a command on it, and gives what it prints.
func (m *machine) try(args ...string) (string, error) {
	out, err := exec.Command("nsenter", append([]string{"--target", m.pid, "--all", "--wdns=/"}, args...)...).CombinedOutput()
	return string(out), err
}

// says runs a command that must succeed.
func (m *machine) says(t *testing.T, args ...string) string {
	t.Helper()
	out, err := m.try(args...)
	if err != nil {
		log, _ := m.try("journalctl", "--no-pager", "--lines=100")
		t.Fatalf("%s: %v\n%s\nits log:\n%s", strings.Join(args, " "), err, out, log)
	}
	return out
}

// is says how the service is.
func (m *machine) is(t *testing.T, property, want string) {
	t.Helper()
	if got := m.show(t, property); got != want {
		t.Errorf("%s is %s, want %s", property, got, want)
	}
}

func (m *machine) show(t *testing.T, property string) string {
	t.Helper()
	return strings.TrimSpace(m.says(t, "systemctl", "show", "--property="+property, "--value", "hubbub.service"))
}

// serves says that the service is up, and takes messages.
func (m *machine) serves(t *testing.T) {
	t.Helper()
	m.is(t, "ActiveState", "active")
	if out := m.says(t, "hubbub", "health", "--ready"); out != "ready\n" {
		t.Errorf("it is %s", out)
	}
	if out := m.says(t, "hubbub", "pub", "--ws", "lobby", "hello"); !regexp.MustCompile(`^\S+:\d+\n$`).MatchString(out) {
		t.Errorf("a publish is answered %s", out)
	}
}

// logs waits for a line of the service's.
func (m *machine) logs(t *testing.T, line string) {
	t.Helper()
	eventually(t, "the log has "+line, func() bool {
		return strings.Contains(m.says(t, "journalctl", "--no-pager", "--output=cat", "--unit=hubbub.service"), line)
	})
}

// set has the settings' file be this.
func (m *machine) set(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, "etc/hubbub/hubbub.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What the packages promise of the service, where systemd is PID 1 and keeps to the unit.
func (c *chroot) underSystemd(t *testing.T) {
	says(t, "rm", "-rf", c.dir+"/etc/hubbub") // what others have left there
	m := c.boots(t)                           // which empties /tmp
	old, new := c.bring(t, one(t, dists.old+"/*_amd64.deb")), c.bring(t, one(t, dists.new+"/*_amd64.deb"))
	install := func(deb string) { m.says(t, "dpkg", "--force-confold", "--install", deb) }

	install(old)
	m.serves(t)
	m.is(t, "UnitFileState", "enabled")
	status := m.says(t, "cat", "/proc/"+m.show(t, "MainPID")+"/status")
	for _, want := range []string{`Uid:\s+[1-9]`, `CapEff:\s+0000000000000400`, `NoNewPrivs:\s+1`, `Seccomp:\s+2`} {
		if !regexp.MustCompile(`(?m)^` + want).MatchString(status) {
			t.Errorf("the process has no %s:\n%s", want, status)
		}
	}
	score := m.says(t, "systemd-analyze", "security", "--no-pager", "--threshold="+most, "hubbub.service")
	t.Log(regexp.MustCompile(`(?m)^→.*$`).FindString(score))

	m.set(t, "data-dir: /var/lib/hubbub\nlisten: unix:/run/hubbub/socket\n") // what it may write to
	m.says(t, "systemctl", "restart", "hubbub.service")
	m.is(t, "ActiveState", "active")
	m.says(t, "hubbub", "health", "--ready", "--config", "/etc/hubbub/hubbub.yaml")
	m.set(t, "data-dir: /var/lib/hubbub\n")
	m.says(t, "systemctl", "restart", "hubbub.service")
	m.serves(t)
	process := m.show(t, "MainPID")
	m.set(t, "data-dir: /var/lib/hubbub\nlog-level: debug\n")
	m.says(t, "systemctl", "reload", "hubbub.service")
	m.logs(t, "changed=log-level")
	m.is(t, "MainPID", process)

	install(new)
	m.serves(t)
	if m.show(t, "MainPID") == process {
		t.Error("an upgrade leaves the old program running")
	}
	m.says(t, "systemctl", "stop", "hubbub.service")
	install(new)
	m.is(t, "ActiveState", "inactive")
	m.says(t, "dpkg", "--remove", "hubbub")
	install(new) // again
	m.serves(t)
	m.is(t, "UnitFileState", "enabled")
	m.says(t, "dpkg", "--remove", "hubbub")
	m.is(t, "ActiveState", "inactive")
	install(new)
	m.says(t, "systemctl", "disable", "--now", "hubbub.service")
	m.says(t, "dpkg", "--remove", "hubbub")
	install(new)
	m.is(t, "ActiveState", "inactive")
	m.is(t, "UnitFileState", "disabled")

	m.says(t, "systemctl", "enable", "--now", "hubbub.socket")
	m.is(t, "ActiveState", "inactive")
	m.says(t, "hubbub", "health") // the first client starts it
	m.serves(t)
	m.says(t, "systemctl", "restart", "hubbub.service")
	m.serves(t)
	m.says(t, "systemctl", "disable", "--now", "hubbub.socket")

	process = m.show(t, "MainPID")
	m.says(t, "sh", "-c", "kill -STOP "+process) // a small Debian has no other kill
	eventually(t, "a server that hangs is started anew", func() bool { return m.show(t, "NRestarts") == "1" && m.show(t, "ActiveState") == "active" })
	m.logs(t, "Watchdog timeout")
	m.serves(t)
	m.says(t, "dpkg", "--purge", "hubbub")
	if out, err := m.try("hubbub", "health"); err == nil {
		t.Errorf("it is purged, and healthy: %s", out)
	}
}
