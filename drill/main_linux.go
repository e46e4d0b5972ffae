package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// drills, in the order in which they run.
var drills = []drill{
	{name: "load", limit: 15 * time.Minute, run: load, promise: "19,000 connections in 500 rooms, 5,000 deliveries a second for 10 min: p99 under 100 ms"},
	{name: "fanout", limit: 5 * time.Minute, run: fanOut, promise: "one message to 19,000 members in under 0.3 s, 100 times"},
	{name: "slow", limit: 5 * time.Minute, run: slowReaders, promise: "200 stalled among 2,000: each is closed, the others' longest gap is under 250 ms, memory under 200 bounds and 64 MiB"},
	{name: "line", limit: 10 * time.Minute, run: badLine, promise: "20 clients on 256 kbit/s with 5 % loss each way, 5 min: none is cut (root, nft, tc)"},
	{name: "storm", limit: 10 * time.Minute, run: storm, promise: "10,000 clients reset and come back at once, five times: served within 20 s, p99 of the others under 1 s, nothing left over"},
	{name: "resume", limit: 10 * time.Minute, run: resume, promise: "the same with sessions: every room is recovered, nothing is missed or doubled over the cuts"},
	{name: "connects", limit: 10 * time.Minute, run: connects, promise: "10,000 connect as fast as they go beside 1,000 members: nobody is closed, p99 under 100 ms and within 1.5 of what it is beside a bare accept loop"},
	{name: "descriptors", limit: 5 * time.Minute, run: descriptors, promise: "1,000 descriptors, 3,000 clients: all are served or refused, those connected notice nothing"},
	{name: "memory", limit: 5 * time.Minute, run: memory, promise: "256 MiB under attack: never killed, the others are served (root, cgroup v1)"},
	{name: "disk", limit: 5 * time.Minute, run: fullDisk, promise: "a full disk under the log: keeps serving (root)"},
	{name: "stopped", limit: 5 * time.Minute, run: stopped, promise: "SIGSTOP for a minute: nobody is closed"},
	{name: "webhooks", limit: 15 * time.Minute, run: webhooks, promise: "a backend that is down for 2 min, slow, then moody, 2,000 clients that come and go, kill -9 of the server twice: nothing untold, no hole in seq"},
	{name: "killed", limit: 5 * time.Minute, run: killed, promise: "kill -9 of 5,000 clients' process: gone from the server, the others notice nothing"},
	{name: "nodes", limit: 20 * time.Minute, run: nodeKilled, promise: "kill -9 of one of three nodes every 20 s, 15 times, at 500 publishes a second: nothing lost, clients back in 5 s, publishing again in 10 s, presence right in 10 s"},
	{name: "rolling", limit: 10 * time.Minute, run: rolling, promise: "three nodes replaced under load: nothing lost, every session resumed"},
	{name: "comers", limit: 10 * time.Minute, run: comers, promise: "a fourth and a fifth node come and go: nothing lost"},
	{name: "frozen", limit: 10 * time.Minute, run: frozen, promise: "SIGSTOP of each of three nodes for 30 s: nothing lost"},
	{name: "bus", limit: 10 * time.Minute, run: busRestarted, promise: "NATS killed and back ten times, once with its store wiped: nothing lost, or another epoch told"},
	{name: "partition", limit: 40 * time.Minute, run: partition, promise: "a node cut off for 5 to 120 s, 20 times, both ways and one way: no two histories under one epoch and offset (root, nft)"},
	{name: "wide", limit: 20 * time.Minute, run: wide, promise: "five nodes, 90,000 connections in one room of the cluster: what each costs, and how long a message to all takes"},
	{name: "many", limit: 30 * time.Minute, run: many, promise: "13 servers by themselves, 247,000 connections: what each costs while idle, and how long a message to all takes"},
	{name: "store", limit: 10 * time.Minute, run: storeFull, promise: "a full disk under one of three stores: nothing lost (root)"},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "clients" {
		runClients(os.Args[2:]) // a process of the drill "killed"
		return
	}
	if len(os.Args) > 1 && os.Args[1] == connecting {
		runConnecting(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == widening {
		runWidening(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == bussing {
		runBus(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == accepting {
		runAccepting()
		return
	}
	os.Exit(run())
}

func run() int {
	short := flag.Bool("short", false, "the short forms, which judge counts and print times")
	seed := flag.Uint64("seed", 0, "repeat the schedules of a run (0: others each time)")
	program := flag.String("program", "", "the hubbub to try (default: built from ./cmd/hubbub)")
	logs := flag.String("logs", "", "a folder that gets the whole log of each server")
	judged := flag.Bool("alarms", false, "run Debian's Prometheus beside each drill, and judge which alarms of deploy/prometheus fire; docs/drills.md says how")
	loadFor := flag.Duration("load-for", 10*time.Minute, "how long the full form of load goes on")
	flag.IntVar(&manyServers, "servers", manyServers, "how many servers of 19,000 connections the full form of many has")
	flag.Usage = usage
	flag.Parse()
	loadTime = *loadFor
	for _, name := range flag.Args() {
		if !slices.ContainsFunc(drills, func(d drill) bool { return d.name == name }) {
			usage()
			fmt.Fprintf(os.Stderr, "\nthere is no drill %q; flags stand before the drills\n", name)
			return 2
		}
	}
	if manyServers < 1 {
		fmt.Fprintf(os.Stderr, "-servers %d: there must be one at least\n", manyServers)
		return 2
	}
	if *program != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if out, err := exec.CommandContext(ctx, *program, "version").Output(); err != nil || !strings.HasPrefix(string(out), "hubbub ") {
			fmt.Fprintf(os.Stderr, "-program %s: it isn't a hubbub: version says %.100q, %v\n", *program, out, err)
			return 2
		}
	}
	debug.SetGCPercent(400) // the clients are to leave the processors to the server
	runtime.LockOSThread()  // the servers die with this thread, and it enters namespaces
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() { <-signals; stop.Store(true) }()

	var limit unix.Rlimit // as many clients as there may be
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
	dir, err := os.MkdirTemp("", "hubbub-drill-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if *program == "" {
		*program = filepath.Join(dir, "hubbub")
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", *program, "./cmd/hubbub").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build ./cmd/hubbub: %v\n%s", err, out)
			return 1
		}
	}
	passed, failed := 0, 0
	for _, d := range drills {
		if flag.NArg() > 0 && !slices.Contains(flag.Args(), d.name) || stop.Load() {
			continue
		}
		if d.seed = *seed; d.seed == 0 {
			d.seed = rand.Uint64N(1e9) + 1
		}
		d.short, d.program, d.dir, d.logs = *short, *program, filepath.Join(dir, d.name), *logs
		if *judged {
			d.prometheus = &prometheus{d: &d}
		}
		if d.perform() {
			passed++
		} else {
			failed++
		}
		runtime.GC() // a run of load leaves a hundred MiB of logs
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || stop.Load() {
		return 1
	}
	return 0
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: go run ./drill [-short] [-seed N] [-program FILE] [-logs FOLDER] [-alarms] [-load-for TIME] [-servers N] [drill...]\nThe drills, in full:")
	for _, d := range drills {
		fmt.Fprintf(os.Stderr, "  %-12s %s\n", d.name, d.promise)
	}
	fmt.Fprintln(os.Stderr, "Flags:")
	flag.PrintDefaults()
}
