package front

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Certificate is a pair of PEM files and what was in them. They are read again, within a second of the next handshake,
// when one of them has changed. A pair that can't be read then is logged and the one before stays in use. One that is
// expired, or will be within two weeks, or isn't valid yet is used, and logged when it is read and once a day.
type Certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	pair    *tls.Certificate // guarded by mu, as are those below
	looked  time.Time
	warned  time.Time // when its time was last looked at
	version [2]fileVersion
}

// ReadCertificate reads the files. The error names them.
func ReadCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log}
	return c, c.read()
}

// fileVersion tells one content of a file from another: a new file by its name may be as old as the one before.
type fileVersion struct {
	modified time.Time
	size     int64
	file     os.FileInfo
}

func (v fileVersion) same(o fileVersion) bool {
	return v.modified.Equal(o.modified) && v.size == o.size && (v.file == nil || o.file == nil || os.SameFile(v.file, o.file))
}

// versionOf is that of a file that can't be found, too: the zero value.
func versionOf(file string) fileVersion {
	info, err := os.Stat(file)
	if err != nil {
		return fileVersion{}
	}
	return fileVersion{info.ModTime(), info.Size(), info}
}

// Get is tls.Config's GetCertificate. It looks at the files at most once a second, and never fails.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= time.Second && c.changed() {
		if err := c.readLocked(); err != nil {
			c.log.Error("the changed certificate can't be used; the one before stays", "err", err)
		} else {
			c.log.Info("certificate read again", "file", c.certFile)
		}
	}
	if time.Since(c.warned) >= 24*time.Hour {
		c.checkTime()
	}
	return c.pair, nil
}

func (c *Certificate) changed() bool {
	c.looked = time.Now()
	return !versionOf(c.certFile).same(c.version[0]) || !versionOf(c.keyFile).same(c.version[1])
}

func (c *Certificate) read() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.readLocked()
}

func (c *Certificate) readLocked() error {
	// Also when the pair is bad or gone: it is complained of once, not at every handshake.
	c.version = [2]fileVersion{versionOf(c.certFile), versionOf(c.keyFile)}
	c.looked = time.Now()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate %s and key %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair = &pair
	c.checkTime()
	return nil
}

// soonExpired is when whoever renews certificates is late: Let's Encrypt's last 90 days and are renewed after 60.
const soonExpired = 14 * 24 * time.Hour

// checkTime warns of a certificate, or one of its chain, that clients refuse or will soon. The caller holds mu.
func (c *Certificate) checkTime() {
	now := time.Now()
	c.warned = now
	for _, der := range c.pair.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			continue // the first is none: it was parsed before
		}
		var what string
		switch {
		case now.After(cert.NotAfter):
			what = "the certificate is expired; clients refuse it"
		case now.Before(cert.NotBefore):
			what = "the certificate is not valid yet; clients refuse it"
		case now.Add(soonExpired).After(cert.NotAfter):
			what = "the certificate expires soon"
		default:
			continue
		}
		c.log.Warn(what, "file", c.certFile, "subject", cert.Subject, "valid_from", cert.NotBefore, "valid_until", cert.NotAfter)
	}
}
