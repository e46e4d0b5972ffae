package packages

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// copied is the source in another folder: all that git has, or would take.
func copied(t *testing.T) string {
	t.Helper()
	elsewhere := t.TempDir()
	files := strings.Fields(says(t, "git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard"))
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(root, f))
		if os.IsNotExist(err) {
			continue // removed, and not committed yet
		} else if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(root, f))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(elsewhere, f)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	return elsewhere
}

// Another folder, the same bytes: of the archives, the packages, the lists of parts and the checksums.
func TestTheSameBytesTwice(t *testing.T) {
	elsewhere := copied(t)
	again := t.TempDir()
	if out, err := release(elsewhere, again, newVersion, newTargets).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	all, err := os.ReadDir(dists.new)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if !same(t, filepath.Join(dists.new, f.Name()), filepath.Join(again, f.Name())) {
			t.Errorf("%s is another one", f.Name())
		}
	}
	if len(all) != 11 { // three archives, three lists of parts, two debs, two rpms, checksums
		t.Errorf("there are %v", all)
	}
}

func TestTheArchives(t *testing.T) {
	check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = dists.new
	if out, err := check.CombinedOutput(); err != nil || strings.Count(string(out), ": OK") != 10 {
		t.Errorf("%v\n%s", err, out)
	}
	base := "hubbub_" + newVersion + "_linux_amd64"
	dir := t.TempDir()
	says(t, "tar", "-C", dir, "-xzf", filepath.Join(dists.new, base+".tar.gz"))
	program := filepath.Join(dir, base, "hubbub")
	if out := says(t, program, "version"); !strings.HasPrefix(out, "hubbub "+newVersion+" go1.") {
		t.Errorf("its version is %s", out)
	}
	for _, f := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		if !same(t, filepath.Join(dir, base, f), filepath.Join(root, f)) {
			t.Errorf("%s is another one", f)
		}
	}
	says(t, program, "config", "--config", filepath.Join(dir, base, "hubbub.yaml"))
	if out := says(t, "man", "--warnings", "-l", filepath.Join(dir, base, "man/hubbub.1")); !strings.Contains(out, "hubbub serve") || strings.Contains(out, "warning:") {
		t.Errorf("the manual: %.500s", out)
	}
	if out := says(t, "unzip", "-Z1", filepath.Join(dists.new, "hubbub_"+newVersion+"_windows_amd64.zip")); !strings.Contains(out, "/hubbub.exe\n") || !strings.Contains(out, "/LICENSE\n") {
		t.Errorf("the one for Windows has %s", out)
	}
	theParts(t, program, filepath.Join(dir, base, "sbom.cdx.json"))
}

// The settings that are packaged are those that the packaged program prints, byte by byte.
func TestThePackagedSettings(t *testing.T) {
	print := exec.Command(program(t), "config", "--commented")
	print.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "HUBBUB_") }) // which are settings
	want, err := print.Output()
	if err != nil || !strings.Contains(string(want), "\n#listen: :8080\n") {
		t.Fatalf("%v\n%s", err, want)
	}
	base := "hubbub_" + newVersion
	for what, command := range map[string]string{
		"the archive": "tar -xzOf " + filepath.Join(dists.new, base+"_linux_amd64.tar.gz") + " " + base + "_linux_amd64/hubbub.yaml",
		"the deb":     "dpkg-deb --fsys-tarfile " + one(t, dists.new+"/*_amd64.deb") + " | tar -xO ./etc/hubbub/hubbub.yaml",
		"the rpm":     "cd " + t.TempDir() + " && rpm2archive - <" + one(t, dists.new+"/*.x86_64.rpm") + " | tar -xzO ./etc/hubbub/hubbub.yaml",
	} {
		if got, err := exec.Command("sh", "-c", command).Output(); err != nil || string(got) != string(want) {
			t.Errorf("%s: %v, it has\n%s", what, err, got)
		}
	}
}

// theParts holds the list against what go version -m reads out of the program.
func theParts(t *testing.T, program, list string) {
	t.Helper()
	var b struct {
		BomFormat, SpecVersion string
		Components             []struct{ Name, Version, Purl string }
	}
	if err := json.Unmarshal([]byte(read(t, list)), &b); err != nil {
		t.Fatal(err)
	}
	var listed, want []string
	for _, c := range b.Components {
		if c.Purl != "pkg:golang/"+c.Name+"@"+c.Version {
			t.Errorf("%+v", c)
		}
		if c.Name != "std" {
			listed = append(listed, c.Name+" "+c.Version)
		}
	}
	for line := range strings.Lines(says(t, "go", "version", "-m", program)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "dep" {
			want = append(want, f[1]+" "+f[2])
		}
	}
	if b.BomFormat != "CycloneDX" || b.SpecVersion != "1.5" || len(want) < 10 || !slices.Equal(listed, want) {
		t.Errorf("%s %s lists\n%s\nand in the program are\n%s", b.BomFormat, b.SpecVersion, strings.Join(listed, "\n"), strings.Join(want, "\n"))
	}
}

// What Debian's own checker finds is mended, or stands in deploy/package/deb/lintian-overrides with the reason.
func TestLintian(t *testing.T) {
	for _, deb := range []string{one(t, dists.old+"/*_amd64.deb"), one(t, dists.new+"/*_arm64.deb")} {
		if out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error,warning", deb).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", deb, err, out)
		}
	}
	for field, want := range map[string]string{"Version": newPackage + "-1", "Date": "Sun, 15 Jun 2025 15:06:40 +0000"} {
		log := filepath.Join(t.TempDir(), "changelog.Debian.gz")
		says(t, "sh", "-c", "dpkg-deb --fsys-tarfile "+one(t, dists.new+"/*_amd64.deb")+" | tar -xO ./usr/share/doc/hubbub/changelog.Debian.gz >"+log)
		if got := strings.TrimSpace(says(t, "sh", "-c", "zcat "+log+" | dpkg-parsechangelog --file - --show-field "+field)); got != want {
			t.Errorf("the changelog's %s is %s, want %s", field, got, want)
		}
	}
}

// The three shells complete commands, flags and their values by what is packaged.
func TestCompletion(t *testing.T) {
	dir := t.TempDir()
	base := "hubbub_" + newVersion + "_linux_amd64"
	says(t, "tar", "-C", dir, "-xzf", filepath.Join(dists.new, base+".tar.gz"))
	at := filepath.Join(dir, base, "completions")
	bash := `source "$0/hubbub.bash"; t() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _hubbub; echo "${COMPREPLY[@]}"; }; t `
	fish := `source "$argv[1]/hubbub.fish"; complete -C`
	zsh := `autoload -Uz compinit; compinit -u -d "$0.dump"; compadd() { shift ${@[(i)--]}; print -- "$@"; }; _describe() { print -- ${(P)${@[-1]}}; }; source "$0/_hubbub"; t() { words=("$@"); CURRENT=$#; _hubbub; }; t `
	for _, c := range []struct {
		typed []string
		want  []string
	}{
		{[]string{"hubbub", ""}, []string{"serve", "config", "cluster"}},
		{[]string{"hubbub", "cluster", ""}, []string{"init"}},
		{[]string{"hubbub", "serve", "--max-conn"}, []string{"--max-connections", "--max-connections-per-ip"}},
		{[]string{"hubbub", "serve", "--log-level", ""}, []string{"debug", "error"}},
		{[]string{"hubbub", "--version", "completion", ""}, []string{"bash", "fish"}},
	} {
		words := ""
		for _, w := range c.typed {
			words += " '" + w + "'"
		}
		for shell, script := range map[string][]string{
			"bash": {"-c", bash + words, at},
			"zsh":  {"-fc", zsh + words, at},
			"fish": {"-c", fish + "'" + strings.Join(c.typed, " ") + "'", at},
		} {
			out, err := exec.Command(shell, script...).CombinedOutput()
			for _, want := range c.want {
				if err != nil || !strings.Contains(string(out), want) {
					t.Errorf("%s: %q: %v, no %s in %s", shell, c.typed, err, want, out)
					break
				}
			}
		}
	}
}
