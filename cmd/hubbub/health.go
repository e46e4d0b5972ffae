package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// healthCmd asks a running server how it is. It takes the settings as serve does, to know where that is.
type healthCmd struct {
	serveCmd `embed:""`
	URL      string        `name:"url" env:"HUBBUB_URL" placeholder:"URL" help:"The server, with its --base-path, as the other commands have it; without it the one on this machine that has these settings."`
	Ready    bool          `env:"-" help:"Ask whether it would let a client in (/readyz), not only whether it is alive (/healthz)."`
	Timeout  time.Duration `env:"-" default:"5s" placeholder:"TIME" help:"How long it may take to answer (${default})."`
}

// Help is shown by hubbub health --help.
func (healthCmd) Help() string {
	return "It prints what the server says, and ends with 0 where that is yes, else with 1; for a container's health check, whose environment has the server's settings. Where --url or HUBBUB_URL says where a server is, it asks that one; a flag --listen counts before HUBBUB_URL, and --url before both."
}

const maxHealth = 4 << 10 // bytes of an answer

// Run asks once.
func (c *healthCmd) Run(ctx *kong.Context) error {
	if isGiven(ctx, "listen") && !isGiven(ctx, "url") {
		c.URL = "" // it is of the environment, before which a flag counts
	}
	if c.Timeout <= 0 {
		return usageError{fmt.Errorf("--timeout %s: nobody answers in that; more than 0s is wanted, such as 5s", c.Timeout)}
	}
	url, transport, err := c.target()
	if err != nil {
		return usageError{err}
	}
	path := "/healthz"
	if c.Ready {
		path = "/readyz"
	}
	until, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(until, http.MethodGet, url+path, nil)
	if err != nil {
		return usageError{err}
	}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("%s%s: %w", url, path, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxHealth))
	if err != nil {
		return fmt.Errorf("%s%s: %w", url, path, err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s%s: %s: %s", url, path, answer.Status, strings.TrimSpace(string(body)))
	}
	_, err = os.Stdout.Write(body)
	return err
}

// target is where to ask, without a slash at its end, and by what. No secret is sent, and the server's own certificate is
// for its public name: so that of this machine's server isn't checked.
func (c *healthCmd) target() (url string, by *http.Transport, err error) {
	by = &http.Transport{DisableKeepAlives: true}
	if c.URL != "" {
		if err := checkAddress(c.URL); err != nil {
			return "", nil, err
		}
		return strings.TrimRight(c.URL, "/"), by, nil
	}
	base, scheme, listen := strings.TrimRight(c.BasePath, "/"), "http", c.Listen
	switch {
	case c.AdminListen != "" && c.ProxyProtocol == "on": // there every connection of a proxy's begins with its header
		listen, base = adminAddress(c.AdminListen), ""
	case c.TLSCert != "":
		scheme, by.TLSClientConfig = "https", &tls.Config{InsecureSkipVerify: true}
	}
	if path, isUnix := strings.CutPrefix(listen, "unix:"); isUnix {
		by.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		return scheme + "://localhost" + base, by, nil
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", nil, fmt.Errorf("listen %s: %w", listen, err)
	}
	if port == "0" {
		return "", nil, errors.New("the server listens at any port: say by --url where that is")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, port) + base, by, nil
}
