package front

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// writePair writes a certificate that is valid until then, and its key.
func writePair(t *testing.T, certFile, keyFile string, until time.Time) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until}
	cert, err := x509.CreateCertificate(rand.Reader, c, c, public, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// What is wrong with a pair of files is said once, however many handshakes come, and what is wrong with a certificate's
// time once a day: that a new pair is there as well as that it is bad.
func TestACertificateIsComplainedOfOnce(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		writePair(t, cert, key, time.Now().Add(30*24*time.Hour))
		c, err := ReadCertificate(cert, key, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		handshakes := func(long time.Duration) (said string) {
			log.Reset()
			for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(long / 100) {
				if pair, err := c.Get(nil); pair == nil || err != nil {
					t.Fatalf("there is no certificate: %v", err)
				}
			}
			return log.String()
		}
		if said := handshakes(time.Minute); said != "" {
			t.Errorf("of a good pair it is said: %s", said)
		}
		for what, file := range map[string]string{"certificate": cert, "key": key} {
			os.WriteFile(file, []byte("none"), 0o600)
			if said := handshakes(time.Minute); strings.Count(said, "\n") != 1 || !strings.Contains(said, "the one before stays") {
				t.Errorf("of a bad %s it is said: %s", what, said)
			}
			os.Remove(file)
			if said := handshakes(time.Minute); strings.Count(said, "\n") != 1 || !strings.Contains(said, "no such file") {
				t.Errorf("of a %s that is gone it is said: %s", what, said)
			}
			writePair(t, cert, key, time.Now().Add(30*24*time.Hour))
			if said := handshakes(time.Minute); strings.Count(said, "\n") != 1 || !strings.Contains(said, "read again") {
				t.Errorf("of a new pair it is said: %s", said)
			}
		}
		if said := handshakes(15 * 24 * time.Hour); said != "" {
			t.Errorf("before its last two weeks it is said: %s", said)
		}
		if said := handshakes(10 * 24 * time.Hour); strings.Count(said, "expires soon") < 8 || strings.Count(said, "\n") > 10 {
			t.Errorf("in ten days of its last two weeks it is said: %s", said)
		}
		time.Sleep(10 * 24 * time.Hour)
		if said := handshakes(23 * time.Hour); strings.Count(said, "is expired") != 1 || strings.Count(said, "\n") != 1 {
			t.Errorf("when it is expired it is said: %s", said)
		}
	})
}
