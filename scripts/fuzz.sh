#!/usr/bin/env bash
# Runs every fuzz target for FUZZTIME (5s). Go takes one target at a time.
set -euo pipefail
cd "$(dirname "$0")/.."

found=0
for package in $(go list ./... | grep -v '/e2e$'); do
	tests=$(go test -list '^Fuzz' "$package")
	for target in $(echo "$tests" | grep '^Fuzz' || true); do
		echo "fuzz $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-5s}" -fuzzminimizetime 10x "$package"
		found=$((found + 1))
	done
done
if [ "$found" = 0 ]; then
	echo "no fuzz target was found" >&2
	exit 1
fi
echo "$found fuzz targets passed"
