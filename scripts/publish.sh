#!/usr/bin/env bash
# publish.sh <version>: makes a GitHub release of build/release, with what CHANGELOG.md says of the
# version. It needs gh and GH_TOKEN, and the version's tag.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1#v}
notes=$(awk -v heading="## [$version]" '/^## /{wanted = index($0, heading) == 1; next} /^\[.*\]: /{next} wanted' CHANGELOG.md)
if [ -z "$notes" ]; then
	echo "CHANGELOG.md has no section ## [$version]." >&2
	exit 1
fi
gh release create "v$version" --verify-tag --title "$version" --notes "$notes" build/release/*
