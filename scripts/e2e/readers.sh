#!/usr/bin/env bash
# readers.sh: installs what clients/e2e needs in build/readers, as the users of the readers would, and
# runs it: each service's own client, the integrations of examples/ and the recipes of docs/reading.md.
# It needs Python with venv, Node with npm, and their package registries; build/entra-connector, and
# what clients/test.sh has left in build/clients.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PIP_DISABLE_PIP_VERSION_CHECK=1
packages=$PWD/build/clients to=$PWD/build/readers
rm -rf "$to"
mkdir -p "$to"/{bin,node,work-items}

# All at once, since the registries are slower than the machine. Each says what is wrong by itself.
{
	python3 -m venv "$to/venv"
	"$to/venv/bin/pip" install --quiet --requirement=clients/e2e/python/requirements.txt "$packages"/*.whl
	PATH=$to/venv/bin:$PATH make --no-print-directory -C examples/graph-users build
	mv examples/graph-users/build "$to/graph-users"
} &
installing=($!)
{
	cp clients/e2e/node/{package.json,services.js} "$to/node/"
	cd "$to/node"
	npm install --silent --no-audit --no-fund "$packages"/*.tgz
} &
installing+=($!)
{ # what the Dockerfile does
	cp examples/work-items/{package.json,work-items.js} "$to/work-items/"
	cp "$packages"/*.tgz "$to/work-items/entra-connector.tgz"
	cd "$to/work-items"
	npm install --silent --no-audit --no-fund --omit=dev
} &
installing+=($!)
(cd clients/e2e/golang && go build -o "$to/services" .) &
installing+=($!)
{ # for the recipes
	if ! command -v aws >/dev/null; then
		python3 -m venv "$to/aws"
		"$to/aws/bin/pip" install --quiet awscli==1.46.3
		ln -s "$to/aws/bin/aws" "$to/bin/"
	fi
	if ! command -v jq >/dev/null; then
		GOBIN=$to/bin go install github.com/itchyny/gojq/cmd/gojq@v0.12.17
		mv "$to/bin/gojq" "$to/bin/jq"
	fi
} &
installing+=($!)
failed=0
for step in "${installing[@]}"; do
	wait "$step" || failed=1
done
[ "$failed" = 0 ]
cp build/entra-connector "$to/bin/"

READERS_E2E=$to go test ./clients/e2e -count=1 -v -timeout 10m -parallel 8 | grep -Ev '^ *=== '
