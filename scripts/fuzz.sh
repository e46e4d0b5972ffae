#!/usr/bin/env bash
# Runs every fuzz target: so many inputs, or for FUZZTIME (30s, say) where that is
# set. Inputs are the default because a time that ends while an input runs counts
# as a failure (context deadline exceeded). Go takes one target at a time.
set -euo pipefail
cd "$(dirname "$0")/.."

export GOGC=${GOGC:-400} # a target's garbage is little, and to collect it often was most of the time of broker/nats' FuzzNodes

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
cache=$(go env GOCACHE)/fuzz # where go test keeps what it found interesting
found=0
for package in $(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | grep -v '/e2e$'); do
	dir=$(go list -f '{{.Dir}}' "$package")
	grep -qs '^func Fuzz' "$dir"/*_test.go || continue
	case $package in
	*/hub | */hubbub | */hubbubtest | */conformance) inputs=1500x ;; # each plays a story on a running server
	*) inputs=10000x ;;
	esac
	go test -c -fuzz=. -o "$built/test" "$package" # once, not for each target
	targets=$(cd "$dir" && "$built/test" -test.list '^Fuzz')
	for target in $targets; do
		echo "fuzz $package $target"
		(cd "$dir" && "$built/test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "${FUZZTIME:-$inputs}" \
			-test.fuzzminimizetime 10x -test.fuzzcachedir "$cache/$package")
		found=$((found + 1))
	done
done
if [ "$found" = 0 ]; then
	echo "no fuzz target was found" >&2
	exit 1
fi
echo "$found fuzz targets passed"
