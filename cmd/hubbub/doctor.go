package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"example.com/hubbub"
	"example.com/hubbub/internal/doctor"
)

// doctorCmd takes the settings as serve does, and looks at what they meet.
type doctorCmd struct {
	serveCmd    `embed:""`
	lookFlags   `embed:""`
	PublicURL   string        `name:"public-url" env:"-" placeholder:"URL" help:"The server as clients reach it, by its proxies: https://chat.example.com, with the path below which it is."`
	Token       string        `env:"-" placeholder:"TOKEN" help:"What to show there, where the server wants tokens."`
	Idle        time.Duration `env:"-" default:"0s" placeholder:"TIME" help:"Also keep a connection by --public-url silent for so long, to see whether a proxy cuts it (0s: no)."`
	SendWebhook bool          `env:"-" help:"Also send the backend a signed request, without an event in it, to see whether it takes the signature."`
	Limit       time.Duration `env:"-" default:"10s" placeholder:"TIME" help:"How long each check may take (${default})."`
	JSON        bool          `name:"json" env:"-" help:"Print the findings as JSON."`
}

// lookFlags say where a server runs that is looked at with the settings of serve.
type lookFlags struct {
	URL string `name:"url" env:"HUBBUB_URL" placeholder:"URL" help:"The server that runs, as its API is called (what --listen or --admin-listen says)."`
	Key string `env:"-" placeholder:"KEY" help:"A key of its API (that of --api-key or HUBBUB_API_KEY)."`
}

// Help is shown by hubbub doctor --help.
func (doctorCmd) Help() string {
	return "It takes the settings as hubbub serve does, looks at the machine, the files and the servers that they name, and at a server that runs there, all at once; and says what it found and what to change: hubbub doctor --config hubbub.yaml --public-url https://chat.example.com. What it sends, and the file that it writes into --data-dir and takes away, are named; no event is sent, no client joins, nothing is published. " + whereItRuns + " It ends with 1 where it found a fault."
}

// whereItRuns is for the help of the commands that take lookFlags.
const whereItRuns = "The server that runs is the one at --url, else where a flag --listen or --admin-listen says, else at HUBBUB_URL, else where the other settings say."

// Run examines, and prints what was found.
func (c *doctorCmd) Run(ctx *kong.Context) error {
	if c.Limit <= 0 {
		return usageError{fmt.Errorf("--limit %s: no check can end in that; more than 0s is wanted, such as 10s", c.Limit)}
	}
	if c.Idle < 0 {
		return usageError{fmt.Errorf("--idle %s: 0s (no such check) or more is wanted", c.Idle)}
	}
	until, cancel := untilSignal()
	defer cancel()
	report := c.examine(until, ctx, c.progress())
	if c.JSON {
		b, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		fmt.Println(printableLines(string(b)))
	} else {
		printReport(os.Stdout, &report, term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "")
	}
	if report.Faults > 0 {
		return fmt.Errorf("%s", counted(report.Faults, "fault"))
	}
	return nil
}

func (c *doctorCmd) examine(until context.Context, ctx *kong.Context, done func(string)) doctor.Report {
	s := c.subject(ctx, &c.lookFlags)
	s.PublicURL, s.Token, s.Idle, s.Send, s.Limit = strings.TrimRight(c.PublicURL, "/"), c.Token, c.Idle, c.SendWebhook, c.Limit
	return doctor.Examine(until, s, done)
}

// subject is what the settings name, and the server that runs with them.
func (c *serveCmd) subject(ctx *kong.Context, at *lookFlags) doctor.Subject {
	key := cmp.Or(at.Key, string(c.APIKey))
	if c.file != nil && len(c.file.apiKeys) > 0 {
		c.APIKey = "" // it is one of the file's, for calls
	}
	cfg, _, err := c.prepare(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		err = shown{err}
		cfg = hubbub.Config{MaxConnections: c.MaxConnections, MaxBufferedBytes: int64(c.MaxBufferedBytes)}
	}
	cfg = cfg.Effective()
	url := at.URL
	if !isGiven(ctx, "url") && (isGiven(ctx, "listen") || isGiven(ctx, "admin-listen")) {
		url = "" // it is of the environment, before which a flag counts
	}
	s := doctor.Subject{
		Settings: err, Listen: c.Listen, IO: c.IO, BasePath: c.BasePath, MaxConnections: cfg.MaxConnections, MaxBufferedBytes: cfg.MaxBufferedBytes,
		PingInterval: c.PingInterval, TrustedProxies: c.TrustedProxies, DataDir: c.DataDir, NATS: c.NATS, NATSCreds: c.NATSCreds, NATSCA: c.NATSCA,
		Join: c.Join, Secrets: c.WebhookSecret, Tokens: c.JWTKey != "" || c.JWTJWKS != "",
		URL: strings.TrimRight(cmp.Or(url, c.ownURL()), "/"), Runs: url != "", Key: key,
	}
	if c.AdminListen != "" {
		s.Admin = adminAddress(c.AdminListen)
	}
	for _, p := range []doctor.Pair{
		{Setting: "--tls-cert", Cert: c.TLSCert, Key: c.TLSKey},
		{Setting: "--cluster-tls-cert", Cert: c.ClusterTLSCert, Key: c.ClusterTLSKey, CA: c.ClusterTLSCA},
	} {
		if p.Cert != "" && p.Key != "" {
			s.Pairs = append(s.Pairs, p)
		}
	}
	for _, of := range []doctor.Call{{Setting: "--webhook-url", URL: string(c.WebhookURL), Signed: true}, {Setting: "--hook-url", URL: string(c.HookURL), Signed: true}, {Setting: "--jwt-jwks", URL: string(c.JWTJWKS)}} {
		if of.URL != "" {
			s.Calls = append(s.Calls, of)
		}
	}
	return s
}

// ownURL is where the API is by the settings; "" where only a Unix socket leads there.
func (c *serveCmd) ownURL() string {
	address, scheme, path := c.Listen, "http", c.BasePath
	switch {
	case c.AdminListen != "":
		address, path = adminAddress(c.AdminListen), ""
	case c.TLSCert != "":
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || strings.HasPrefix(address, "unix:") {
		return ""
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port) + path
}

// progress is told of each check that has ended, and shows it while a terminal waits.
func (c *doctorCmd) progress() func(string) {
	if !term.IsTerminal(int(os.Stderr.Fd())) || c.JSON {
		return nil
	}
	left := doctor.Names()
	fmt.Fprintf(os.Stderr, "looking at %s ...", counted(len(left), "thing"))
	return func(name string) {
		for i, is := range left {
			if is == name {
				left = append(left[:i], left[i+1:]...)
				break
			}
		}
		fmt.Fprint(os.Stderr, "\r\x1b[K")
		if len(left) > 0 {
			fmt.Fprintf(os.Stderr, "looking at %s ...", strings.Join(left[:min(len(left), 4)], ", "))
		}
	}
}

// printReport writes the findings for a person, what is wrong last, where a terminal still shows it.
func printReport(w io.Writer, r *doctor.Report, color bool) {
	paint := func(level doctor.Level) string {
		text := fmt.Sprintf("%-8s", level)
		if code := map[doctor.Level]string{doctor.OK: "32", doctor.Warning: "33", doctor.Fault: "31"}[level]; color {
			return "\x1b[" + code + "m" + text + "\x1b[0m"
		}
		return text
	}
	sent := false
	for _, level := range []doctor.Level{doctor.OK, doctor.Warning, doctor.Fault} {
		for _, f := range r.Findings {
			if f.Level != level {
				continue
			}
			fmt.Fprintf(w, "%s %s: %s\n", paint(level), printable(f.Check), printable(f.Found))
			if f.Change != "" {
				fmt.Fprintf(w, "         change: %s\n", printable(f.Change))
			}
			sent = sent || f.Sent != ""
		}
	}
	if sent {
		fmt.Fprintln(w, "\nFor that was sent, or written:")
		for _, f := range r.Findings {
			if f.Sent != "" {
				fmt.Fprintf(w, "  %s: %s\n", printable(f.Check), printable(f.Sent))
			}
		}
	}
	fmt.Fprintf(w, "\n%s, %s\n", counted(r.Faults, "fault"), counted(r.Warnings, "warning"))
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// printableLines is a text of several lines as a terminal may have it.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

var errNoURL = errors.New("--url: say where the server's API is; --listen is a Unix socket")
