// Package doctor looks at where a server runs, or shall run, and at what stands around it: what it found, and what to
// change.
//
//	report := doctor.Examine(ctx, doctor.Subject{Listen: ":8080", MaxConnections: 50_000}, nil)
//	for _, f := range report.Findings { fmt.Println(f.Level, f.Check, f.Found, f.Change) }
//
// Each check is a function of a Subject, runs on a goroutine of its own for Subject.Limit at most, and gives findings. It
// changes nothing: what it sends to others, and what it writes, stands in Finding.Sent. It knows the server only from
// outside. What only Linux tells is in the files _linux.go.
package doctor

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"time"
)

// Level is how a finding is.
type Level string

// What Level may be.
const (
	OK      Level = "ok"
	Warning Level = "warning" // it works, and won't for long, for all or under load
	Fault   Level = "fault"   // it doesn't
)

// Finding is what a check found.
type Finding struct {
	Check  string `json:"check"` // what was looked at
	Level  Level  `json:"level"`
	Found  string `json:"found"`
	Change string `json:"change,omitempty"` // the command or the setting
	Sent   string `json:"sent,omitempty"`   // what was sent to somebody else for it, or written
}

// Report is all that was found.
type Report struct {
	Time     time.Time `json:"time"`
	Host     string    `json:"host"`
	Faults   int       `json:"faults"`
	Warnings int       `json:"warnings"`
	Findings []Finding `json:"findings"`
}

// Subject is what is looked at. What is empty isn't.
type Subject struct {
	// The settings of the server, as it would take them.
	Settings         error // why they can't be used
	Listen, Admin    string
	IO               string // how connections are read and written
	BasePath         string
	MaxConnections   int
	MaxBufferedBytes int64
	PingInterval     time.Duration
	TrustedProxies   []string
	DataDir          string
	Pairs            []Pair
	NATS             []string
	NATSCreds        string
	NATSCA           string
	Join             []string // addresses of stores
	Calls            []Call   // URLs of the backend and of the provider of keys
	Secrets          []string // what signs the backend's
	Tokens           bool     // clients are known by tokens, which have times in them

	// A server that runs.
	URL, Key  string // of its API
	Runs      bool   // somebody said that it runs at URL: where nobody answers is a fault
	PublicURL string // as clients reach it, by its proxies
	Token     string // that a client would show there
	Idle      time.Duration
	Send      bool // also signed requests without events to the backend

	Limit time.Duration // for each check; 0: 10 s
	Root  string        // where /proc and /sys are, for tests
	Roots *tls.Config   // who is trusted, for tests
}

// Pair is a certificate with its key, and who signs for those that it is shown to; CA may be empty.
type Pair struct{ Setting, Cert, Key, CA string }

// Call is a URL that the server calls.
type Call struct {
	Setting, URL string
	Signed       bool // its requests have a signature
}

// check is one look.
type check struct {
	name string
	do   func(context.Context, *Subject) []Finding
}

var checks = []check{
	{"settings", settings},
	{"port", port},
	{"descriptors", descriptors},
	{"memory", memory},
	{"kernel", kernel},
	{"clock", clock},
	{"certificates", certificates},
	{"data folder", dataFolder},
	{"server", server},
	{"public address", publicAddress},
	{"client addresses", clientAddresses},
	{"NATS", natsServers},
	{"cluster", stores},
	{"backend", backend},
}

// Names are the checks', in the order of their findings.
func Names() (names []string) {
	for _, c := range checks {
		names = append(names, c.name)
	}
	return names
}

// Examine runs all checks at once, and returns when all have ended or their time is up. done, which may be nil, is
// called for each that ends, one at a time.
func Examine(ctx context.Context, s Subject, done func(check string)) Report {
	if s.Limit <= 0 {
		s.Limit = 10 * time.Second
	}
	type result struct {
		at       int
		findings []Finding
	}
	results := make(chan result, len(checks))
	for i, c := range checks {
		go func() {
			limit := s.Limit
			if c.name == "public address" {
				limit += s.Idle
			}
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			ended := make(chan []Finding, 1)
			go func() { ended <- c.do(ctx, &s) }()
			select {
			case f := <-ended:
				results <- result{i, f}
			case <-time.After(limit + time.Second): // it doesn't heed its context: a file system that hangs
				results <- result{i, []Finding{{c.name, Fault, fmt.Sprintf("it is not done within %s", limit), "look whether the disk or the network hangs", ""}}}
			}
		}()
	}
	all := make([][]Finding, len(checks))
	for range checks {
		r := <-results
		all[r.at] = r.findings
		if done != nil {
			done(checks[r.at].name)
		}
	}
	report := Report{Time: time.Now(), Host: hostname(), Findings: slices.Concat(all...)}
	for _, f := range report.Findings {
		switch f.Level {
		case Fault:
			report.Faults++
		case Warning:
			report.Warnings++
		}
	}
	return report
}

func ok(check, format string, args ...any) Finding {
	return Finding{Check: check, Level: OK, Found: fmt.Sprintf(format, args...)}
}

func warning(check, change, format string, args ...any) Finding {
	return Finding{Check: check, Level: Warning, Found: fmt.Sprintf(format, args...), Change: change}
}

func fault(check, change, format string, args ...any) Finding {
	return Finding{Check: check, Level: Fault, Found: fmt.Sprintf(format, args...), Change: change}
}

func settings(_ context.Context, s *Subject) []Finding {
	if s.Settings != nil {
		return []Finding{fault("settings", "hubbub config, with the same settings, says the same and where each is from", "hubbub serve wouldn't start: %v", s.Settings)}
	}
	if s.IO != "" && s.IO != "auto" {
		return []Finding{ok("settings", "hubbub serve would take them, with --io %s", s.IO)}
	}
	return []Finding{ok("settings", "hubbub serve would take them")}
}

// port looks whether the server could listen, or who does.
func port(_ context.Context, s *Subject) (all []Finding) {
	for _, at := range []struct{ setting, address string }{{"--listen", s.Listen}, {"--admin-listen", s.Admin}} {
		if at.address == "" || len(at.address) > 5 && at.address[:5] == "unix:" {
			continue
		}
		name := "port " + at.setting
		l, err := net.Listen("tcp", at.address)
		if err == nil {
			l.Close()
			all = append(all, ok(name, "%s is free: nothing listens there", at.address))
			continue
		}
		pid, program := s.holder(at.address)
		switch {
		case !inUse(err):
			all = append(all, fault(name, "choose an address of this machine, and a port from 1024 on or give the capability: setcap cap_net_bind_service=+ep $(command -v hubbub)", "%s can't be listened at: %v", at.address, err))
		case isHubbub(program):
			all = append(all, ok(name, "hubbub, process %d, listens at %s", pid, at.address))
		case pid != 0:
			all = append(all, fault(name, fmt.Sprintf("stop %s, or give hubbub another port by %s", program, at.setting), "%s, process %d, listens at %s already", program, pid, at.address))
		default:
			all = append(all, fault(name, "as root: ss -ltnp says who; stop it, or give another port by "+at.setting, "somebody listens at %s already", at.address))
		}
	}
	return all
}
