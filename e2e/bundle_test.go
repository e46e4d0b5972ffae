package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"example.com/hubbub/internal/wsclient"
)

// unpack gives the files of a bundle; what is packed itself unpacked too.
func unpack(t *testing.T, name string) map[string]string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for in := tar.NewReader(zip); ; {
		head, err := in.Next()
		if err == io.EOF {
			return files
		} else if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(head.Name, ".gz") {
			if packed, err := gzip.NewReader(bytes.NewReader(b)); err == nil {
				if b, err = io.ReadAll(packed); err != nil {
					t.Fatal(err)
				}
			}
		}
		files[path.Base(head.Name)] = string(b)
	}
}

// Each setting that is a secret has one here, and each address a user, a password, a path and a query; all of them have
// PLANTED in them, or come from it.
func TestABundleHasNoSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secretFile := dir + "/jwt"
	write(t, secretFile, "PLANTED-jwt-0123456789abcdef0123456789")
	webhook := "whsec_UExBTlRFRC13ZWJob29rLTAxMjM0NTY3ODlhYmNkZWY=" // base64 of PLANTED-webhook-…
	s := &server{addr: freeAddr(t), exited: make(chan struct{})}
	admin := freeAddr(t)
	config := configFile(t, "listen: "+s.addr+"\nadmin-listen: "+admin+`
webhook-url: http://127.0.0.1:1/PLANTEDpath?token=PLANTEDquery
hook-url: http://127.0.0.1:1/PLANTEDask?token=PLANTEDquery
hook-events: [join]
jwt-key: "@`+secretFile+`"
anonymous: on
shutdown-timeout: 1s
`)
	env := append(os.Environ(), "HUBBUB_API_KEY=hub_PLANTEDPLANTEDPLANTED", "HUBBUB_WEBHOOK_SECRET="+webhook)
	s.cmd = exec.Command(program, "serve", "--config", config)
	s.cmd.Env = env
	s.run(t)
	// Names, contents and tokens pass through the server, and some into its log.
	c := dialRaw(t, s, "/ws", "")
	c.message("welcome")
	c.write(text(`{"msg_type":"join_room","room":"NAMEDroom","id":1}`))
	c.message("error") // the backend can't be asked, and the log says so
	_, _ = hubbub(t, nil, "sub", "--url", "http://"+s.addr, "--token", "eyJhbGciOiJIUzI1NiJ9.PLANTEDtoken.PLANTEDsignature", "NAMEDroom")
	s.says(t, "upgrade refused")
	stranger := connect(t, s)
	stranger.write(wsclient.Upgrade(s.addr, "/ws", "Origin: https://namedorigin.example"))
	if r := stranger.response("GET"); r.StatusCode != http.StatusForbidden {
		t.Errorf("a page of elsewhere is answered %s", r.Status)
	}
	s.says(t, "pages of https://namedorigin.example")
	lost := connect(t, s)
	lost.write(wsclient.Upgrade(s.addr, "/NAMED_path/ws"))
	if r := lost.response("GET"); r.StatusCode != http.StatusNotFound {
		t.Errorf("another path is answered %s", r.Status)
	}
	s.says(t, "--base-path=/NAMED_path")

	for _, names := range []bool{false, true} {
		out := filepath.Join(dir, "bundle.tar.gz")
		if names {
			out = filepath.Join(dir, "named.tar.gz")
		}
		args := []string{"bundle", "--config", config, "--output", out}
		if names {
			args = append(args, "--with-names")
		}
		cmd := exec.Command(program, args...)
		cmd.Env = env
		listed, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, listed)
		}
		if is, err := os.Stat(out); err != nil || is.Mode().Perm() != 0o600 {
			t.Errorf("others may read it: %v, %v", is, err)
		}
		files := unpack(t, out)
		for _, name := range []string{"README.txt", "settings.yaml", "version.txt", "doctor.json", "system.txt", "readyz.json", "metrics.txt", "info.json", "nodes.json", "goroutines.txt", "heap.pb.gz", "log.txt"} {
			if files[name] == "" {
				t.Errorf("%s is missing; it says\n%s", name, listed)
			}
			if !strings.Contains(string(listed), name) {
				t.Errorf("%s isn't named in\n%s", name, listed)
			}
		}
		for name, text := range files {
			for _, secret := range []string{"PLANTED", "UExBTlRFRC13ZWJob29r"} {
				if at := strings.Index(text, secret); at >= 0 {
					t.Errorf("%s has %s: ...%q", name, secret, text[max(0, at-80):min(len(text), at+80)])
				}
			}
			if at := strings.Index(text, "NAMED"); at >= 0 && !names {
				t.Errorf("%s has a name: ...%q", name, text[max(0, at-80):min(len(text), at+80)])
			}
		}
		if strings.Contains(files["log.txt"], "https://namedorigin.example") != names || !strings.Contains(files["README.txt"], "Of clients there are no names") {
			t.Errorf("with names: %v, and the origin is in the log or not:\n%s\n%s", names, files["log.txt"], files["README.txt"])
		}
		if strings.Contains(string(listed), "PLANTED") {
			t.Errorf("it says a secret:\n%s", listed)
		}
		if !strings.Contains(files["log.txt"], "hubbub listens") || !strings.Contains(files["settings.yaml"], "\nanonymous: ") || !strings.Contains(files["goroutines.txt"], "goroutine ") {
			t.Errorf("the log is\n%s\nthe settings are\n%s", files["log.txt"], files["settings.yaml"])
		}
		again := exec.Command(program, args...)
		again.Env = env
		if out, err := again.CombinedOutput(); err == nil || !strings.Contains(string(out), "--output") {
			t.Errorf("a file that is there is written over: %s", out)
		}
	}

	// Of a server that doesn't run any more there is what is left.
	if status := s.stop(t, os.Interrupt); status != 0 {
		t.Errorf("exit status %d", status)
	}
	write(t, dir+"/log", "time=t level=INFO msg=first user=NAMED\n"+strings.Repeat("x", 300<<10)+"\ntime=t level=ERROR msg=last password=PLANTED\n")
	out := filepath.Join(dir, "left.tar.gz")
	cmd := exec.Command(program, "bundle", "--config", config, "--log", dir+"/log", "-o", out)
	cmd.Env = env
	if listed, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(listed), "missing: metrics.txt") {
		t.Errorf("%v: %s", err, listed)
	}
	if log := unpack(t, out)["log.txt"]; !strings.Contains(log, "msg=last") || strings.Contains(log, "first") || strings.Contains(log, "PLANTED") {
		t.Errorf("the log's end is %q", log)
	}
}

// What is a secret only in some values of a setting, or stands in an address, doesn't come out either; nor where the
// settings can't be used, in the words that say why.
func TestABundleOfSettingsThatServeRefuses(t *testing.T) {
	t.Parallel()
	for _, env := range [][]string{
		{"HUBBUB_NATS=nats://PLANTEDuser:PLANTEDpass@127.0.0.1:1", "HUBBUB_JWT_JWKS=https://127.0.0.1:1/PLANTEDkeys?x=PLANTEDquery", "HUBBUB_JWT_AUDIENCE=a"},
		{"HUBBUB_NATS=nats://PLANTEDtoken@127.0.0.1:1", "HUBBUB_CLUSTER_SECRET=PLANTED-cluster-secret", "HUBBUB_JWT_KEY=PLANTED-jwt-0123456789abcdef0123456789"},
		{"HUBBUB_WEBHOOK_URL=http://PLANTEDuser:PLANTEDpass@127.0.0.1:1/", "HUBBUB_HOOK_URL=PLANTED:nonsense", "HUBBUB_WEBHOOK_SECRET=PLANTED-is-no-whsec"},
	} {
		out := filepath.Join(t.TempDir(), "b.tar.gz")
		listed, status := hubbub(t, append(env, "HUBBUB_API_KEY=hub_PLANTEDPLANTEDPLANTED"), "bundle", "--listen", freeAddr(t), "--output", out)
		if status != 0 || strings.Contains(listed, "PLANTED") {
			t.Fatalf("exit status %d: %s", status, listed)
		}
		for name, text := range unpack(t, out) {
			if at := strings.Index(text, "PLANTED"); at >= 0 {
				t.Errorf("%s has a secret of %v: ...%q", name, env, text[max(0, at-80):min(len(text), at+80)])
			}
		}
	}
}

// What it is called doesn't keep tar from unpacking it beside itself.
func TestABundleUnpacksBesideItself(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a.tar.gz", "b.tgz", "c"} {
		if out, status := hubbub(t, nil, "bundle", "--listen", freeAddr(t), "--output", filepath.Join(dir, name)); status != 0 {
			t.Fatalf("exit status %d: %s", status, out)
		}
		tar := exec.Command("tar", "-xzf", name)
		tar.Dir = dir
		if out, err := tar.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}
