#!/usr/bin/env bash
# Tests template.yaml. It needs the Python packages of ../requirements.txt, and passes its arguments
# to pytest.
set -euo pipefail
cd "$(dirname "$0")"
exec python3 -m pytest -q -p no:cacheprovider "${@:-.}"
