package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/internal/auth"
)

const jwtSecret = "0123456789abcdef0123456789abcdef"

// verified runs hubbub token and gives what a server with that key makes of what it prints.
func verified(t *testing.T, o auth.Options, key string, env []string, args ...string) auth.Identity {
	t.Helper()
	cmd, stdout, stderr := program(t, append([]string{"token", "--user", "ann"}, args...)...)
	cmd.Env = append(append(os.Environ(), "HUBBUB_TEST_PROGRAM=1"), env...)
	if got := status(t, cmd); got != 0 || stderr.Len() > 0 {
		t.Fatalf("%v: status %d: %s", args, got, stderr)
	}
	var err error
	if o.Key, err = auth.ReadKey(key); err != nil {
		t.Fatal(err)
	}
	who, err := auth.NewVerifier(o).Verify(t.Context(), strings.TrimSuffix(stdout.String(), "\n"), func() {})
	if err != nil || who.User != "ann" {
		t.Fatalf("%v: %+v %v", args, who, err)
	}
	return who
}

func TestATokenThatTheServerTakes(t *testing.T) {
	who := verified(t, auth.Options{}, jwtSecret, []string{"HUBBUB_JWT_KEY=" + jwtSecret}, "--join", "chat.*,a", "--join", "b", "--read", "news.*", "--publish", "${user}.*",
		"--rooms", "lobby", "--data", `{"color":"red"}`, "--chat", "--expires", "2h")
	g := who.Grants
	if len(g.Join) != 3 || g.Join[2].String() != "b" || len(g.Read) != 1 || len(g.Publish) != 1 || !g.Chat || g.Direct ||
		who.Rooms[0] != "lobby" || string(who.Data) != `{"color":"red"}` {
		t.Errorf("%+v %+v", who, g)
	}
	if in := time.Until(who.Expires); in < time.Hour || in > 2*time.Hour {
		t.Errorf("it expires in %s", in)
	}
	if who := verified(t, auth.Options{}, jwtSecret, nil, "--jwt-key", jwtSecret, "--direct"); !who.Grants.Direct || who.Grants.Chat {
		t.Errorf("%+v", who)
	}
	// The server's own file has what it needs, and more.
	file := write(t, "listen: :1234\njwt-key: "+jwtSecret+"\njwt-issuer: i\njwt-audience: a\nrooms:\n- match: x\n")
	strict := auth.Options{Issuer: "i", Audience: "a"}
	verified(t, strict, jwtSecret, nil, "--config", file, "--rooms", "r")
	verified(t, strict, jwtSecret, []string{"HUBBUB_CONFIG=" + file})
	other := strings.Repeat("x", 32)
	verified(t, strict, other, []string{"HUBBUB_JWT_KEY=" + other, "HUBBUB_JWT_ISSUER=no"}, "--config", file, "--jwt-issuer", "i")
}

func TestATokenByAPrivateKey(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, blocks ...*pem.Block) string {
		var b []byte
		for _, block := range blocks {
			b = append(b, pem.EncodeToMemory(block)...)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return "@" + path
	}
	r, _ := rsa.GenerateKey(rand.Reader, 2048)
	e, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, d, _ := ed25519.GenerateKey(rand.Reader)
	for name, key := range map[string]crypto.Signer{"rsa": r, "ec": e, "ed": d} {
		private, _ := x509.MarshalPKCS8PrivateKey(key)
		public, _ := x509.MarshalPKIXPublicKey(key.Public())
		verified(t, auth.Options{}, write(name+".pub", &pem.Block{Type: "PUBLIC KEY", Bytes: public}), nil,
			"--jwt-key", write(name, &pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	}
	public, _ := x509.MarshalPKIXPublicKey(e.Public())
	old, _ := x509.MarshalECPrivateKey(e)
	verified(t, auth.Options{}, write("e.pub", &pem.Block{Type: "PUBLIC KEY", Bytes: public}), nil,
		"--jwt-key", write("e.old", &pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6}}, &pem.Block{Type: "EC PRIVATE KEY", Bytes: old}))
	refusedToken(t, "private key", nil, "--jwt-key", "@"+filepath.Join(dir, "e.pub"))
}

// refusedToken wants hubbub token to say what to set.
func refusedToken(t *testing.T, words string, env []string, args ...string) {
	t.Helper()
	if len(args) == 0 || args[0] != "--user" {
		args = append([]string{"--user", "ann"}, args...)
	}
	cmd, stdout, stderr := program(t, append([]string{"token"}, args...)...)
	cmd.Env = append(append(os.Environ(), "HUBBUB_TEST_PROGRAM=1"), env...)
	if got := status(t, cmd); got != 2 || stdout.Len() > 0 || !strings.Contains(stderr.String(), words) || strings.Contains(stderr.String(), jwtSecret) {
		t.Errorf("%v: status %d, %s %s, want %q", args, got, stdout, stderr, words)
	}
}

func TestATokenThatCantBeMade(t *testing.T) {
	key := []string{"HUBBUB_JWT_KEY=" + jwtSecret}
	refusedToken(t, "--jwt-key, HUBBUB_JWT_KEY, or jwt-key in the file", nil)
	refusedToken(t, "at least 32", nil, "--jwt-key", "short")
	refusedToken(t, "no such file", nil, "--jwt-key", "@/nowhere")
	refusedToken(t, "--expires 0s", key, "--expires", "0s")
	refusedToken(t, "both kinds of quotes", key, "--data", "red")
	refusedToken(t, "control character", key, "--user", "a\nb")
	refusedToken(t, "at most 255", key, "--user", strings.Repeat("x", 256))
	refusedToken(t, "a.${User}: there is no ${User}; did you mean ${user}", key, "--read", "a.${User}")
	refusedToken(t, "rooms: ", key, "--rooms", strings.Repeat("x", 300))
	refusedToken(t, "at most", key, "--data", `"`+strings.Repeat("x", 48<<10)+`"`)
	refusedToken(t, "--user", key, "--user", "")
	refusedToken(t, "that provider", nil, "--config", write(t, "jwt-jwks: https://id.example/keys\n"))
	refusedToken(t, "line 1: jwt-kye", nil, "--config", write(t, "jwt-kye: x\n"))
}

// What hubbub config prints is shown around, and a secret isn't.
func TestConfigShowsNoSecret(t *testing.T) {
	file := write(t, "jwt-key: "+jwtSecret+"\n")
	for _, args := range [][]string{{"--config", file}, {"--jwt-key", jwtSecret}} {
		cmd, stdout, stderr := program(t, append([]string{"config"}, args...)...)
		if got := status(t, cmd); got != 0 || strings.Contains(stdout.String()+stderr.String(), jwtSecret) || !strings.Contains(stdout.String(), "# jwt-key: not shown, from the f") {
			t.Errorf("status %d: %s %s", got, stdout, stderr)
		}
	}
	path := filepath.Join(t.TempDir(), "key")
	os.WriteFile(path, []byte(jwtSecret), 0o600)
	if cmd, stdout, _ := program(t, "config", "--jwt-key", "@"+path); status(t, cmd) != 0 || !strings.Contains(stdout.String(), "\njwt-key: '@"+path) && !strings.Contains(stdout.String(), "\njwt-key: \"@"+path) {
		t.Errorf("%s", stdout)
	}
}

func TestTheLeewayAtItsEdges(t *testing.T) {
	for text, want := range map[string]time.Duration{"0s": -1, "10s": 10 * time.Second, "1m": time.Minute} {
		c, _, err := parse(t, nil, "serve", "--jwt-key", jwtSecret, "--jwt-leeway", text)
		if err != nil || c.config(nil).JWT.Leeway != want || c.config(nil).Validate() != nil {
			t.Errorf("%s: %v %v", text, c.config(nil).JWT.Leeway, err)
		}
	}
	for _, text := range []string{"61s", "-1s", "-10s"} {
		c, ctx, err := parse(t, nil, "serve", "--jwt-key", jwtSecret, "--jwt-leeway="+text)
		if err == nil {
			_, _, err = c.prepare(ctx, slog.New(slog.DiscardHandler))
		}
		if err == nil || !strings.Contains(err.Error(), "jwt-leeway") {
			t.Errorf("%s is taken: %v", text, err)
		}
	}
}
