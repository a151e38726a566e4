#!/usr/bin/env bash
# release.sh <version>: builds what a release publishes, in build/release. For each function and
# architecture that is the zip file that Lambda takes and a list of the modules in it (CycloneDX),
# and for all of them their SHA-256 checksums.
#
# The same commit and Go give the same zip files on every machine.
set -euo pipefail
cd "$(dirname "$0")/.."

ZIP=github.com/aws/aws-lambda-go/cmd/build-lambda-zip # of the version in go.mod
CYCLONEDX=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

version=${1#v}
semantic='^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$'
if ! [[ $version =~ $semantic ]]; then
	echo 'Say which version: make release VERSION=1.2.3' >&2
	exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=$PWD/build/release
rm -rf "$out"
mkdir -p "$out"

release() { # release <function> <Lambda's architecture> <GOARCH>
	local logical=$1 architecture=$2 goarch=$3 function name dir=$work/$1-$2
	function=$(tr '[:upper:]' '[:lower:]' <<<"$logical")
	name=entra-connector-$function-$version-$architecture
	"${MAKE:-make}" --silent "build-${logical}Function" "VERSION=$version" "SAM_GOARCH=$goarch" "ARTIFACTS_DIR=$dir"
	go run "$ZIP" -o "$out/$name.zip" "$dir/bootstrap"
	go run "$CYCLONEDX" bin -json -noserial -notimestamp -short-purls -std -version "v$version" \
		-output "$out/$name.cdx.json" "$dir/bootstrap"
}
echo "Building version $version in build/release. The first time this takes some minutes."
for logical in Provision Refresh; do
	release "$logical" x86_64 amd64
	release "$logical" arm64 arm64
done
cd "$out"
if command -v sha256sum >/dev/null; then sha256sum -- *; else shasum -a 256 -- *; fi >"$work/SHA256SUMS"
mv "$work/SHA256SUMS" .
