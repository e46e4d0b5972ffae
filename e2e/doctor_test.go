package e2e

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// finding is one of hubbub doctor --json.
type finding struct{ Check, Level, Found, Change, Sent string }

// examine runs hubbub doctor, and gives what it found. The exit status says whether a fault is among it.
func examine(t *testing.T, env []string, args ...string) []finding {
	t.Helper()
	// What it says of the error stands on the standard error.
	cmd := exec.CommandContext(t.Context(), program, append([]string{"doctor", "--json", "--limit", "2m"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	var report struct {
		Faults   int
		Findings []finding
	}
	if json.Unmarshal(out, &report) != nil || len(report.Findings) == 0 {
		t.Fatalf("hubbub doctor %v: %v: %s", args, err, out)
	}
	faults := 0
	for _, f := range report.Findings {
		if f.Level == "fault" {
			faults++
		}
	}
	if faults != report.Faults || (faults > 0) != (cmd.ProcessState.ExitCode() == 1) {
		t.Errorf("%d faults, %d are counted, exit status %d", faults, report.Faults, cmd.ProcessState.ExitCode())
	}
	return report.Findings
}

// found looks for a finding of a check and a level with each of the words.
func found(t *testing.T, all []finding, check, level string, words ...string) {
	t.Helper()
	if !slices.ContainsFunc(all, func(f finding) bool {
		if f.Check != check || f.Level != level {
			return false
		}
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(f.Found+f.Change, w) })
	}) {
		t.Errorf("%s: no %s with %q in %+v", check, level, words, all)
	}
}

const doctorsKey = "hub_DOCTORDOCTORDOCTORDOCTOR"

// What a proxy does wrong, by real ones: what it takes away, whom it says its clients are, and when it cuts them off.
func TestDoctorBehindProxies(t *testing.T) {
	t.Parallel()
	key := []string{"HUBBUB_API_KEY=" + doctorsKey}
	for name, tt := range map[string]struct {
		language string
		change   []string
		flags    []string // of the server
		args     []string // of the doctor
		check    string
		level    string
		says     []string
	}{
		"nginx as it should be":        {"nginx", nil, nil, nil, "public address", "ok", []string{"a message is back"}},
		"and it tells its clients":     {"nginx", nil, nil, nil, "client addresses", "ok", []string{"its own address"}},
		"haproxy as it should be":      {"haproxy", nil, nil, nil, "public address", "ok", []string{"a message is back"}},
		"a certificate nobody trusts":  {"nginx", nil, nil, nil, "certificate of ", "warning", []string{"signs itself"}},
		"nginx without Upgrade":        {"nginx", []string{"        proxy_set_header Upgrade $http_upgrade;\n", ""}, nil, nil, "public address", "fault", []string{"proxy_set_header Upgrade $http_upgrade"}},
		"nginx without Host":           {"nginx", []string{"        proxy_set_header Host $http_host;\n", ""}, nil, nil, "public address", "fault", []string{"proxy_set_header Host $http_host"}},
		"nginx that cuts":              {"nginx", []string{"proxy_read_timeout 75s", "proxy_read_timeout 1s"}, nil, []string{"--idle", "1m"}, "idle connections", "fault", []string{"proxy_read_timeout", "25s"}},
		"nginx that waits":             {"nginx", nil, nil, []string{"--idle", "2s"}, "idle connections", "ok", []string{"still open"}},
		"a proxy that isn't trusted":   {"nginx", nil, []string{"--trusted-proxies", "192.0.2.1"}, nil, "client addresses", "warning", []string{"--trusted-proxies 127.0.0.1"}},
		"clients that are believed":    {"nginx", []string{"X-Forwarded-For $proxy_add_x_forwarded_for", "X-Forwarded-For $http_x_forwarded_for"}, nil, nil, "client addresses", "fault", []string{"$proxy_add_x_forwarded_for"}},
		"a proxy without a server":     {"nginx", []string{"127.0.0.1:8080", "127.0.0.1:1"}, nil, nil, "public address", "fault", []string{"doesn't reach the server"}},
		"a prefix that isn't stripped": {"nginx", []string{"location / ", "location /live/ "}, nil, []string{"/live"}, "public address", "fault", []string{"--base-path"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &server{addr: freeAddr(t), exited: make(chan struct{})}
			flags := tt.flags
			if flags == nil {
				flags = []string{"--trusted-proxies", "127.0.0.1"}
			}
			settings := append([]string{"--listen", s.addr}, flags...)
			s.cmd = exec.Command(program, append([]string{"serve"}, settings...)...)
			s.cmd.Env = append(os.Environ(), key...)
			s.run(t)
			f := deploy(t, tt.language, "TLS here, all paths", s.addr, tt.change...)
			public, args := "https://"+f.name, tt.args
			if len(args) == 1 { // a path
				public, args = public+args[0], nil
			}
			if tt.check == "certificate of " {
				tt.check += f.name
			}
			found(t, examine(t, key, slices.Concat(settings, args, []string{"--public-url", public})...), tt.check, tt.level, tt.says...)
			if log := s.log.String(); strings.Contains(log, "panic") {
				t.Error(log)
			}
		})
	}
}

// What runs already, what doesn't, and who has the port.
func TestDoctorLooksAtTheServer(t *testing.T) {
	t.Parallel()
	s := &server{addr: freeAddr(t), exited: make(chan struct{})}
	s.cmd = exec.Command(program, "serve", "--listen", s.addr)
	s.cmd.Env = append(os.Environ(), "HUBBUB_API_KEY="+doctorsKey)
	s.run(t)
	all := examine(t, []string{"HUBBUB_API_KEY=" + doctorsKey}, "--listen", s.addr)
	found(t, all, "port --listen", "ok", "hubbub, process")
	found(t, all, "server", "ok", "is ready")
	found(t, all, "server figures", "ok", "0 connections")
	found(t, all, "settings", "ok")
	found(t, examine(t, []string{"HUBBUB_API_KEY=hub_WRONGWRONGWRONGWRONG"}, "--listen", s.addr), "server figures", "fault", "401", "HUBBUB_API_KEY")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			nc.Close()
		}
	}()
	found(t, examine(t, nil, "--listen", l.Addr().String()), "port --listen", "fault", "e2e.test, process", "listens at "+l.Addr().String()+" already")
	free, nobody := freeAddr(t), freeAddr(t)
	found(t, examine(t, nil, "--listen", free), "server", "ok", "none runs at http://"+free)
	found(t, examine(t, nil, "--listen", free, "--url", "http://"+nobody), "server", "fault", "nobody listens at http://"+nobody, "--url")
	all = examine(t, nil, "--listen", free, "--max-connections", "900000000", "--join", nobody)
	found(t, all, "port --listen", "ok", "is free")
	found(t, all, "descriptors", "fault", "LimitNOFILE=")
	found(t, all, "settings", "fault", "cluster-secret")
	found(t, all, "store "+nobody, "fault", "refused")

	// A full disk belongs to whom it may.
	disk := smallDisk(t)
	fill(t, disk)
	all = examine(t, nil, "--listen", free, "--data-dir", disk)
	found(t, all, "disk space", "fault", "make room")
	found(t, all, "data folder", "fault", "no space left", "the disk is full: make room")

	// For a person: what is wrong stands last, and without a terminal there is no color.
	out, status := hubbub(t, nil, "doctor", "--listen", free, "--max-connections", "900000000")
	if status != 1 || strings.Contains(out, "\x1b") || !strings.Contains(out, "change: ") || strings.LastIndex(out, "ok  ") > strings.Index(out, "fault ") {
		t.Errorf("exit status %d\n%s", status, out)
	}
}
