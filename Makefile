# What a developer and the CI run. `make check` is the quick round, `make test` everything.

GO ?= go
# These guard against hanging alone: a test waits for minutes before it gives up, and the machine may be busy.
TIMEOUT ?= 40m
E2E_TIMEOUT ?= 60m
# Of tests that run beside others, most wait for timers; so do packages, of which three are tested at once under the race
# detector, and four without it.
PARALLEL ?= 8
PACKAGES ?= 3
QUICK_PACKAGES ?= 4

# go vet looks at all that is tested, in check and in lint: go test need not do it again for each way of building.
GOTEST = $(GO) test -vet=off

# The command that lists what has unit tests.
UNITS = $(GO) list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | grep -v '/e2e$$'

UNFORMATTED = unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not formatted (make fmt): $$unformatted"; exit 1; }

.PHONY: help
help: ## say what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/hubbub
	$(GO) build -o bin/hubbub ./cmd/hubbub

.PHONY: check
check: ## the quick round while you work: vet, formatting, and the unit tests without the race detector (under three minutes; real NATS servers are for make test)
	$(GO) vet ./...
	@$(UNFORMATTED)
	$(GOTEST) -short -p $(QUICK_PACKAGES) -parallel $(PARALLEL) -timeout $(TIMEOUT) $$($(UNITS) | grep -v '/broker/nats$$')
	@echo "all checks passed"

# Lanes that go on at once: what mostly waits, what keeps the processors busy, and what is named beside them. One that fails
# has its output in one piece, and the others go on to their end.
WAITING ?= e2e e2e-race
BUSY ?= fuzz cross
BESIDE ?=

.PHONY: test
test: deps lint test-race crowd ## every test; installs what they need where it may
	+$(MAKE) -j3 --output-sync=target --no-print-directory waiting busy $(BESIDE)
	@echo "all tests passed"

.PHONY: busy
busy:
	+@for part in $(BUSY); do $(MAKE) $$part || exit 1; done

.PHONY: waiting
waiting:
	+@for part in $(WAITING); do $(MAKE) $$part || exit 1; done

.PHONY: deps
deps: ## install what the tests need (root on Debian), or say what is missing
	scripts/deps.sh

.PHONY: fmt
fmt: ## format the code
	gofmt -l -w .

.PHONY: lint
lint: bench-lint ## go vet, formatting, and a tidy go.mod
	$(GO) vet ./...
	@$(UNFORMATTED)
	$(GO) mod tidy -diff
	@! grep -n '"resolved"' e2e/ws/package-lock.json e2e/pages/package-lock.json js/package-lock.json site/package-lock.json || { echo "a package-lock.json names a registry: run npm inside its folder, whose .npmrc prevents it"; exit 1; }

# The race detector has each program wait for a second at its end, and tests start many.
.PHONY: test-race
test-race: ## the unit tests, under the race detector
	GORACE="suppressions=$(CURDIR)/scripts/race-suppressions.txt atexit_sleep_ms=100" $(GOTEST) -race -p $(PACKAGES) -parallel $(PARALLEL) -timeout $(TIMEOUT) $$($(UNITS))

.PHONY: crowd
crowd: ## a room of 100,000 counts its members (a minute, 4 GB; more goroutines than the race detector can follow)
	$(GO) test -run '^$$' -bench Crowd -benchtime 100000x ./hubbubtest

.PHONY: fuzz
fuzz: ## each fuzz target, briefly (FUZZTIME=5m make fuzz: for that long)
	nice scripts/fuzz.sh

SOAK ?= $(or $(HUBBUB_SOAK_FOR),10m)

.PHONY: upgrade-test
upgrade-test: ## the tests of docs/upgrade.md, from an older commit of this repository to this tree, one node back again too (two minutes; PREVIOUS=HEAD~50, which a shallow clone lacks)
	@git rev-parse --verify --quiet "$(PREVIOUS)^{commit}" >/dev/null || { echo "PREVIOUS must name a commit that is here: PREVIOUS=HEAD~50 make upgrade-test"; exit 1; }
	@echo "from $$(git rev-parse --short "$(PREVIOUS)") to this tree"
	@old=$$(mktemp -d) && trap 'rm -rf "$$old"' EXIT && git archive "$(PREVIOUS)" | tar -x -C "$$old" \
		&& $(GO) -C "$$old" build -ldflags "-X example.com/hubbub.version=0.0.0-$$(git rev-parse --short "$(PREVIOUS)")" -o "$$old/hubbub-previous" ./cmd/hubbub \
		&& HUBBUB_E2E_PREVIOUS="$$old/hubbub-previous" $(GO) test -count=1 -v -timeout $(E2E_TIMEOUT) -run '^TestUpgrade' ./e2e

.PHONY: soak
soak: deps ## both clients through random cuts, stalls and restarts (ten minutes; HUBBUB_SOAK_FOR=1h make soak)
	HUBBUB_SOAK_FOR=$(SOAK) $(GO) test -race -count=1 -v -timeout 24h -run 'Soak$$' ./client
	HUBBUB_SOAK_FOR=$(SOAK) $(GO) test -count=1 -v -timeout 24h -run 'Soak$$' ./e2e

MUTANTS ?= 100
SEED ?= 1

.PHONY: mutants
mutants: ## plant faults and say which no test sees (half an hour; MUTANTS=200 SEED=7 PKG=internal/hub)
	$(GO) run ./scripts/mutants -n $(MUTANTS) -seed $(SEED) $(PKG)

.PHONY: cross
cross: ## it builds for macOS and Windows too
	GOOS=darwin nice $(GO) build ./...
	GOOS=windows nice $(GO) build ./...

.PHONY: e2e
e2e: deps ## the built binary with foreign clients and a browser
	MAKEFLAGS= $(GOTEST) -count=1 -parallel $(PARALLEL) -timeout $(E2E_TIMEOUT) ./e2e

# The others do one thing after another, and say the same on any binary; so do two pages in a browser.
E2E_RACE ?= AtRandom|Foreign|OneOrder|Slow|Stalled|FullFanOut|Burst|Metrics|Stopping|Signal|Delay|DeadPeer|Handshake
E2E_RACE_SKIP ?= ^TestPage|^TestExample(Chat|Dashboard|CursorsLoses)

.PHONY: e2e-race
e2e-race: deps ## those stories of e2e in which much happens at once, on a binary with the race detector
	HUBBUB_E2E_BUILDFLAGS=-race HUBBUB_E2E_CUT_FOR=20s $(GOTEST) -count=1 -parallel $(PARALLEL) -timeout $(E2E_TIMEOUT) -run '$(E2E_RACE)' -skip '$(E2E_RACE_SKIP)' ./e2e

.PHONY: pictures
pictures: deps ## the pictures of the docs and the examples, made anew by the tests that look at the pages
	HUBBUB_PICTURES=1 $(GO) test -count=1 -timeout $(E2E_TIMEOUT) -run "$(or $(PICTURES),Page|Example|Console)" ./e2e

.PHONY: site
site: deps ## the docs as a site with search, in bin/site (SITE_BASE, SITE_REPOSITORY: site/.vitepress/config.js)
	cd site && node node_modules/vitepress/bin/vitepress.js build
	@echo "the site is in $(or $(SITE_OUT),bin/site); python3 -m http.server --directory $(or $(SITE_OUT),bin/site) shows it at http://localhost:8000"

BENCH_SERVE = bin/hubbub serve --listen 127.0.0.1:{port} --log-level error

.PHONY: bench
bench: bench-deps build ## Hubbub, its rivals and the kernel's limit, and docs/benchmarks.md (long; two idle cores)
	rm -f bin/bench.jsonl
	bench/compare.py fan1k-w1,fan1k-w16,fan1k-w64,fan10k-w16,fan18k-w16,rooms10x100,rooms1000x10,rate1k,echo-w1,echo-w16,echo-16k,mem15k:2,mem15k-echo:2 \
		--rounds 5 --hubbub bin/hubbub --other 'hubbub-workers2=$(BENCH_SERVE) --workers 2' --other 'hubbub-uring=$(BENCH_SERVE) --workers 1 --io uring' \
		--rivals all --progress --json bin/bench.jsonl --about bin/bench.json
	$(GO) run ./bench/report -about $(CURDIR)/bin/bench.json -out $(CURDIR)/docs $(CURDIR)/bin/bench.jsonl

.PHONY: bench-short
bench-short: bench-deps build ## the same in two minutes, judging that all works and not times; writes nothing to docs
	$(GO) -C bench/rivals test ./...
	python3 -m doctest bench/compare.py bench/cores.py
	rm -f bin/bench-short.jsonl
	bench/compare.py fan100-w16,echo100-w1,mem1k --rounds 1 --secs 1 --check \
		--hubbub bin/hubbub --rivals all --json bin/bench-short.jsonl --about bin/bench-short.json
	out=$$(mktemp -d) && $(GO) run ./bench/report -about $(CURDIR)/bin/bench-short.json -out $$out $(CURDIR)/bin/bench-short.jsonl && \
		grep -q fan-out.svg $$out/benchmarks.md && test -s $$out/benchmarks/memory.svg && rm -r $$out

.PHONY: bench-deps
bench-deps: # what the benchmarks need
	scripts/deps.sh bench

.PHONY: bench-lint
bench-lint: # what lint is for the root, for the module of the benchmarks
	$(GO) -C bench/rivals vet ./...
	$(GO) -C bench/rivals mod tidy -diff
	@! grep -n '"resolved"' bench/rivals/npm/package-lock.json || { echo "package-lock.json names a registry: run npm inside bench/rivals/npm, whose .npmrc prevents it"; exit 1; }

.PHONY: bench-go
bench-go: ## the parts' benchmarks, and fan-out by kind of client (CONTRIBUTING.md; BENCH=Decode picks, BENCHFLAGS=-count=10)
	@$(GO) test -run '^$$' -bench '$(or $(BENCH),.)' $(BENCHFLAGS) ./internal/...
	@$(GO) test -run '^$$' -bench '$(or $(BENCH),.)' $(BENCHFLAGS) -cpu 1 .

API_ROUNDS ?= 9

.PHONY: bench-api
bench-api: build ## what a publish over HTTP costs, beside net/http alone and Centrifugo's library (two idle cores, two minutes)
	$(GO) -C bench/rivals run ./api -hubbub $(CURDIR)/bin/hubbub -rounds $(API_ROUNDS)

DRILLS ?=
ALARMS ?=

.PHONY: drill
drill: drill-deps ## faults of every kind, in full (root, an hour and a half; DRILLS="storm slow" picks, ALARMS=1 has a real Prometheus look on)
	$(GO) run ./drill $(if $(ALARMS),-alarms) $(DRILLS)

.PHONY: drill-short
drill-short: drill-deps ## the same in ten minutes, judging counts and not times
	$(GO) run ./drill -short $(if $(ALARMS),-alarms) $(DRILLS)

.PHONY: drill-deps
drill-deps: # the bad line needs nft; where it can't be installed, that drill says so and fails
	@command -v nft >/dev/null && command -v tc >/dev/null || ! command -v apt-get >/dev/null || test "$$(id -u)" != 0 || \
		{ apt-get update -q && apt-get install -q -y --no-install-recommends nftables iproute2; }

VERSION ?=

.PHONY: release
release: ## dist/: archives for Linux, macOS and Windows, deb, rpm, SBOMs, checksums (VERSION=1.2.3, else git describe)
	$(GO) -C scripts/tools run ./release -root $(CURDIR) -out $(CURDIR)/dist -version "$(VERSION)"

.PHONY: packages
packages: ## dist/: the same for Linux on this machine's processor alone
	$(GO) -C scripts/tools run ./release -root $(CURDIR) -out $(CURDIR)/dist -version "$(VERSION)" -targets linux/$$($(GO) env GOARCH)

.PHONY: packages-test
packages-test: packages-deps ## the packages, installed and removed again in a chroot; the chart; the same bytes twice (root on Debian)
	$(GO) -C scripts/tools vet ./...
	$(GO) -C scripts/tools mod tidy -diff
	$(GO) -C scripts/tools test -count=1 -timeout $(TIMEOUT) ./...

.PHONY: packages-deps
packages-deps: # what these need
	scripts/deps.sh packages
