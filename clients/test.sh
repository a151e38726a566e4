#!/usr/bin/env bash
# make clients: checks, tests and builds the Python and the TypeScript client, and leaves the packages in
# build/clients. Then it installs those into empty environments and runs the lines of the READMEs
# there, against the connector of "make local". It needs Python with venv, Node with npm, and their
# package registries.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1
root=$PWD packages=$PWD/build/clients
rm -rf "$packages"
mkdir -p "$packages"
scratch=$(mktemp -d)
local=
trap '[ -z "$local" ] || kill "$local"; rm -rf "$scratch"' EXIT
quietly() { "$@" >"$scratch/log" 2>&1 || { cat "$scratch/log" && return 1; }; }
step() { printf '== %s\n' "$*"; }

step Python: checks, tests, build
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --requirement=clients/python/requirements.txt
(
	cd clients/python
	export PATH=$scratch/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
	ruff check --quiet
	ruff check --quiet --config=pyproject.toml --ignore=ARG,S ../e2e/python ../../examples/graph-users
	ruff format --check --quiet . ../e2e/python ../../examples/graph-users
	mypy --cache-dir="$scratch/mypy"
	PYTHONPATH=src pytest --quiet -p no:cacheprovider
	quietly python -m build --outdir "$packages"
)

step TypeScript: checks, tests, build
(
	cd clients/typescript
	npm install --silent --no-audit --no-fund
	npm run --silent check
	quietly npm test --silent
	grep -E '^# (pass|fail)' "$scratch/log"
	npm pack --silent --pack-destination "$packages"
)

step A connector on this machine, with a connection default/contoso
build/local serve -addr 127.0.0.1:0 -data "$scratch/secrets.json" >"$scratch/log" &
local=$!
api='' secrets=''
for _ in {1..120}; do
	api=$(sed -n 's/^ *API  *\(http[^ ]*\).*/\1/p' "$scratch/log")
	secrets=$(sed -n 's/^ *Secrets Manager  *\(http[^ ]*\).*/\1/p' "$scratch/log")
	[ -z "$api" ] || [ -z "$secrets" ] || break
	kill -0 "$local"
	sleep 0.5
done
export AWS_ENDPOINT_URL_SECRETS_MANAGER=$secrets AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local
unset AWS_PROFILE AWS_SESSION_TOKEN
python3 clients/readme.py provision "$api"

step Python: the README, with what was built
python3 -m venv "$scratch/empty"
"$scratch/empty/bin/pip" install --quiet "$packages"/*.whl
"$scratch/empty/bin/python" clients/readme.py run python clients/python/README.md
cat >"$scratch/typed.py" <<-'END'
	from azure.core.credentials import SupportsTokenInfo, TokenCredential
	from entra_connector import ConnectionCredential

	credential: TokenCredential = ConnectionCredential("default/contoso", window=1800)
	info: SupportsTokenInfo = ConnectionCredential("default/contoso", scope="https://storage.azure.com/.default")
END
"$scratch/empty/bin/pip" install --quiet azure-storage-blob
"$scratch/venv/bin/mypy" --strict --cache-dir="$scratch/mypy" --python-executable="$scratch/empty/bin/python" "$scratch/typed.py"
"$scratch/empty/bin/python" clients/readme.py run python clients/python/README.md azure

step TypeScript: the README, with what was built
(
	mkdir "$scratch/typescript"
	cd "$scratch/typescript"
	echo '{"private": true, "type": "module"}' >package.json
	npm install --silent --no-audit --no-fund "$packages"/*.tgz @aws-sdk/client-secrets-manager
	python3 "$root"/clients/readme.py run js "$root"/clients/typescript/README.md
	npm install --silent --no-audit --no-fund @azure/storage-blob
	cat >typed.mts <<-'END'
		import type { TokenCredential } from "@azure/core-auth";
		import { ConnectionCredential } from "entra-connector";

		export const credential: TokenCredential = new ConnectionCredential("default/contoso", { window: 1_800_000 });
	END
	"$root"/clients/typescript/node_modules/.bin/tsc --noEmit --strict --skipLibCheck --module nodenext --target es2022 typed.mts
	python3 "$root"/clients/readme.py run js "$root"/clients/typescript/README.md azure
)
