package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"example.com/hubbub/internal/webhook"
)

// expect holds findings to one of a level whose text, or change, has each of the words.
func expect(t *testing.T, all []Finding, level Level, words ...string) {
	t.Helper()
	for _, f := range all {
		has := f.Level == level
		for _, w := range words {
			has = has && strings.Contains(f.Check+" "+f.Found+" "+f.Change, w)
		}
		if has {
			return
		}
	}
	t.Errorf("no %s with %q in %+v", level, words, all)
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(name, kind string, der []byte) string {
	name = filepath.Join(a.dir, name)
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return name
}

// pair is a certificate for a name, good for so long.
func (a *authority) pair(name string, from, until time.Duration) Pair {
	a.n++
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(a.n), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until)}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, _ := x509.MarshalPKCS8PrivateKey(key)
	text := big.NewInt(a.n).String()
	return Pair{"--tls-cert", a.write("cert"+text, "CERTIFICATE", der), a.write("key"+text, "PRIVATE KEY", keyDER), filepath.Join(a.dir, "ca.pem")}
}

func TestCertificates(t *testing.T) {
	a := newAuthority(t)
	good := a.pair("chat.example.com", -time.Hour, 500*time.Hour)
	look := func(p Pair) []Finding { return certificates(t.Context(), &Subject{Pairs: []Pair{p}}) }
	expect(t, look(good), OK, "good until", "chat.example.com")
	expect(t, look(a.pair("x.example", -2*time.Hour, -time.Hour)), Fault, "expired", "renew")
	expect(t, look(a.pair("x.example", time.Hour, 2*time.Hour)), Fault, "isn't valid before")
	expect(t, look(a.pair("x.example", -time.Hour, 50*time.Hour)), Warning, "in 2 days")
	other := a.pair("x.example", -time.Hour, 500*time.Hour)
	expect(t, look(Pair{"--tls-cert", good.Cert, other.Key, good.CA}), Fault, "does not match", "openssl x509 -pubkey -noout -in "+good.Cert)
	expect(t, look(Pair{"--tls-cert", "/no/such", other.Key, ""}), Fault, "/no/such")
	expect(t, look(Pair{"--tls-cert", good.Cert, good.Key, good.Key}), Fault, "no certificate can be read")
	expect(t, look(Pair{"--tls-cert", good.Cert, good.Key, ""}), Warning, "nobody whom this machine trusts", "in 20 days")
	chain := []*x509.Certificate{a.cert}
	expect(t, []Finding{judge("c", chain, "chat.example.com", nil, time.Now())}, Fault, "no name", "chat.example.com")
}

// files makes a root with these files.
func files(t *testing.T, all map[string]string) string {
	root := t.TempDir()
	for name, text := range all {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestSysctlsAndLimits(t *testing.T) {
	root := files(t, map[string]string{
		"proc/sys/net/core/somaxconn": "128\n", "proc/sys/net/ipv4/tcp_max_syn_backlog": "128\n", "proc/sys/net/ipv4/tcp_mem": "100\t200\t300\n",
		"proc/sys/net/netfilter/nf_conntrack_max": "1000\n", "proc/sys/net/netfilter/nf_conntrack_count": "950\n", "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
		"proc/self/limits": "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files     \n", "proc/sys/fs/file-max": "5000\n",
		"proc/meminfo": "MemTotal:        1048576 kB\n",
	})
	s := &Subject{Root: root, MaxConnections: 50_000, MaxBufferedBytes: 1000 << 20, TrustedProxies: []string{"127.0.0.1"}}
	all := kernel(t.Context(), s)
	expect(t, all, Warning, "net.core.somaxconn", "128", "sysctl -w net.core.somaxconn=4096")
	expect(t, all, Warning, "net.ipv4.tcp_max_syn_backlog", "sysctl")
	expect(t, all, Warning, "net.ipv4.tcp_mem", "sysctl")
	expect(t, all, Fault, "net.netfilter.nf_conntrack_max", "950 of 1000", "sysctl -w net.netfilter.nf_conntrack_max=100000")
	expect(t, all, Warning, "net.ipv4.ip_local_port_range", "28232 ports")
	all = descriptors(t.Context(), s)
	expect(t, all, Fault, "50000", "4096 files", "LimitNOFILE=51613")
	expect(t, all, Fault, "fs.file-max", "5000")
	s.MaxConnections = 4090
	expect(t, descriptors(t.Context(), s), Warning, "LimitNOFILE=4222", "--max-connections 3968")
	s.MaxConnections = 3968 // what the server takes by itself
	expect(t, descriptors(t.Context(), s), OK, "4096 files")
	expect(t, memory(t.Context(), s), Fault, "1000 MiB", "1024 MiB by the machine", "--max-buffered-bytes 256MiB")
	s.MaxBufferedBytes = 600 << 20
	expect(t, memory(t.Context(), s), Warning, "600 MiB")
	s.MaxBufferedBytes = 256 << 20
	expect(t, memory(t.Context(), s), OK, "256 MiB")
}

// A control group's limit counts before the machine's memory.
func TestTheLimitOfTheControlGroup(t *testing.T) {
	root := files(t, map[string]string{
		"proc/self/cgroup": "0::/app\n", "proc/self/mountinfo": "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "sys/fs/cgroup/app/memory.max": "268435456\n",
		"proc/meminfo": "MemTotal: 99999999 kB\n",
	})
	s := &Subject{Root: root, MaxBufferedBytes: 1 << 30}
	expect(t, memory(t.Context(), s), Fault, "256 MiB by /sys/fs/cgroup/app/memory.max", "--max-buffered-bytes 64MiB")
}

func natsServer(t *testing.T, o *natsserver.Options) string {
	o.Host, o.Port, o.NoSigs, o.NoLog, o.StoreDir = "127.0.0.1", natsserver.RANDOM_PORT, true, true, t.TempDir()
	s, err := natsserver.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(5 * time.Minute) {
		t.Fatal("NATS doesn't start")
	}
	return s.ClientURL()
}

func TestNATS(t *testing.T) {
	look := func(url string) []Finding {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		all := natsServers(ctx, &Subject{NATS: []string{url}, Limit: 5 * time.Minute})
		if len(all) == 0 || !strings.Contains(all[0].Sent, "nothing is published") {
			t.Errorf("it isn't said what was sent: %+v", all)
		}
		return all
	}
	all := look(natsServer(t, &natsserver.Options{JetStream: true}))
	if all[0].Level == Fault {
		t.Errorf("%+v", all)
	}
	expect(t, look(natsServer(t, &natsserver.Options{})), Fault, "no JetStream", "-js")
	closed := natsServer(t, &natsserver.Options{JetStream: true, Username: "u", Password: "right"})
	all = look(strings.Replace(closed, "://", "://u:wrong77@", 1))
	expect(t, all, Fault, "--nats-creds")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	all = append(all, look("nats://u:wrong77@"+l.Addr().String())...)
	expect(t, all, Fault, "look whether NATS runs there")
	for _, f := range all {
		if strings.Contains(f.Found+f.Change, "wrong77") {
			t.Errorf("the password is told: %+v", f)
		}
	}
	for version, want := range map[string]bool{"2.10.9": false, "2.11.0": true, "3.0.0": true, "1.4.1": false} {
		if newEnough(version) != want {
			t.Error(version)
		}
	}
}

// The backend gets no event: by default a question what it takes, else a request with none, well signed.
func TestBackend(t *testing.T) {
	const secret, wrong = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=", "whsec_AAAQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
	verifier, err := webhook.ParseSecrets([]string{secret})
	if err != nil {
		t.Fatal(err)
	}
	var bodies []string
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies = append(bodies, r.Method+string(body))
		switch {
		case r.URL.Path == "/broken":
			w.WriteHeader(500)
		case r.Method == http.MethodPost && verifier[0].Verify(body, r.Header) != nil:
			w.WriteHeader(401)
		}
	}))
	defer b.Close()
	look := func(send bool, secret, path string) []Finding {
		bodies = nil
		return backend(t.Context(), &Subject{Calls: []Call{{"--webhook-url", b.URL + path, true}}, Secrets: []string{secret}, Send: send})
	}
	f := look(false, secret, "/?token=secret77")
	if f[0].Level == Fault || bodies[0] != "OPTIONS" || !strings.Contains(f[0].Sent, "OPTIONS") {
		t.Errorf("%+v, and it got %q", f, bodies)
	}
	if f := look(true, secret, "/"); f[0].Level == Fault || bodies[0] != `POST{"type":"hubbub.events","node":"doctor","events":[]}` {
		t.Errorf("%+v, and it got %q", f, bodies)
	}
	expect(t, look(true, wrong, "/"), Fault, "takes no signed request", "--webhook-secret")
	expect(t, look(false, secret, "/broken"), Fault, "500")
	b.Close()
	f = look(false, secret, "/?token=secret77")
	expect(t, f, Fault, "can't be called")
	if strings.Contains(f[0].Found+f[0].Change, "secret77") {
		t.Errorf("the secret of the address is told: %+v", f)
	}
}

func TestDataFolder(t *testing.T) {
	dir := t.TempDir()
	f := dataFolder(t.Context(), &Subject{DataDir: filepath.Join(dir, "not", "yet")})
	if len(f) == 0 || f[len(f)-1].Level == Fault || !strings.Contains(f[len(f)-1].Sent, dir) || !strings.Contains(f[len(f)-1].Found, "isn't there yet, and the server makes it: in "+dir) {
		t.Errorf("%+v", f)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("it leaves %v", left)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, dataFolder(t.Context(), &Subject{DataDir: file}), Fault, "is a file")
	if f := dataFolder(t.Context(), &Subject{DataDir: dir}); strings.Contains(fmt.Sprint(f), "isn't there") {
		t.Errorf("%+v", f)
	}
	if runtime.GOOS == "linux" { // where not even root makes a folder below /proc
		f := dataFolder(t.Context(), &Subject{DataDir: "/proc/hubbub/data"})
		last := f[len(f)-1]
		expect(t, []Finding{last}, Fault, "/proc/hubbub/data isn't there yet, and the server makes it: in /proc nothing can be written", "install -d -o hubbub -m 0700 /proc/hubbub/data")
	}
}

// Whom the folder belongs to changes nothing where nobody can write.
func TestADiskThatTakesNothing(t *testing.T) {
	for err, want := range map[error]string{syscall.ENOSPC: "disk is full", syscall.EDQUOT: "raise the quota", syscall.EROFS: "read-only", syscall.EACCES: ""} {
		got := noWrite(&fs.PathError{Op: "open", Path: "/data", Err: err})
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%v: %q", err, got)
		}
	}
}

// Where somebody says that a server runs, one that doesn't is a fault; where it may be started yet, it isn't.
func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	l.Close()
	expect(t, server(t.Context(), &Subject{URL: url}), OK, "none runs at "+url)
	expect(t, server(t.Context(), &Subject{URL: url, Runs: true}), Fault, "nobody listens at "+url, "--url")
}

// A server whose program has another name than hubbub is known by that of the doctor's own; another program is named.
func TestWhoListens(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("nobody can be seen")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &Subject{Listen: l.Addr().String()} // this process has the name of the doctor's
	expect(t, port(t.Context(), s), OK, fmt.Sprint("hubbub, process ", os.Getpid(), ", listens at "))
	if folder := s.Process(); folder != fmt.Sprint("/proc/", os.Getpid()) {
		t.Errorf("the server's process is %s", folder)
	}
	if isHubbub("nginx") || !isHubbub("hubbub") {
		t.Error("it is known by another name")
	}
}

func TestTheWayToReadAndWriteIsSaid(t *testing.T) {
	for io, says := range map[string]string{"uring": "with --io uring", "auto": "would take them", "": "would take them"} {
		all := settings(t.Context(), &Subject{IO: io})
		expect(t, all, OK, says)
		if said := strings.Contains(all[0].Found, "--io"); said != (io == "uring") {
			t.Errorf("of %q it says %q", io, all[0].Found)
		}
	}
}

func TestForWhomClientsAreTaken(t *testing.T) {
	for _, tt := range []struct {
		remote string
		level  Level
		word   string
	}{
		{forged + ":0", Fault, "$proxy_add_x_forwarded_for"},
		{"127.0.0.1:4711", Warning, "--trusted-proxies 127.0.0.1"},
		{"[::ffff:10.0.0.7]:1", Warning, "--trusted-proxies 10.0.0.7"},
		{"203.0.113.9:0", OK, "by its own address"},
		{"", OK, "can't be seen"},
	} {
		expect(t, []Finding{judgeRemote("c", tt.remote, "203.0.113.9")}, tt.level, tt.word)
	}
	if got := attribute(`time=t msg="a b" remote="[::1]:0" x=1`, "remote"); got != "[::1]:0" {
		t.Error(got)
	}
	if got := attribute(`{"msg":"m","remote":"1.2.3.4:5"}`, "remote"); got != "1.2.3.4:5" {
		t.Error(got)
	}
}

// All checks run, each in its time, and their findings come in the order of their names.
func TestExamineEndsWhateverHangs(t *testing.T) {
	hangs, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and never says anything
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	address := hangs.Addr().String()
	ended := map[string]bool{}
	r := Examine(t.Context(), Subject{
		Listen: address, URL: "http://" + address, Key: "k", PublicURL: "https://" + address, NATS: []string{"nats://" + address}, Limit: 500 * time.Millisecond,
		Calls: []Call{{"--hook-url", "http://" + address, true}}, Join: []string{address}, DataDir: t.TempDir(), MaxConnections: 100,
	}, func(name string) { ended[name] = true })
	for _, name := range Names() {
		if !ended[name] {
			t.Errorf("%s hasn't ended", name)
		}
	}
	for _, check := range []string{"server", "public address", "NATS", "--hook-url"} {
		expect(t, r.Findings, Fault, check)
	}
	if r.Faults < 4 {
		t.Errorf("%d faults are counted", r.Faults)
	}
}

// A token isn't shown to who shows no certificate that a client would trust; to who needs none it is.
func TestWhoGetsTheToken(t *testing.T) {
	for want, start := range map[string]func(http.Handler) *httptest.Server{"Bearer secret": httptest.NewServer, "": httptest.NewTLSServer} {
		got := make(chan string, 1)
		b := start(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Authorization") }))
		defer b.Close()
		u, err := url.Parse(b.URL)
		if err != nil {
			t.Fatal(err)
		}
		a, err := (&Subject{Token: "secret"}).ask(t.Context(), u, "/ws", same)
		if err != nil {
			t.Fatal(err)
		}
		a.nc.Close()
		if token := <-got; token != want {
			t.Errorf("by %s it gets %q, want %q", u.Scheme, token, want)
		}
	}
}
