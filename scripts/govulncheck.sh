#!/usr/bin/env bash
# govulncheck.sh <package@version>: looks for known vulnerabilities in what the code calls, and
# fails if there are any.
#
# The vulnerability database is on the network. A machine that cannot reach it skips the check and
# says so. With GOVULNDB, the URL of a database (https:// or file://), the check has to run.
set -euo pipefail
cd "$(dirname "$0")/.."

if found=$(go run "$1" -db "${GOVULNDB:-https://vuln.go.dev}" ./... 2>&1); then
	echo "govulncheck: $found"
elif [ -z "${GOVULNDB-}" ] && [[ $found == *'fetching vulnerabilities'* ]]; then
	echo "govulncheck: NOT RUN, because the vulnerability database cannot be reached:"
	sed '/^exit status/d; s/^/  /' <<<"$found"
else
	echo "$found"
	exit 1
fi
