#!/usr/bin/env bash
# fuzz.sh <time>: runs every fuzz target for so long, one after another. When one fails, go test
# says which input made it fail and keeps it as a file for the package's tests.
set -euo pipefail
cd "$(dirname "$0")/.."

echo 'Fuzzing. The first time, a package takes a minute or two to compile.'
targets=0
# Only packages whose source has a target are compiled, and go test has the last word on its name.
for dir in $(grep -rl --include='*_test.go' '^func Fuzz' cmd functions internal pkg | xargs -n1 dirname | sort -u); do
	for target in $(go test -list '^Fuzz' "./$dir" | grep '^Fuzz'); do
		echo "$target in $dir, for $1"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" "./$dir"
		targets=$((targets + 1))
	done
done
echo "No failure in $targets fuzz target(s)."
