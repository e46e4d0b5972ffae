#!/usr/bin/env bash
# Sees that what the tests need is there, or with the argument "bench" what the
# benchmarks need, with "packages" what the tests of the packages need: installs it where it may (root on a Debian), else says plainly
# what is missing and fails.
set -euo pipefail
cd "$(dirname "$0")/.."

python=/usr/bin/python3 # Debian's own: python3-websockets is not in any other

has_websockets() { "$python" -c 'import websockets' 2>/dev/null; }

has_browser() {
	local name
	for name in chromium chromium-browser google-chrome google-chrome-stable; do
		if command -v "$name" >/dev/null; then return 0; fi
	done
	return 1
}

has_proxy() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }

# A C compiler that finds the C library's headers: the race detector needs it.
has_cc() { echo '#include <stdlib.h>' | $(go env CC) -E - >/dev/null 2>&1; }

# These print one line for each: Debian's package, and why it is needed.
missing_for_tests() {
	has_cc || echo "gcc libc6-dev: a C compiler, for go test -race"
	command -v node >/dev/null || echo "nodejs: Node.js, for the client that e2e/ws drives"
	command -v npm >/dev/null || echo "npm: to install the npm packages of e2e and js"
	command -v curl >/dev/null || echo "curl: for the calls of docs/api.md, which a test makes"
	command -v openssl >/dev/null || echo "openssl: the TLS client of a test, and its certificate"
	command -v systemd-socket-activate >/dev/null || echo "systemd: its systemd-socket-activate starts a server of a test"
	has_websockets || echo "python3-websockets: the client that e2e/websockets_client.py drives"
	for proxy in nginx haproxy caddy apache2; do
		has_proxy "$proxy" || echo "$proxy: a proxy of docs/deploy.md, which e2e runs"
	done
	command -v php >/dev/null || echo "php-cli: PHP, for the programs of docs/backends/php.md, which e2e runs"
	command -v prometheus >/dev/null && command -v promtool >/dev/null || echo "prometheus: Prometheus, which scrapes servers in e2e and checks deploy/prometheus"
	has_browser || echo "chromium: to test the page and the JavaScript client"
	command -v firefox-esr >/dev/null || command -v firefox >/dev/null || echo "firefox-esr: to test the JavaScript client in it too"
}

missing_for_bench() {
	has_cc || echo "gcc libc6-dev: a C compiler, for the load generator and the limit"
	echo '#include <liburing.h>' | gcc -E - >/dev/null 2>&1 || echo "liburing-dev: for the limit"
	command -v python3 >/dev/null || echo "python3: to run bench/compare.py"
	command -v taskset >/dev/null || echo "util-linux: to give each process a core of its own"
	command -v node >/dev/null || echo "nodejs: Node.js, for the rivals from npm"
	command -v npm >/dev/null || echo "npm: to install them"
}

missing_for_packages() {
	command -v debootstrap >/dev/null || echo "debootstrap: a Debian to install the packages in"
	command -v rpm >/dev/null || echo "rpm: to install the rpm"
	command -v systemd-analyze >/dev/null || echo "systemd: its systemd-analyze judges the unit"
	command -v man >/dev/null || echo "man-db: to read the manual"
	command -v unzip >/dev/null || echo "unzip: to look into the archive for Windows"
	command -v lintian >/dev/null || echo "lintian: to judge the deb"
	command -v qemu-aarch64-static >/dev/null || echo "qemu-user-static: to run what is for Linux on ARM"
	command -v wine >/dev/null && command -v wineboot >/dev/null || echo "wine wine64: to run what is for Windows"
	command -v x86_64-w64-mingw32-ld >/dev/null || echo "binutils-mingw-w64-x86-64: for a library that this Wine lacks"
	command -v zsh >/dev/null || echo "zsh: to try its completion"
	command -v fish >/dev/null || echo "fish: to try its completion"
}

case "${1-}" in
"") missing=missing_for_tests what="the tests" target=deps npm_folders="e2e/ws e2e/pages js site" ;;
bench) missing=missing_for_bench what="the benchmarks" target=bench-deps npm_folders=bench/rivals/npm ;;
packages) missing=missing_for_packages what="the tests of the packages" target=packages-deps npm_folders= ;;
*) echo "usage: deps.sh [bench|packages], not $1" >&2 && exit 2 ;;
esac

if ! command -v go >/dev/null; then
	echo "Go is missing: go.mod says which version is needed" >&2
	exit 1
fi

lines=$($missing)
if [ -n "$lines" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "installing what $what need:"
	echo "$lines"
	packages=$(echo "$lines" | cut -d : -f 1 | tr '\n' ' ')
	# No proxy and no Prometheus begins to serve because a test wants its program: runlevel 1 says so to init scripts,
	# policy-rc.d to systemd.
	export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		trap 'rm -f $policy' EXIT
		printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
	fi
	apt-get update -q
	# shellcheck disable=SC2086 # several words are meant
	apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=600 $packages
	lines=$($missing)
fi
if [ -n "$lines" ]; then
	{
		echo "Missing here is what $what need (by the names of Debian's packages):"
		echo "$lines" | sed 's/^/  /'
		echo "As root on Debian, make $target installs it."
	} >&2
	exit 1
fi

# The npm packages, at the versions of the lock file. None needs its install
# script: bufferutil brings what it would build, and esbuild finds its program.
for npm_folder in $npm_folders; do
	installed=$npm_folder/node_modules/.package-lock.json
	if [ ! -e "$installed" ] || [ "$npm_folder/package-lock.json" -nt "$installed" ]; then
		if [ -L "$npm_folder/node_modules" ]; then # npm ci would empty the folder that it leads to, which others may use
			echo "$npm_folder/node_modules is a link, and not what the lock file wants: remove the link, or install where it leads to" >&2
			exit 1
		fi
		(cd "$npm_folder" && npm ci --no-audit --no-fund --ignore-scripts && touch node_modules/.package-lock.json)
	fi
done
