// Package e2e holds the end-to-end tests: they start the built hubbub binary and talk to it only from outside, as its
// users do.
//
// Three kinds of client speak to it: two WebSocket clients that we did not write, the npm package ws (ws/client.js) and
// Debian's python3-websockets (websockets_client.py), each driven by lines of JSON; raw TCP for what such clients never
// send (raw_test.go); and a headless Chromium for the page at "/" (page…_test.go), and for those of the programs in
// examples, beside which the Go client is a crowd. The JavaScript client has tests of its own (../js/test), which
// TestJavaScriptClient runs, faces the same faults as the Go client (traces_test.go), and lives through stories in a page
// of the tests' own (the folder guest) in Chromium and Firefox (browser_client_test.go, chromium_test.go,
// firefox_test.go). The programs of docs/backends are run as they stand there, by Node.js, Python, Go and PHP
// (backends_test.go); so are, in Chromium, those of the README, the quickstart, the recipes and docs/moving.md
// (docs_test.go, quickstart_test.go, recipes_test.go, moving_test.go), with what pages/package.json names.
//
// alarms_test.go brings faults upon servers that a real Prometheus scrapes, with the alarms of deploy/prometheus.
//
//	make e2e                       # installs what it needs, runs everything
//	go test ./e2e -run Simplest -v     # one story
//
// One story takes a minute: TestResumeThroughCutsAtRandom, whose clients dial through a proxy that breaks their
// connections (proxy_test.go). When it fails it prints the seed of its schedule; HUBBUB_E2E_SEED gives that again, and
// HUBBUB_E2E_CUT_FOR another time than a minute (-short: 5 s).
//
// Each story runs once for each way of I/O (--io epoll and --io pump) and, where a client matters, once for each
// client. A missing client fails the tests; nothing is skipped.
//
// HUBBUB_E2E_BINARY names a binary to test in place of the one built from this module; HUBBUB_E2E_BUILDFLAGS (such as
// -race) goes to its build.
package e2e
