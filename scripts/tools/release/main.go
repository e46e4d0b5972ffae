// Command release builds what people download, the same bytes from the same source wherever and whenever it runs: for
// each system an archive with the program, its manual, completions and settings; for Linux a deb and an rpm too; for
// each program a list of what is in it (an SBOM, CycloneDX); and the checksums of all.
//
// It runs in the folder of Hubbub: go -C scripts/tools run ./release -root "$PWD" -out "$PWD/dist".
package main

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// release is one run's.
type release struct {
	root, out, stage string
	version          string // without a v
	at               time.Time
}

// everything is what make release builds for.
const everything = "linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64"

func main() {
	log.SetFlags(0)
	log.SetPrefix("release: ")
	var r release
	flag.StringVar(&r.root, "root", ".", "the folder of Hubbub")
	flag.StringVar(&r.out, "out", "dist", "where to; made anew")
	flag.StringVar(&r.version, "version", "", "1.2.3, or v1.2.3; by git describe where it is empty")
	targets := flag.String("targets", everything, "systems to build for, with blanks between")
	flag.Parse()
	if err := r.run(strings.Fields(*targets)); err != nil {
		log.Fatal(err)
	}
}

func (r *release) run(targets []string) (err error) {
	if r.root, err = filepath.Abs(r.root); err != nil {
		return err
	}
	if r.version == "" {
		r.version = r.describe()
	}
	r.version = strings.TrimPrefix(r.version, "v")
	if r.at, err = r.when(); err != nil {
		return err
	}
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	if r.stage, err = os.MkdirTemp("", "hubbub-release-"); err != nil {
		return err
	}
	defer os.RemoveAll(r.stage)
	if err := r.pages(); err != nil {
		return err
	}
	for _, t := range targets {
		goos, goarch, ok := strings.Cut(t, "/")
		if !ok {
			return fmt.Errorf("%s: linux/amd64 is wanted, or the like", t)
		}
		if err := r.build(goos, goarch); err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
	}
	return r.checksums()
}

// describe is the tag of the commit, 1.2.3, or what git describe makes of those before, 1.2.3-4-gabcdef.
func (r *release) describe() string {
	if out, err := r.git("describe", "--tags", "--match", "v[0-9]*"); err == nil {
		return out
	}
	count, _ := r.git("rev-list", "--count", "HEAD")
	hash, err := r.git("rev-parse", "--short=12", "HEAD")
	if err != nil {
		return "0.0.0"
	}
	return "0.0.0-" + count + "-g" + hash
}

func (r *release) git(args ...string) (string, error) {
	out, err := exec.Command("git", append([]string{"-C", r.root}, args...)...).Output()
	return strings.TrimSpace(string(out)), err
}

// when is the time of all files: SOURCE_DATE_EPOCH, or that of the commit.
func (r *release) when() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		var err error
		if text, err = r.git("log", "-1", "--format=%ct"); err != nil {
			return time.Time{}, fmt.Errorf("no commit, and no SOURCE_DATE_EPOCH: %w", err)
		}
	}
	var seconds int64
	if _, err := fmt.Sscan(text, &seconds); err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%s: %w", text, err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// program builds hubbub for a system; the one for this system is built once. What depends on the folder, the machine or the
// clock is left out of it.
func (r *release) program(goos, goarch, to string) error {
	if own := r.own(); goos == runtime.GOOS && goarch == runtime.GOARCH && to != own {
		b, err := os.ReadFile(own)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o755)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid= -X example.com/hubbub.version="+r.version, "-o", to, "./cmd/hubbub")
	cmd.Dir = r.root
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0", "GOFLAGS=", "GOAMD64=v1", "GOARM64=v8.0", "GOWORK=off")
	return run(cmd)
}

// own is where the program for this system is, once pages has run.
func (r *release) own() string { return filepath.Join(r.stage, "own") }

// pages makes what is the same for all systems, by a program for this one.
func (r *release) pages() error {
	own := r.own()
	if err := r.program(runtime.GOOS, runtime.GOARCH, own); err != nil {
		return err
	}
	for name, args := range map[string]string{
		"hubbub.1": "man", "hubbub.bash": "completion bash", "_hubbub": "completion zsh", "hubbub.fish": "completion fish", "hubbub.yaml": "config --commented",
	} {
		cmd := exec.Command(own, strings.Fields(args)...)
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "HUBBUB_") }) // which are settings
		cmd.Stderr = os.Stderr
		text, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("hubbub %s: %w", args, err)
		}
		if err := os.WriteFile(filepath.Join(r.stage, name), text, 0o644); err != nil {
			return err
		}
	}
	if err := r.changelogs(); err != nil {
		return err
	}
	for _, name := range []string{"hubbub.1", "changelog", "changelog.Debian"} {
		if err := compress(filepath.Join(r.stage, name)); err != nil {
			return err
		}
	}
	return nil
}

// changelogs are what Debian wants of a package: that of the program, and that of its packaging, which is made anew with
// each version and refers to the other.
func (r *release) changelogs() error {
	text, err := os.ReadFile(filepath.Join(r.root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.stage, "changelog"), text, 0o644); err != nil {
		return err
	}
	entry := fmt.Sprintf("hubbub (%s-1) unstable; urgency=medium\n\n  * Hubbub %s; what is new in it is told in changelog.gz.\n\n -- Hubbub <hubbub@example.com>  %s\n",
		packageVersion(r.version), r.version, r.at.Format(time.RFC1123Z))
	return os.WriteFile(filepath.Join(r.stage, "changelog.Debian"), []byte(entry), 0o644)
}

// build makes all of one system.
func (r *release) build(goos, goarch string) error {
	name := "hubbub"
	if goos == "windows" {
		name = "hubbub.exe"
	}
	program := filepath.Join(r.stage, name)
	if err := r.program(goos, goarch, program); err != nil {
		return err
	}
	parts, err := sbom(program, r.version, r.at)
	if err != nil {
		return err
	}
	base := fmt.Sprintf("hubbub_%s_%s_%s", r.version, goos, goarch)
	for _, to := range []string{filepath.Join(r.stage, "sbom.cdx.json"), filepath.Join(r.out, base+".cdx.json")} {
		if err := os.WriteFile(to, parts, 0o644); err != nil {
			return err
		}
	}
	files := []entry{
		{base + "/" + name, program, 0o755},
		{base + "/hubbub.yaml", filepath.Join(r.stage, "hubbub.yaml"), 0o644},
		{base + "/LICENSE", filepath.Join(r.root, "LICENSE"), 0o644},
		{base + "/README.md", filepath.Join(r.root, "README.md"), 0o644},
		{base + "/CHANGELOG.md", filepath.Join(r.root, "CHANGELOG.md"), 0o644},
		{base + "/sbom.cdx.json", filepath.Join(r.stage, "sbom.cdx.json"), 0o644},
		{base + "/man/hubbub.1", filepath.Join(r.stage, "hubbub.1"), 0o644},
		{base + "/completions/hubbub.bash", filepath.Join(r.stage, "hubbub.bash"), 0o644},
		{base + "/completions/_hubbub", filepath.Join(r.stage, "_hubbub"), 0o644},
		{base + "/completions/hubbub.fish", filepath.Join(r.stage, "hubbub.fish"), 0o644},
	}
	if goos == "windows" {
		return zipped(filepath.Join(r.out, base+".zip"), files, r.at)
	}
	if err := tarball(filepath.Join(r.out, base+".tar.gz"), files, r.at); err != nil || goos != "linux" {
		return err
	}
	for _, kind := range []string{"deb", "rpm"} {
		if err := r.pack(kind, goarch); err != nil {
			return err
		}
	}
	return nil
}

// commitsAfter is what git describe puts behind the newest tag.
var commitsAfter = regexp.MustCompile(`-(\d+)-g([0-9a-f]+)$`)

// packageVersion is the version as dpkg and rpm order them: what comes after a tag above it, a candidate below.
func packageVersion(version string) string {
	version = commitsAfter.ReplaceAllString(version, "+$1.g$2")
	return strings.ReplaceAll(version, "-", "~")
}

// pack makes a deb or an rpm of what is staged.
func (r *release) pack(kind, goarch string) error {
	out, err := filepath.Abs(r.out)
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "tool", "-modfile", filepath.Join(r.root, "scripts", "tools", "go.mod"), "nfpm", "package", "-f", "deploy/package/nfpm.yaml", "-p", kind, "-t", out)
	cmd.Dir = r.root
	cmd.Env = append(os.Environ(), "PACKAGE_ARCH="+goarch, "PACKAGE_VERSION="+packageVersion(r.version), "PACKAGE_STAGE="+r.stage,
		fmt.Sprint("SOURCE_DATE_EPOCH=", r.at.Unix()))
	return run(cmd)
}

// checksums are what sha256sum -c checks.
func (r *release) checksums() error {
	all, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, f := range all {
		b, err := os.ReadFile(filepath.Join(r.out, f.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(b), f.Name())
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(text.String()), 0o644)
}

// run runs a command whose output is of use only when it fails.
func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}
