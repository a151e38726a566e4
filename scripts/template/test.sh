#!/usr/bin/env bash
# Tests template.yaml, in an environment with the Python packages of ../requirements.txt. Arguments are pytest's.
set -euo pipefail
cd "$(dirname "$0")"
exec python3 -m pytest -q -p no:cacheprovider "${@:-.}"
