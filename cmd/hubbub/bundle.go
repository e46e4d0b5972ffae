package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"example.com/hubbub/internal/doctor"
)

// bundleCmd collects what a bug report needs.
type bundleCmd struct {
	serveCmd  `embed:""`
	lookFlags `embed:""`
	Output    string `short:"o" env:"-" placeholder:"FILE" help:"Where to, a .tar.gz (hubbub-bundle-TIME.tar.gz here)."`
	Log       string `env:"-" placeholder:"FILE" help:"The server's log, of which the end is taken: for a server that doesn't run any more (what the server has kept of it)."`
	WithNames bool   `env:"-" help:"Leave names of clients and rooms, addresses and origins in the log."`
}

// Bounds on what is in a bundle.
const (
	maxBundleFile = 16 << 20 // bytes of a file
	maxBundleLog  = 256 << 10
	bundleWait    = 15 * time.Second // for each answer of the server
)

// Help is shown by hubbub bundle --help.
func (bundleCmd) Help() string {
	return "It takes the settings as hubbub serve does, and asks the server that runs with them: hubbub bundle --config hubbub.yaml, with HUBBUB_API_KEY, or --key. It writes one file, says what is in it, and sends it to nobody: look before you do. There is nothing in it of what messages say, and no secret. " + bundleHolds + " " + whereItRuns + " Goroutines and the heap are there where the server has --admin-listen, the log where the key has the right tail."
}

// bundleHolds says in the help, and in the bundle itself, whose names may be read there.
const bundleHolds = "Of clients there are no names, ids, rooms, addresses, paths, or origins of pages: they are taken out of the log, but with --with-names. Of yours there are the settings, with hosts, allowed origins, patterns of rooms and names of keys; the names and addresses of nodes and servers, in doctor.json, nodes.json and info.json; this machine's kernel and limits; and in the log folders and files, where the server listens, addresses of this machine itself (127.0.0.1, localhost), such as of a backend or a proxy there, the ports of others, names in certificates, and what a program's own hooks gave as errors."

// bundle is what is collected; all of it goes through the scrubber but profiles, which have no texts of users.
type bundle struct {
	scrub   *scrubber
	files   []bundleFile
	missing []string
}

type bundleFile struct {
	name, about string
	content     []byte
}

func (b *bundle) raw(name, about string, content []byte) {
	if len(content) > maxBundleFile {
		content = content[:maxBundleFile]
	}
	b.files = append(b.files, bundleFile{name, about, content})
}

func (b *bundle) text(name, about, content string) { b.raw(name, about, []byte(b.scrub.text(content))) }

func (b *bundle) lacks(name string, err error) {
	b.missing = append(b.missing, name+": "+b.scrub.withoutNames(b.scrub.text(err.Error())))
}

// Run writes the file, and says what is in it.
func (c *bundleCmd) Run(ctx *kong.Context) error {
	until, cancel := untilSignal()
	defer cancel()
	b := &bundle{scrub: newScrubber(&c.serveCmd, c.WithNames, c.Key)}
	s := c.subject(ctx, &c.lookFlags)
	c.settingsTo(b, ctx)
	b.text("version.txt", "the program, and what it was built of", versionText())
	report := doctor.Examine(until, s, nil)
	if out, err := json.MarshalIndent(report, "", "  "); err == nil {
		b.text("doctor.json", "what hubbub doctor finds", string(out))
	}
	b.text("system.txt", "kernel, limits, memory, control group", systemText(s.Process()))
	c.serverTo(until, b, &s)
	c.logTo(until, b, &s)
	f, err := createBundle(c.Output, time.Now())
	if err != nil {
		return err
	}
	if err := b.save(f); err != nil {
		return err
	}
	fmt.Printf("%s, of %d bytes, has:\n", printable(f.Name()), fileSize(f.Name()))
	for _, f := range b.files {
		fmt.Printf("  %-16s %9d  %s\n", f.name, len(f.content), f.about)
	}
	for _, m := range b.missing {
		fmt.Printf("  missing: %s\n", printable(m))
	}
	fmt.Println("Look at it before you send it: tar -xzf", printable(f.Name()))
	return nil
}

// createBundle makes the file of that name, which only its owner may read; "" has it be named by the time, and by a number where there is one of that already.
func createBundle(output string, now time.Time) (f *os.File, err error) {
	name, own := output, "hubbub-bundle-"+now.UTC().Format("20060102-150405")
	for n := 1; n < 100; n++ {
		switch {
		case output != "":
		case n == 1:
			name = own + ".tar.gz"
		default:
			name = fmt.Sprintf("%s-%d.tar.gz", own, n)
		}
		f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if output != "" || !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--output: %w", err)
	}
	return f, nil
}

func fileSize(name string) int64 {
	is, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return is.Size()
}

// settingsTo adds the settings as hubbub config prints them.
func (c *bundleCmd) settingsTo(b *bundle, ctx *kong.Context) {
	cfg, _, err := c.prepare(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		b.lacks("settings.yaml", err)
		return
	}
	config := configCmd{serveCmd: c.serveCmd}
	out, err := config.text(ctx, cfg)
	if err != nil {
		b.lacks("settings.yaml", err)
		return
	}
	b.text("settings.yaml", "the settings, without secrets", string(out))
}

func versionText() string {
	out := version() + "\n"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, set := range info.Settings {
			if strings.HasPrefix(set.Key, "vcs") || strings.HasPrefix(set.Key, "GO") || set.Key == "-race" || set.Key == "-tags" {
				out += set.Key + "=" + set.Value + "\n"
			}
		}
		for _, m := range info.Deps {
			out += m.Path + " " + m.Version + "\n"
		}
	}
	return out
}

// systemText is what the kernel says of the machine and of a process, by its folder in /proc.
func systemText(process string) string {
	var out strings.Builder
	for _, name := range []string{
		"/proc/version", "/proc/uptime", "/proc/loadavg", "/proc/meminfo", "/proc/net/sockstat", process + "/limits", process + "/cgroup", process + "/status",
		"/proc/sys/fs/file-nr", "/proc/sys/fs/nr_open", "/proc/sys/net/core/somaxconn", "/proc/sys/net/ipv4/tcp_max_syn_backlog", "/proc/sys/net/ipv4/tcp_mem",
		"/proc/sys/net/ipv4/tcp_wmem", "/proc/sys/net/ipv4/ip_local_port_range", "/proc/sys/net/netfilter/nf_conntrack_max",
		"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu.stat",
	} {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		b, _ := io.ReadAll(io.LimitReader(f, 64<<10))
		f.Close()
		fmt.Fprintf(&out, "== %s\n%s\n", name, bytes.TrimSpace(b))
	}
	return out.String()
}

// serverTo adds what the server that runs says of itself.
func (c *bundleCmd) serverTo(ctx context.Context, b *bundle, s *doctor.Subject) {
	if s.URL == "" {
		b.lacks("the server", errNoURL)
		return
	}
	for _, of := range []struct{ name, path, about string }{
		{"readyz.json", "/readyz", "whether the server lets clients in, and why not"},
		{"metrics.txt", "/metrics", "its metrics"},
		{"info.json", apiPath + "/info", "its version and counts"},
		{"nodes.json", apiPath + "/nodes", "the nodes of its cluster, and their stores"},
		{"goroutines.txt", "/debug/pprof/goroutine?debug=2", "what each of its goroutines does"},
		{"heap.pb.gz", "/debug/pprof/heap", "what its memory is taken by: go tool pprof"},
	} {
		content, status, err := fetched(ctx, s, of.path)
		switch {
		case err != nil:
			b.lacks(of.name, err)
		case status != http.StatusOK && of.name != "readyz.json":
			hint := ""
			if strings.HasPrefix(of.path, "/debug/") {
				hint = "; only --admin-listen has it"
			}
			b.lacks(of.name, fmt.Errorf("GET %s is answered %d%s", of.path, status, hint))
		case of.name == "heap.pb.gz":
			b.raw(of.name, of.about, content)
		default:
			b.text(of.name, of.about, string(content))
		}
	}
}

func fetched(ctx context.Context, s *doctor.Subject, path string) ([]byte, int, error) {
	ctx, cancel := context.WithTimeout(ctx, bundleWait)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
	if err != nil {
		return nil, 0, err
	}
	if strings.HasPrefix(path, apiPath) && s.Key != "" {
		r.Header.Set("Authorization", "Bearer "+s.Key)
	}
	answer, err := s.API().Do(r)
	if err != nil {
		return nil, 0, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxBundleFile))
	return b, answer.StatusCode, err
}

// logTo adds the end of the log, from a file or from the server.
func (c *bundleCmd) logTo(ctx context.Context, b *bundle, s *doctor.Subject) {
	var lines []string
	if c.Log != "" {
		end, err := endOf(c.Log)
		if err != nil {
			b.lacks("log.txt", err)
			return
		}
		lines = strings.Split(strings.TrimSpace(end), "\n")
	} else {
		var log struct{ Lines []string }
		content, status, err := fetched(ctx, s, apiPath+"/log")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("GET %s/log is answered %d: it needs a key with the right tail; or --log FILE", apiPath, status)
		}
		if err == nil {
			err = json.Unmarshal(content, &log)
		}
		if err != nil {
			b.lacks("log.txt", err)
			return
		}
		lines = log.Lines
	}
	for i := range lines {
		lines[i] = b.scrub.logLine(strings.ToValidUTF8(lines[i], "\uFFFD"))
	}
	b.text("log.txt", "the end of its log", strings.Join(lines, "\n")+"\n")
}

// endOf is the end of a file, from the beginning of a line.
func endOf(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	is, err := f.Stat()
	if err != nil {
		return "", err
	}
	from := max(0, is.Size()-maxBundleLog)
	out, err := io.ReadAll(io.NewSectionReader(f, from, maxBundleLog))
	if from > 0 {
		_, out, _ = bytes.Cut(out, []byte("\n"))
	}
	return string(out), err
}

// save is write, and takes the file away where that fails: half of it is of no use, and in the way of the next one.
func (b *bundle) save(f *os.File) error {
	err := b.write(f)
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// write fills the file, and closes it.
func (b *bundle) write(f *os.File) (err error) {
	list := "A bundle of hubbub, for a bug report. " + bundleHolds + "\n\n"
	for _, f := range b.files {
		list += fmt.Sprintf("%-16s %s\n", f.name, f.about)
	}
	for _, m := range b.missing {
		list += "missing: " + m + "\n"
	}
	b.text("README.txt", "this list", list)
	zip := gzip.NewWriter(f)
	out := tar.NewWriter(zip)
	name := filepath.Base(f.Name())
	folder := strings.TrimSuffix(strings.TrimSuffix(name, ".tar.gz"), ".tgz")
	if folder == name {
		folder += ".d" // tar -xzf beside it can't make a folder of the file's name
	}
	for _, file := range b.files {
		err = errors.Join(err, out.WriteHeader(&tar.Header{Name: folder + "/" + file.name, Mode: 0o600, Size: int64(len(file.content)), ModTime: time.Now()}))
		_, werr := out.Write(file.content)
		err = errors.Join(err, werr)
	}
	return errors.Join(err, out.Close(), zip.Close(), f.Close())
}
