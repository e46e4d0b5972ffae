package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// From a public path go install would do: here a folder is the proxy that has the module, as Go zips it, and the modules that
// it needs are those of this machine.
func TestGoInstall(t *testing.T) {
	m := module.Version{Path: "example.com/hubbub", Version: "v" + oldVersion}
	source, proxy, bin := copied(t), t.TempDir(), t.TempDir()
	at := filepath.Join(proxy, m.Path, "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(at, m.Version+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := zip.CreateFromDir(f, m, source); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"list": m.Version + "\n", m.Version + ".info": `{"Version":"` + m.Version + `","Time":"2025-06-15T15:06:40Z"}`, m.Version + ".mod": read(t, source, "go.mod"),
	} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cache := strings.TrimSpace(says(t, "go", "env", "GOMODCACHE"))
	cmd := exec.Command("go", "install", m.Path+"/cmd/hubbub@latest")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "GOPROXY=file://"+proxy+",file://"+cache+"/cache/download", "GOSUMDB=off", "GOMODCACHE="+t.TempDir(), "GOBIN="+bin,
		"GOFLAGS=-modcacherw -trimpath", "GOWORK=off", "GOTOOLCHAIN=local", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out := says(t, filepath.Join(bin, "hubbub"), "version"); !strings.HasPrefix(out, "hubbub "+m.Version+" ") {
		t.Errorf("its version is %s", out)
	}
	says(t, filepath.Join(bin, "hubbub"), "config")
}
