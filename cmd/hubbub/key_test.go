package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestAKeyThatIsMadeIsTaken(t *testing.T) {
	out, err := printed(t, "key", "--name", `the "shop"`, "--allow", "publish,read")
	if err != nil {
		t.Fatal(err)
	}
	first, file, _ := strings.Cut(out, "\n\n")
	secret, ok := strings.CutPrefix(first, "Authorization: Bearer ")
	if !ok || strings.Contains(file, secret) {
		t.Fatal(out)
	}
	c, _, err := parse(t, nil, "serve", "--config", write(t, file))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(secret))
	keys := c.config(nil).APIKeys
	if len(keys) != 1 || keys[0].Name != `the "shop"` || keys[0].SHA256 != hex.EncodeToString(digest[:]) || !reflect.DeepEqual(keys[0].Allow, []string{"publish", "read"}) {
		t.Errorf("%+v", keys)
	}
	for _, bad := range [][]string{{"key", "--name", strings.Repeat("x", 65)}, {"key", "--allow", "write"}, {"key", "--name="}} {
		if out, err := printed(t, bad...); err == nil || out != "" || !strings.Contains(err.Error(), "--") {
			t.Errorf("%q: %s, %v", bad, out, err)
		}
	}
}

// What hubbub config prints of keys is a file again, and no key is in it.
func TestConfigPrintsNoKey(t *testing.T) {
	const secret = "a-key-that-nobody-sees"
	file := write(t, "rooms: [{match: r}]\napi-keys:\n  - {name: a, sha256: "+strings.Repeat("ab", 32)+", allow: [read, tail]}\n  - name: b\n    sha256: "+strings.Repeat("cd", 32)+"\n    allow: manage\n")
	t.Setenv("HUBBUB_API_KEY", secret)
	out, err := printed(t, "config", "--config", file, "--admin-listen", ":9000")
	if err != nil || strings.Contains(out, secret) || !strings.Contains(out, "# api-key: not shown, from the environment: HUBBUB_API_KEY\n") {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out, "  - name: \"a\" # from the file") || !strings.Contains(out, "\nadmin-listen: :9000 #") && !strings.Contains(out, "\nadmin-listen: \":9000\" #") {
		t.Error(out)
	}
	first, _, _ := parse(t, nil, "serve", "--config", file)
	again, _, err := parse(t, nil, "serve", "--config", write(t, out))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := first.config(nil), again.config(nil); len(a.APIKeys) != 3 || !reflect.DeepEqual(a.APIKeys, b.APIKeys) || len(b.Rooms) != 1 || !b.AdminApart || a.AdminApart {
		t.Errorf("%+v\n%+v", a.APIKeys, b.APIKeys)
	}
}

func TestKeySettingsThatCannotBeAreNamed(t *testing.T) {
	good := "{name: a, sha256: " + strings.Repeat("ab", 32) + ", allow: [read]}"
	for text, says := range map[string]string{
		"api-keys: secret\n":                                        "line 1: api-keys: a list of keys is wanted",
		"api-keys:\n  - " + good + "\n  - 7\n":                      "line 3: api-keys[1]: a mapping is wanted, of name, sha256 or allow",
		"api-keys:\n  - {name: a, sha256: abc, allow: [read]}\n":    "line 2: api-keys[0].sha256: it must be the 64 hexadecimal digits",
		"api-keys:\n  - " + good + "\n  - " + good + "\n":           `line 3: api-keys[1].name "a": api-keys[0] has it already`,
		"api-keys:\n  - {name: a, key: x}\n":                        "line 2: api-keys[0].key: there is no such key",
		"api-keys: []\napi-keys: []\n":                              "line 2: api-keys: stands in line 1 already",
		"api-keys:\n  - " + strings.Replace(good, "read", "all", 1): `line 2: api-keys[0].allow: "all": unknown`,
		"api-key: fifteen-letters\n":                                "line 1: api-key: it has 15 bytes; a key has 16 to 512",
		"admin-listen: nowhere\n":                                   "line 1: admin-listen nowhere",
		"api-keys:\n  - {name: api-key, sha256: " + strings.Repeat("ab", 32) + ", allow: [read]}\napi-key: long-enough-for-a-key\n": "api-key",
	} {
		_, err := printed(t, "config", "--config", write(t, text))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s\n got %v\nwant %s", text, err, says)
		}
		if err != nil && (strings.Contains(err.Error(), "fifteen-letters") || strings.Contains(err.Error(), "long-enough")) {
			t.Errorf("a key is in %v", err)
		}
	}
}

// The program itself: the API and the profiles are on the admin listener, and nowhere else.
func TestTheAdminListener(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin")
	cmd, _, _ := program(t, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--config", write(t, "# none\n"))
	cmd.Env = append(cmd.Env, "HUBBUB_API_KEY=a-key-that-is-long-enough")
	cmd.Stderr = nil
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var public, admin string
	lines := bufio.NewScanner(stderr)
	for (public == "" || admin == "") && lines.Scan() {
		if m := regexp.MustCompile(`page=(http://[^/]+)/`).FindStringSubmatch(lines.Text()); m != nil {
			public = m[1]
		}
		if m := regexp.MustCompile(`admin-listen=([0-9.:]+)`).FindStringSubmatch(lines.Text()); m != nil {
			admin = "http://" + m[1]
		}
		if strings.Contains(lines.Text(), "level=WARN") && strings.Contains(lines.Text(), "admin") {
			t.Error(lines.Text())
		}
	}
	rest := make(chan bool)
	go func() {
		defer close(rest)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "a-key-that-is") {
				t.Error(lines.Text())
			}
		}
	}()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	for url, want := range map[string]int{
		admin + "/api/v1/info": 200, admin + "/metrics": 200, admin + "/debug/pprof/": 200, admin + "/debug/pprof/heap": 200, admin + "/debug/pprof/cmdline": 404,
		public + "/api/v1/info": 404, public + "/metrics": 404, public + "/debug/pprof/": 404, public + "/healthz": 200,
	} {
		r, _ := http.NewRequest("GET", url, nil)
		r.Header.Set("Authorization", "Bearer a-key-that-is-long-enough")
		got, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got.Body.Close()
		if got.StatusCode != want {
			t.Errorf("%s: %d, want %d", url, got.StatusCode, want)
		}
	}
	cmd.Process.Signal(os.Interrupt)
	<-rest
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	for listen, want := range map[string]string{":9000": "127.0.0.1:9000", "0.0.0.0:9000": "0.0.0.0:9000", "unix:" + socket: "unix:" + socket} {
		if got := adminAddress(listen); got != want {
			t.Errorf("%s is %s", listen, got)
		}
	}
}
