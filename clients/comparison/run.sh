#!/usr/bin/env bash
# Lives through the days of ../days.json with these clients and with general caches for Secrets Manager,
# and prints a table. It needs Go, Python with venv, Node with npm, and their package registries.
set -euo pipefail
cd "$(dirname "$0")"
venv=$PWD/../../build/comparison
{
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check --requirement=python/requirements.txt
	(cd ../typescript && npm install --silent --no-audit --no-fund && npx tsc --project tsconfig.build.json)
	(cd node && npm install --silent --no-audit --no-fund)
} >&2
{
	(cd golang && go test -count=1 -run Days -v .) | grep '^{'
	PYTHONPATH=../python/src "$venv/bin/python" python/compare.py ../days.json
	node node/compare.js ../days.json
} | python3 table.py
