package nats

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// outside starts a server that an operator might have, and gives its host and port.
func outside(t *testing.T, change func(o *server.Options)) string {
	t.Helper()
	o := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()}
	change(o)
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience / 4) {
		t.Fatal("the server doesn't start")
	}
	return s.Addr().String()
}

// serves says whether a broker connects, and tells and keeps something.
func serves(t *testing.T, urls string, cfg Config) {
	t.Helper()
	b, err := Dial(urls, cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := run(t, b)
	n.meets(0)
	n.publish(testRoom("room"), "m", "")
	if h := n.Health(); !h.Up() || strings.Contains(h.Links[0].URL, "secret") || h.Links[0].Server == "" {
		t.Errorf("Health says %+v", h)
	}
}

// refuses says whether the error names what is wrong, and nothing that is secret.
func refuses(t *testing.T, urls string, cfg Config, names string) {
	t.Helper()
	b, err := Dial(urls, cfg)
	if err == nil {
		b.Close()
		t.Errorf("%s was taken", urls)
		return
	}
	if !strings.Contains(err.Error(), names) || strings.Contains(err.Error(), "secret") {
		t.Errorf("the error is %q; it should name %q, and no password", err, names)
	}
}

func TestDial(t *testing.T) {
	t.Run("user and password, several URLs", func(t *testing.T) {
		at := outside(t, func(o *server.Options) { o.Username, o.Password = "hubbub", "secret" })
		nobody := freePorts(t, 1)[0]
		dead := net.JoinHostPort("127.0.0.1", big.NewInt(int64(nobody)).String())
		serves(t, "nats://hubbub:secret@"+dead+", nats://hubbub:secret@"+at, Config{})
		refuses(t, "nats://hubbub:secret2@"+at, Config{}, "refuses the credentials")
		refuses(t, "nats://"+at, Config{}, "refuses the credentials")
		refuses(t, "nats://hubbub:secret@"+dead, Config{}, dead)
	})
	t.Run("a token", func(t *testing.T) {
		at := outside(t, func(o *server.Options) { o.Authorization = "secret" })
		serves(t, "nats://secret@"+at, Config{})
		refuses(t, "nats://secret2@"+at, Config{}, "refuses the credentials")
	})
	t.Run("TLS", func(t *testing.T) {
		cert, ca := certificate(t)
		at := outside(t, func(o *server.Options) {
			o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
			o.TLS = true
		})
		serves(t, "tls://"+at, Config{CA: ca})
		refuses(t, "tls://"+at, Config{}, "certificate")
		refuses(t, "tls://"+at, Config{CA: filepath.Join(t.TempDir(), "ca.pem")}, "ca.pem")
	})
	t.Run("credentials", func(t *testing.T) {
		options, creds := operated(t)
		at := outside(t, options)
		serves(t, "nats://"+at, Config{Creds: creds})
		refuses(t, "nats://"+at, Config{}, "refuses the credentials")
		refuses(t, "nats://"+at, Config{Creds: "missing.creds"}, "missing.creds")
	})
	t.Run("permissions", func(t *testing.T) {
		may := func(deny ...string) *server.Permissions {
			return &server.Permissions{Subscribe: &server.SubjectPermission{Deny: deny}}
		}
		at := outside(t, func(o *server.Options) {
			o.Users = []*server.User{{Username: "u", Password: "secret", Permissions: may("hb.n1.>")}, {Username: "v", Password: "secret", Permissions: may("other")}}
		})
		serves(t, "nats://v:secret@"+at, Config{})
		b, err := Dial("nats://u:secret@"+at, Config{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := b.Run(ctx, &testNode{t: t}); err == nil || !strings.Contains(err.Error(), "hb.>") {
			t.Errorf("a node that may not listen to others runs: %v", err)
		}
	})
	t.Run("no JetStream", func(t *testing.T) {
		refuses(t, "nats://"+outside(t, func(o *server.Options) { o.JetStream = false }), Config{}, "has no JetStream")
		account := server.NewAccount("apart")
		at := outside(t, func(o *server.Options) {
			o.Accounts = []*server.Account{account}
			o.Users = []*server.User{{Username: "u", Password: "secret", Account: account}}
		})
		refuses(t, "nats://u:secret@"+at, Config{}, "no JetStream for this account")
	})
	t.Run("URLs", func(t *testing.T) {
		refuses(t, "", Config{}, `""`)
		refuses(t, "nats://a:4222,http://u:secret@b", Config{}, "http://")
		refuses(t, "nats://u:secret%@b", Config{}, "%25")
		refuses(t, "127.0.0.1:4222", Config{}, "nats://host:4222")
	})
}

// certificate is one for 127.0.0.1, and the file of who has signed it.
func certificate(t *testing.T) (cert tls.Certificate, ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, ca
}

// operated is a server with accounts of an operator, and the credentials of a user of one that has JetStream.
func operated(t *testing.T) (options func(o *server.Options), creds string) {
	t.Helper()
	key := func(make func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		k, err := make()
		if err != nil {
			t.Fatal(err)
		}
		public, _ := k.PublicKey()
		return k, public
	}
	operator, operatorKey := key(nkeys.CreateOperator)
	account, accountKey := key(nkeys.CreateAccount)
	user, userKey := key(nkeys.CreateUser)
	ac := jwt.NewAccountClaims(accountKey)
	ac.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: -1, MemoryStorage: -1, Streams: -1, Consumer: -1}
	accountJWT, err := ac.Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	userJWT, err := jwt.NewUserClaims(userKey).Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := user.Seed()
	file, err := jwt.FormatUserConfig(userJWT, seed)
	if err != nil {
		t.Fatal(err)
	}
	creds = filepath.Join(t.TempDir(), "hubbub.creds")
	if err := os.WriteFile(creds, file, 0o600); err != nil {
		t.Fatal(err)
	}
	_, systemKey := key(nkeys.CreateAccount)
	systemJWT, err := jwt.NewAccountClaims(systemKey).Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	resolver := &server.MemAccResolver{}
	for key, claims := range map[string]string{accountKey: accountJWT, systemKey: systemJWT} {
		if err := resolver.Store(key, claims); err != nil {
			t.Fatal(err)
		}
	}
	return func(o *server.Options) {
		o.TrustedKeys, o.AccountResolver, o.SystemAccount = []string{operatorKey}, resolver, systemKey
	}, creds
}
