#!/usr/bin/env bash
# Runs every fuzz target: so many inputs, or for FUZZTIME (30s, say) where that is
# set. Inputs are the default because a time that ends while an input runs counts
# as a failure (context deadline exceeded). Go takes one target at a time.
set -euo pipefail
cd "$(dirname "$0")/.."

found=0
for package in $(go list ./... | grep -v '/e2e$'); do
	case $package in
	*/hub | */hubbub | */hubbubtest | */conformance) inputs=1500x ;; # each plays a story on a running server
	*) inputs=50000x ;;
	esac
	tests=$(go test -list '^Fuzz' "$package")
	for target in $(echo "$tests" | grep '^Fuzz' || true); do
		echo "fuzz $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-$inputs}" -fuzzminimizetime 10x "$package"
		found=$((found + 1))
	done
done
if [ "$found" = 0 ]; then
	echo "no fuzz target was found" >&2
	exit 1
fi
echo "$found fuzz targets passed"
