package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"example.com/hubbub"
)

// sockets are what systemd listens at for us and has handed over by LISTEN_FDS; both are nil where it hasn't.
type sockets struct{ listen, admin *os.File }

// adminSocket is the FileDescriptorName of the socket that takes the place of --admin-listen.
const adminSocket = "admin-listen"

// inherited takes what was handed over: one socket in the place of --listen, whatever its name, and one by the name
// admin-listen. Any other is refused, or its clients would wait for ever.
func inherited() (s sockets, err error) {
	for _, f := range activation.Files(true) {
		to := &s.listen
		if f.Name() == adminSocket {
			to = &s.admin
		}
		if *to != nil {
			err = fmt.Errorf("LISTEN_FDS: %s: one socket is taken in the place of --listen, and one whose FileDescriptorName is %s", f.Name(), adminSocket)
		}
		*to = f
	}
	return s, err
}

// listenOn is hubbub.Listen, but at a socket that was handed over, if there is one.
func listenOn(handed *os.File, addr string, secure *tls.Config) (net.Listener, error) {
	if handed != nil {
		return hubbub.ListenFile(handed, secure)
	}
	return hubbub.Listen(addr, secure)
}

// tellSystemd says a state to whoever has started us with a NOTIFY_SOCKET: see sd_notify(3). Without one it does nothing.
func tellSystemd(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd can't be told", "state", state, "error", err)
	}
}

// stopTakes asks systemd to wait for so long, whatever the unit's TimeoutStopSec is, and says that we stop.
func stopTakes(most time.Duration) string {
	return fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, (most + stopReserve).Microseconds())
}

// stopReserve is for what comes behind the clients' end: webhooks, the store, files.
const stopReserve = 10 * time.Second

// watch feeds systemd's watchdog, where the unit has WatchdogSec, until ctx ends: twice in its time, and each time only
// if alive says that all workers have taken a turn. So systemd restarts a server whose workers hang, which a plain timer
// would not see.
func watch(ctx context.Context, log *slog.Logger, alive func(limit time.Duration) error) {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil || within <= 0 {
		if err != nil {
			log.Warn("the watchdog of systemd can't be fed", "error", err)
		}
		return
	}
	every := time.NewTicker(within / 2)
	defer every.Stop()
	for {
		if err := alive(within / 2); err == nil {
			tellSystemd(log, daemon.SdNotifyWatchdog)
		} else {
			log.Error("the watchdog isn't fed", "error", shown{err})
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}
