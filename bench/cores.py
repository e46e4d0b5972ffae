#!/usr/bin/env python3
"""Count what a publish and a delivery take with more and more workers, where there are too few processors to time it.

  cores.py SCENARIO[,SCENARIO...] [--workers 1,2,4,8] [--procs 2,all] [--secs 2] [--rounds 3] [--json FILE]

The scenarios are those of compare.py. For each number of workers, and GOMAXPROCS as --procs says ("all": as many as workers),
it starts Hubbub, built from this repository with Go's mutex profile on, lets wsload load it, and counts for --secs with perf's tracepoints
(root; `perf`) what the server does, then for as long its processor time and its hand-overs of locks, which perf would disturb. Server and
generator may use all processors. Printed: medians, of each publish and of each delivery; then who handed over locks, by function.

A hand-over is a goroutine that slept for a sync.Mutex, or a thread for a lock of Go's runtime, counted where the lock was given up; who got it by
spinning isn't counted. A wake is a write to the eventfd of a worker. Hardware counters aren't needed: a virtual machine often has none.
"""
import argparse, collections, json, os, re, shutil, signal, statistics, subprocess, sys, tempfile, time, urllib.request

import compare

# perf's events: name, tracepoint, filter; {runtime} is the descriptor of the runtime's own eventfd.
EVENTS = [
    ("sends", "syscalls:sys_enter_sendto", ""),
    ("reads", "syscalls:sys_enter_recvfrom", ""),
    ("polls", "syscalls:sys_enter_epoll_pwait", ""),
    ("wakes", "syscalls:sys_enter_write", "count==8 && fd!={runtime}"),
    ("breaks", "syscalls:sys_enter_write", "count==8 && fd=={runtime}"),
    ("futex", "syscalls:sys_enter_futex", ""),
    ("calls", "raw_syscalls:sys_enter", ""),
    ("switches", "context-switches", ""),
    ("moves", "cpu-migrations", ""),
]
PROFILE = "package main\n\nimport \"runtime\"\n\nfunc init() { runtime.SetMutexProfileFraction(1) }\n"


def build():
    """Builds Hubbub with the mutex profile on, by an overlay, and returns its path."""
    compare.build([])
    root, out = os.path.dirname(compare.HERE), os.path.join(compare.BUILD, "hubbub-mutex")
    with tempfile.TemporaryDirectory() as d:
        source, overlay = os.path.join(d, "mutexprofile.go"), os.path.join(d, "overlay.json")
        for name, text in (source, PROFILE), (overlay, json.dumps({"Replace": {os.path.join(root, "cmd/hubbub/mutexprofile.go"): source}})):
            with open(name, "w") as f:
                f.write(text)
        compare.run(["go", "build", "-overlay", overlay, "-o", out, "./cmd/hubbub"], cwd=root)
    return out


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as r:
        return r.read().decode()


def counted(port, *names):
    """What the server has counted so far, by the names of its metrics."""
    text = get(port, "/metrics")
    return [float(re.search(rf"^{name} (\S+)", text, re.M).group(1)) for name in names]


MESSAGES = "hubbub_messages_received_total", "hubbub_messages_sent_total"
ALLOCATIONS = "go_memstats_mallocs_total"


def processor_time(pid):
    """Seconds of user and of kernel time."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return [int(t) / os.sysconf("SC_CLK_TCK") for t in fields[11:13]]


def parse_perf(text):
    """The counts of `perf stat -x,`, in the order of its events.

    >>> parse_perf("12,,syscalls:sys_enter_sendto,100,100.00,,\\n3,,context-switches,100,100.00,12.3,/sec\\n")
    [12, 3]
    >>> parse_perf("<not supported>,,cycles,0,100.00,,\\n")
    Traceback (most recent call last):
    compare.Failed: perf can't count cycles
    """
    counts = []
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) > 3 and not line.startswith("#"):
            if not fields[0].isdigit():
                raise compare.Failed(f"perf can't count {fields[2]}")
            counts.append(int(fields[0]))
    return counts


def runtime_eventfd(pid):
    """The descriptor of the eventfd of Go's runtime: the lowest, since it is there before any worker."""
    for fd in sorted(map(int, os.listdir(f"/proc/{pid}/fd"))):
        try:
            if "eventfd" in os.readlink(f"/proc/{pid}/fd/{fd}"):
                return fd
        except FileNotFoundError:
            pass  # closed meanwhile
    raise compare.Failed("the server has no eventfd")


def count(pid, admin, secs):
    """Counts EVENTS of a process, and what it receives and sends meanwhile."""
    runtime = runtime_eventfd(pid)
    told, say = os.pipe()
    heard, answer = os.pipe()
    command = ["perf", "stat", "-x", ",", "-p", str(pid), "-D", "-1", "--control", f"fd:{told},{answer}"]
    for _, event, what in EVENTS:
        command += ["-e", event] + (["--filter", what.format(runtime=runtime)] if what else [])
    perf = subprocess.Popen(command, pass_fds=(told, answer), stderr=subprocess.PIPE, text=True)
    os.close(told), os.close(answer)
    try:
        def tell(word):
            os.write(say, word)
            if not os.read(heard, 16):
                raise compare.Failed(f"perf: {perf.stderr.read().strip()[:300]}")

        tell(b"enable\n")  # attaching takes perf a while, in which the server goes on
        before = counted(admin, *MESSAGES)
        time.sleep(secs)
        tell(b"disable\n")
        after = counted(admin, *MESSAGES)
        perf.send_signal(signal.SIGINT)
        counts = parse_perf(perf.communicate(timeout=30)[1])
    finally:
        perf.kill()
        os.close(say), os.close(heard)
    if len(counts) != len(EVENTS):
        raise compare.Failed(f"perf counted {len(counts)} of {len(EVENTS)} events")
    d = dict(zip((name for name, _, _ in EVENTS), counts))
    d["published"], d["delivered"] = (b - a for a, b in zip(before, after))
    return d


def parse_mutexes(text):
    """Hand-overs and seconds waited of each function in Go's mutex profile: the innermost one that isn't of sync or runtime.

    >>> stack = "3 2 @ 0x1 0x2\\n#\\t0x1\\tsync.(*Mutex).Unlock+0x1\\t\\t/go/mutex.go:65\\n#\\t0x2\\texample.com/hubbub/internal/loop.(*Worker).Post+0x9\\t/mailbox.go:5\\n\\n"
    >>> parse_mutexes("--- mutex:\\ncycles/second=2\\nsampling period=1\\n" + stack + stack + "5 1 @ 0x3\\n#\\t0x3\\truntime.unlock+0x1\\t/x.go:1\\n#\\t0x4\\truntime.schedule+0x1\\t/x.go:1\\n")
    {'loop.(*Worker).Post': (4, 3.0), 'runtime.schedule': (1, 2.5)}
    """
    hz, found = 1.0, collections.defaultdict(lambda: (0, 0.0))
    for block in re.split(r"\n(?=\d+ \d+ @)", text):
        if m := re.search(r"cycles/second=(\d+)", block):
            hz = float(m.group(1))
        if not (m := re.match(r"(\d+) (\d+) @", block)):
            continue
        frames = [f.rsplit("/", 1)[-1] for f in re.findall(r"^#\t\S+\t(\S+)\+0x", block, re.M)]
        ours = [f for f in frames if not f.startswith(("sync.", "runtime.", "internal/sync", "poll."))]
        inner = [f for f in frames if f.startswith("runtime.") and "unlock" not in f]
        name = (ours or inner or frames or ["unknown"])[0]
        n, waited = found[name]
        found[name] = n + int(m.group(2)), waited + int(m.group(1)) / hz
    return dict(found)


def measure(binary, scenario, workers, procs, secs):
    """Runs a scenario against a server and returns its counts, of the server alone."""
    mode, args = compare.SCENARIOS[scenario]
    echo, proto = mode == "echo", compare.PROTOCOLS["room"]
    port, admin = compare.free_port(), compare.free_port()
    server = subprocess.Popen([binary, "serve", "--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{admin}", "--workers", str(workers), "--log-level", "error"],
                              env=dict(os.environ, GOMAXPROCS=str(procs)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    load = None
    try:
        compare.wait_until_open(port)
        (first,), (second,) = counted(admin, ALLOCATIONS), counted(admin, ALLOCATIONS)  # what asking for it takes
        command = [os.path.join(compare.BUILD, "wsload"), "--port", str(port), "--secs", str(2 * secs + 3), "--warmup", "0.3",
                   "--pub", proto["echo" if echo else "pub"]] + (proto["echo_args"] if echo else ["--init", proto["init"][0]])
        load = subprocess.Popen(command + args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 60
        while counted(admin, *MESSAGES)[1] < 20000 + 2 * int(re.search(r"--conns (\d+)", " ".join(args)).group(1)):
            if time.monotonic() > end or load.poll() is not None:
                raise compare.Failed(f"nothing is delivered: {load.stderr.read() if load.poll() is not None else ''}")
            time.sleep(0.1)
        d = count(server.pid, admin, secs)
        timed = *MESSAGES, ALLOCATIONS
        locks, before, cpu = parse_mutexes(get(admin, "/debug/pprof/mutex?debug=1")), counted(admin, *timed), processor_time(server.pid)
        time.sleep(secs)
        d["user"], d["kernel"] = (b - a for a, b in zip(cpu, processor_time(server.pid)))
        d["timed_published"], d["timed_delivered"], d["allocations"] = (b - a for a, b in zip(before, counted(admin, *timed)))
        d["allocations"] -= second - first
        d["locks"] = {name: (n - locks.get(name, (0, 0))[0], waited - locks.get(name, (0, 0))[1])
                      for name, (n, waited) in parse_mutexes(get(admin, "/debug/pprof/mutex?debug=1")).items()}
        out, err = load.communicate(timeout=60)
        result = json.loads(out)
        if fault := [f"{key} {result[key]}" for key in ("lost_publishes", "dups", "closed", "failed") if result[key]]:
            raise compare.Failed(", ".join(fault))
        return d
    finally:
        for p in (load, server):
            if p and p.poll() is None:
                p.send_signal(signal.SIGKILL)
                p.wait()


def row(d):
    """What is printed of a measurement: of each publish, and where it says so of each delivery."""
    timed, handed = d["timed_published"], sum(n for n, _ in d["locks"].values())
    return {
        "us/delivery": 1e6 * (d["user"] + d["kernel"]) / d["timed_delivered"], "user us": 1e6 * d["user"] / d["timed_delivered"],
        "messages/send": d["delivered"] / d["sends"], "calls/delivery": d["calls"] / d["delivered"],
        **{f"{name}": d[name] / d["published"] for name in ("sends", "reads", "polls", "wakes", "breaks", "futex", "switches", "moves")},
        "allocations": d["allocations"] / timed, "hand-overs": handed / timed, "waited us": 1e6 * sum(w for _, w in d["locks"].values()) / timed,
    }


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("scenarios", help="comma-separated")
    ap.add_argument("--workers", default="1,2,4,8")
    ap.add_argument("--procs", default="2,all", help="values of GOMAXPROCS; all: as many as workers")
    ap.add_argument("--secs", type=float, default=2)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--json", help="append every measurement to this file")
    a = ap.parse_args()
    if unknown := [s for s in a.scenarios.split(",") if s not in compare.SCENARIOS]:
        ap.error(f"unknown scenario {unknown[0]}: there are {' '.join(compare.SCENARIOS)}")
    if not shutil.which("perf"):
        sys.exit("perf is missing (apt-get install linux-perf)")
    binary = build()
    for scenario in a.scenarios.split(","):
        setups = list(dict.fromkeys((w, w if p == "all" else int(p)) for p in a.procs.split(",") for w in map(int, a.workers.split(","))))
        seen = collections.defaultdict(list)
        for i in range(a.rounds):
            for w, p in setups[::-1] if i % 2 else setups:
                d = measure(binary, scenario, w, p, a.secs)
                seen[w, p].append(d)
                if a.json:
                    with open(a.json, "a") as f:
                        f.write(json.dumps({"scenario": scenario, "workers": w, "procs": p, **d}) + "\n")
        for i, (w, p) in enumerate(setups):
            rows = [row(d) for d in seen[w, p]]
            if i == 0:
                print(f"\n{scenario}  ({a.rounds} rounds, medians; of each publish where no delivery is named)\nworkers procs" + "".join(f"{k:>15}" for k in rows[0]))
            print(f"{w:>7}{p:>6}" + "".join(f"{statistics.median(r[k] for r in rows):>15.3f}" for k in rows[0]), flush=True)
        for w, p in setups:
            sums = collections.Counter()
            for d in seen[w, p]:
                for name, (n, _) in d["locks"].items():
                    sums[name] += n
            of = sum(d["timed_published"] for d in seen[w, p])
            print(f"{w:>7}{p:>6}  hand-overs in 1,000 publishes: " + ", ".join(f"{name} {1000 * n / of:.1f}" for name, n in sums.most_common(7) if 1000 * n / of >= 0.05))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    try:
        main()
    except compare.Failed as e:
        sys.exit(f"cores.py: {e}")
