package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// pageCommands are those of docs/packages.md, without their comments.
func pageCommands(t *testing.T) (all []string) {
	t.Helper()
	for _, block := range regexp.MustCompile("(?ms)^```console\n(.*?)^```$").FindAllStringSubmatch(read(t, root, "docs/packages.md"), -1) {
		for line := range strings.Lines(block[1]) {
			command, is := strings.CutPrefix(line, "$ ")
			if !is {
				t.Fatalf("docs/packages.md has the line %q, which is no command", line)
			}
			command, _, _ = strings.Cut(command, " #")
			all = append(all, strings.TrimSpace(command))
		}
	}
	return all
}

// sh runs a line of the page in a folder, with what stands before it.
func sh(t *testing.T, dir, before, line string) string {
	t.Helper()
	cmd := exec.Command("bash", "-e", "-c", before+"\n"+line)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// What the page says to type is typed, in its order. Nothing may stand there that is neither run nor named here as not
// run, with why.
func (c *chroot) thePage(t *testing.T) {
	dir := t.TempDir()
	for _, from := range []string{one(t, dists.old+"/*_amd64.deb"), one(t, dists.old+"/*.x86_64.rpm"), one(t, dists.old+"/*_linux_amd64.tar.gz"), one(t, dists.new+"/*.x86_64.rpm")} {
		says(t, "cp", from, dir)
	}
	says(t, "cp", one(t, dists.old+"/*_amd64.deb"), c.dir+"/root/")
	says(t, "rm", "-rf", c.dir+"/etc/hubbub") // what others have left there
	inside := func(then func()) func(string) {
		return func(line string) {
			says(t, "chroot", c.dir, "sh", "-e", "-c", "cd /root; "+line)
			then()
		}
	}
	is := func(paths ...string) func() {
		return func() {
			t.Helper()
			for _, path := range paths {
				path, not := strings.CutPrefix(path, "no ")
				if c.has(path) == not {
					t.Errorf("%s is there: %v", path, not)
				}
			}
		}
	}
	// Debian's rpm is outside of that Debian, and knows none of its packages.
	rpm := func(then func()) func(string) {
		return func(line string) {
			sh(t, dir, "rpm() { command rpm --root "+c.dir+" --dbpath /var/lib/rpm --nodeps \"$@\"; }", strings.ReplaceAll(line, "1.3.0-1", newPackage+"-1"))
			then()
		}
	}
	onHelm := func(line string) { // what Kubernetes would be given
		out, err := exec.Command("go", append([]string{"tool", "helm", "template", "--kube-version", "1.30.0"}, inRoot(strings.Fields(line)[2:])...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "kind: Deployment") {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	notRun := func(string) {}
	wants := "etc/systemd/system/multi-user.target.wants/hubbub.service"
	for i, line := range pageCommands(t) {
		steps := []struct {
			begins string
			run    func(line string)
		}{
			{"dpkg --install ", inside(func() {
				is("usr/bin/hubbub", wants)()
				c.says(t, "hubbub", "config", "--config", "/etc/hubbub/hubbub.yaml")
			})},
			{"dpkg --remove ", inside(is("no usr/bin/hubbub", "etc/hubbub/hubbub.yaml", "var/lib/hubbub"))},
			{"dpkg --purge ", inside(is("no etc/hubbub", "no var/lib/hubbub", "no "+wants))},
			{"rpm --install ", rpm(func() { is("usr/bin/hubbub")(); c.change(t) })},
			{"rpm --upgrade ", rpm(is("usr/bin/hubbub", "etc/hubbub/hubbub.yaml"))},
			{"rpm --erase ", rpm(is("no usr/bin/hubbub", "etc/hubbub/hubbub.yaml.rpmsave", "var/lib/hubbub"))},
			{"tar -xzf ", func(line string) { sh(t, dir, "", line) }},
			{"hubbub_1.2.3_linux_amd64/hubbub serve ", func(line string) { c.servesFrom(t, dir, line) }},
			{"docker build ", notRun}, // there is no engine of containers
			{"docker run ", notRun},
			{"helm install ", onHelm},
			{"helm upgrade ", notRun}, // there is no cluster, and no values.yaml of the reader's
			{"helm uninstall ", notRun},
			{"helm install ", onHelm},
		}
		if i >= len(steps) || !strings.HasPrefix(line, steps[i].begins) {
			t.Fatalf("nobody runs %q, or it is in another place than here", line)
		}
		steps[i].run(line)
		if i == len(steps)-1 {
			return
		}
	}
	t.Error("the page has fewer commands than here")
}

// inRoot has the paths of a command be of the folder of Hubbub.
func inRoot(args []string) (all []string) {
	for _, a := range args {
		if strings.HasPrefix(a, "deploy/") {
			a = filepath.Join(abs(root), a)
		}
		all = append(all, a)
	}
	return all
}

// servesFrom runs a server by a line of the page, at the test's address, until it is ready.
func (c *chroot) servesFrom(t *testing.T, dir, line string) {
	t.Helper()
	cmd := exec.Command("bash", "-c", "exec "+line)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HUBBUB_LISTEN="+c.addr)
	log, ended := begin(t, cmd)
	eventually(t, "the server is ready", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("it ends: %v\n%s", err, log())
		default:
		}
		return exec.Command(filepath.Join(dir, strings.Fields(line)[0]), "health", "--ready", "--url", "http://"+c.addr).Run() == nil
	})
	cmd.Process.Signal(os.Interrupt)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it stops: %v\n%s", err, log())
		}
	case <-time.After(patience):
		t.Errorf("it doesn't stop:\n%s", log())
	}
}
