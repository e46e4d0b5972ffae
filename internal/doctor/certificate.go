package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// soonExpired is when the server's log begins to say so.
const soonExpired = 14 * 24 * time.Hour

// certificates looks at the files of each pair, and at what the public address shows.
func certificates(ctx context.Context, s *Subject) (all []Finding) {
	host := ""
	if u, err := url.Parse(s.PublicURL); err == nil {
		host = u.Hostname()
	}
	for _, p := range s.Pairs {
		name := "certificate " + p.Setting
		pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
		if err != nil {
			change := "give the files of one certificate and its key, PEM"
			if strings.Contains(err.Error(), "does not match") {
				change = fmt.Sprintf("the two are of different certificates: compare openssl x509 -pubkey -noout -in %s with openssl pkey -pubout -in %s", p.Cert, p.Key)
			}
			all = append(all, fault(name, change, "%v", err))
			continue
		}
		chain := chainOf(pair.Certificate)
		roots := s.rootCAs()
		if p.CA != "" {
			b, err := os.ReadFile(p.CA)
			roots = x509.NewCertPool()
			if err != nil || !roots.AppendCertsFromPEM(b) {
				all = append(all, fault(name, "give the certificate of who signs for all nodes, PEM", "%s: no certificate can be read there (%v)", p.CA, err))
				continue
			}
		}
		names := host
		if p.CA != "" || p.Setting != "--tls-cert" {
			names = ""
		}
		all = append(all, judge(name, chain, names, roots, time.Now()))
	}
	if u, err := url.Parse(s.PublicURL); err == nil && u.Scheme == "https" {
		all = append(all, s.shown(ctx, u))
	}
	return all
}

// shown is the certificate of the public address, which is a proxy's where one ends TLS.
func (s *Subject) shown(ctx context.Context, u *url.URL) Finding {
	name := "certificate of " + u.Host
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: u.Hostname()}} // it is judged below
	nc, err := d.DialContext(ctx, "tcp", hostPort(u))
	if err != nil {
		return fault(name, "look whether the proxy runs, and whether the name leads to it", "no TLS there: %v", err)
	}
	defer nc.Close()
	return judge(name, nc.(*tls.Conn).ConnectionState().PeerCertificates, u.Hostname(), s.rootCAs(), time.Now())
}

func (s *Subject) rootCAs() *x509.CertPool {
	if s.Roots != nil {
		return s.Roots.RootCAs
	}
	return nil // the system's
}

func chainOf(ders [][]byte) (chain []*x509.Certificate) {
	for _, der := range ders {
		if c, err := x509.ParseCertificate(der); err == nil {
			chain = append(chain, c)
		}
	}
	return chain
}

// judge says whether clients will take a chain, for a host or "" for any.
func judge(name string, chain []*x509.Certificate, host string, roots *x509.CertPool, now time.Time) Finding {
	if len(chain) == 0 {
		return fault(name, "give a certificate, PEM", "there is none")
	}
	leaf := chain[0]
	until := leaf.NotAfter.Format("2006-01-02")
	days := int(leaf.NotAfter.Sub(now).Hours() / 24)
	if now.After(leaf.NotAfter) {
		return fault(name, "renew it: the server reads the files again by itself", "it has expired on %s: clients refuse it", until)
	}
	if now.Before(leaf.NotBefore) {
		return fault(name, "look at the clock, or wait", "it isn't valid before %s: clients refuse it", leaf.NotBefore.Format(time.RFC3339))
	}
	if host != "" {
		if err := leaf.VerifyHostname(host); err != nil {
			return fault(name, "get one that has the name "+host, "it isn't for %s, but for %s", host, printableNames(leaf))
		}
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		change := "put the certificates between it and the root behind it in the file (fullchain.pem)"
		if leaf.Issuer.String() == leaf.Subject.String() {
			change = "browsers refuse one that signs itself: get one of an authority such as Let's Encrypt, or have your clients trust it"
		}
		return warning(name, change, "nobody whom this machine trusts has signed it (and it expires on %s, in %d days): %v", until, days, err)
	}
	if leaf.NotAfter.Sub(now) < soonExpired {
		return warning(name, "renew it: the server reads the files again by itself", "it expires on %s, in %d days", until, days)
	}
	return ok(name, "good until %s, for %s", until, printableNames(leaf))
}

func printableNames(c *x509.Certificate) string {
	names := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name"
	}
	return strings.Join(names, ", ")
}

// hostPort is where a URL leads.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "wss": "443"}[u.Scheme]
	}
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}
