package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unicode"

	"github.com/alecthomas/kong"
	"github.com/coreos/go-systemd/v22/daemon"
	"go.opentelemetry.io/otel/trace"

	"example.com/hubbub"
)

// reloader has a server read its settings again: the file, since flags and the environment of a process stay.
type reloader struct {
	// Static.
	args   []string // of the command line
	level  *slog.LevelVar
	log    *slog.Logger
	traces trace.TracerProvider
	apart  bool     // there is an admin listener
	recent *logTail // the newest lines of log

	mu    sync.Mutex
	srv   *hubbub.Server   // guarded by mu, as are the next two
	now   *serveCmd        // what counts of what the library hasn't got
	shown []hubbub.Setting // all that counts, with where it is from
}

// own are the settings that the library hasn't got. Those that change at run time do so by c being replaced.
func (c *serveCmd) own() []ownSetting {
	return []ownSetting{
		{"log-level", c.LogLevel, true},
		{"shutdown-timeout", c.ShutdownTimeout.String(), true},
		{"listen", c.Listen, false},
		{"admin-listen", c.AdminListen, false},
		{"tls-cert", c.TLSCert, false},
		{"tls-key", c.TLSKey, false},
		{"log-format", c.LogFormat, false},
	}
}

type ownSetting struct {
	name, value string
	reloads     bool
}

// keepOwn has c have what of its own can't change at run time as was has it.
func (c *serveCmd) keepOwn(was *serveCmd) {
	c.Listen, c.AdminListen, c.TLSCert, c.TLSKey, c.LogFormat = was.Listen, was.AdminListen, was.TLSCert, was.TLSKey, was.LogFormat
}

// diffOwn adds the settings that the library hasn't got to those that it says would change, or be kept.
func (c *serveCmd) diffOwn(next *serveCmd, changed, kept []string) (all, stays []string) {
	changed = slices.DeleteFunc(changed, func(name string) bool { return unicode.IsUpper(rune(name[0])) }) // of Go alone: they follow the others
	is := next.own()
	for i, was := range c.own() {
		to := &kept
		if was.reloads {
			to = &changed
		}
		if was.value != is[i].value && !slices.Contains(*to, was.name) {
			*to = append(*to, was.name)
		}
	}
	return changed, kept
}

// parseSettings is the command of a command line that has the settings, serve or config. It reads file and environment.
func parseSettings(args []string) (*serveCmd, *kong.Context, error) {
	var c cli
	ctx, err := newParser(&c).Parse(args)
	if parse := (*kong.ParseError)(nil); errors.As(err, &parse) {
		err = parse.Unwrap()
	}
	if err != nil {
		return nil, nil, err
	}
	if strings.HasPrefix(ctx.Command(), "config") {
		return &c.Config.serveCmd, ctx, nil
	}
	return &c.Serve, ctx, nil
}

// reload reads all settings again and has the server go by them. It is what POST /api/v1/reload calls, too.
func (r *reloader) reload(context.Context) (changed, kept []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed, kept, err = r.reloadLocked()
	switch names := []any{"changed", strings.Join(changed, ","), "kept", strings.Join(kept, ",")}; {
	case err != nil:
		r.log.Error("the settings can't be used: nothing has changed", "error", shown{err})
	case r.now.Config == "" && len(changed) == 0:
		r.log.Info("there is nothing to read again: the server was started without --config")
	case len(kept) > 0:
		r.log.Warn("the settings are read again; what is kept needs a restart", names...)
	default:
		r.log.Info("the settings are read again", names...)
	}
	return changed, kept, err
}

func (r *reloader) reloadLocked() (changed, kept []string, err error) {
	next, ctx, err := parseSettings(r.args)
	if err != nil {
		return nil, nil, err
	}
	if _, _, err := next.prepare(ctx, r.log); err != nil {
		return nil, nil, err
	}
	is := *next
	is.keepOwn(r.now) // what the rest must be good beside
	cfg, _, err := is.prepare(ctx, r.log)
	if err != nil {
		return nil, nil, fmt.Errorf("beside what can't change at run time: %w", err)
	}
	r.fill(&cfg)
	if changed, kept, err = r.srv.Reload(cfg); err != nil {
		return nil, nil, err
	}
	changed, kept = r.now.diffOwn(next, changed, kept)
	r.level.Set(is.level())
	r.now, r.shown = &is, is.settingsOf(ctx, cfg)
	return changed, kept, nil
}

// fill sets what is no setting of the command line.
func (r *reloader) fill(cfg *hubbub.Config) {
	cfg.AdminApart, cfg.ReadAgain = r.apart, r.reload
	cfg.Settings, cfg.RecentLog, cfg.TracerProvider = r.show, r.recent.lines, r.traces
}

// show is what GET /settings answers.
func (r *reloader) show() []hubbub.Setting {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shown
}

// settings are those that count now.
func (r *reloader) settings() *serveCmd {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// onSignal reloads at each SIGHUP, until ctx ends; also where no file was named, or a signal that elsewhere reads the settings
// again would end the process there.
func (r *reloader) onSignal(ctx context.Context, srv *hubbub.Server) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hup)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				tellSystemd(r.log, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec()) // Type=notify-reload waits for both
				_, _, _ = srv.ReadAgain(ctx)                                                     // it has its line in the log
				tellSystemd(r.log, daemon.SdNotifyReady)
			}
		}
	}()
}

// printDiff prints what a reload by the file of --diff would change, in the place of the one that there is, and keep.
func (c *configCmd) printDiff(ctx *kong.Context, cfg hubbub.Config) error {
	if _, err := readFile(string(c.Diff), "--diff", ctx.Selected().Flags); err != nil {
		return usageError{err}
	}
	next, nextCtx, err := parseSettings(append(slices.Clone(os.Args[1:]), "--config="+string(c.Diff)))
	if err != nil {
		return usageError{err}
	}
	is, _, err := next.prepare(nextCtx, c.logger())
	if err != nil {
		return err
	}
	is.Logger = cfg.Logger
	changed, kept := cfg.Diff(is)
	changed, kept = c.diffOwn(next, changed, kept)
	var out strings.Builder
	for _, of := range []struct {
		what  string
		names []string
	}{{"changed", changed}, {"kept", kept}} {
		for _, name := range of.names {
			fmt.Fprintf(&out, "%s: %s%s\n", of.what, name, between(byName(ctx.Selected().Flags, name), byName(nextCtx.Selected().Flags, name)))
		}
	}
	if len(kept) > 0 {
		out.WriteString(comment("What is kept needs a restart."))
	}
	if out.Len() == 0 {
		out.WriteString(comment("Nothing would change."))
	}
	_, err = os.Stdout.WriteString(out.String())
	return err
}

// between says from what to what a flag's setting would go, where nobody minds who reads it; nothing for what is no flag.
func between(was, is *kong.Flag) string {
	if was == nil || is == nil {
		return ""
	}
	a, b := was.Target.Interface(), is.Target.Interface()
	if hides(a) || hides(b) || isSecret(a) || isSecret(b) {
		return ""
	}
	from, err := yamlValue(a)
	to, err2 := yamlValue(b)
	if err != nil || err2 != nil || from == to {
		return ""
	}
	return fmt.Sprintf(", from %s to %s", from, to)
}

// hides says of a value's type that it is of secrets.
func hides(value any) bool {
	switch value.(type) {
	case secret, secrets, natsURLs:
		return true
	}
	return false
}
