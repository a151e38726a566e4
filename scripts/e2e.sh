#!/usr/bin/env bash
# make e2e: what needs more than Go. It installs what it can in .venv, and says of every step that it cannot take what it
# lacks. With CI=true and root on Linux it also installs a Docker engine, and then has to take every step.
#
# Nothing here reaches AWS or Entra, unless ENTRA_LIVE=1 asks for the end-to-end test against both. Its variables are those
# of TestLive, in internal/e2e/live_test.go.
set -euo pipefail
cd "$(dirname "$0")/.."

export SAM_CLI_TELEMETRY=0 PIP_DISABLE_PIP_VERSION_CHECK=1
export SAM_CLI_CONTAINER_CONNECTION_TIMEOUT=120 # seconds; a busy machine starts containers slowly
scratch=$(mktemp -d)
export TMPDIR=$scratch # sam leaves its locks there
moto=
stop() { { kill "$1" && wait "$1"; } 2>/dev/null || true; }
cleanup() {
	[ -z "$moto" ] || stop "$moto"
	rm -rf "$scratch"
}
trap cleanup EXIT

passed=0 failed=0
check() { # check <what> <command>...
	local what=$1
	shift
	if "$@" >"$scratch/out" 2>&1 </dev/null; then
		passed=$((passed + 1)) && echo "ok      $what"
	else
		failed=$((failed + 1)) && echo "FAILED  $what" && sed 's/^/        /' "$scratch/out"
	fi
}
show() { # like check, but with all that the command says
	local what=$1
	shift
	echo "        $what:"
	if "$@" 2>&1 </dev/null | sed 's/^/        /'; then
		passed=$((passed + 1)) && echo "ok      $what"
	else
		failed=$((failed + 1)) && echo "FAILED  $what"
	fi
}
skip() { echo "not run $1"; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
until_in() { # until_in <text> <log> <pid>: waits for the text, at most two minutes, or until the process has ended
	for _ in {1..240}; do
		grep -qF -- "$1" "$2" || ! kill -0 "$3" 2>/dev/null && break
		sleep 0.5
	done
}

# The SAM CLI, moto and what comes with them: the linter, boto3

if ! cmp -s scripts/requirements.txt .venv/requirements.txt; then
	if ! python3 -m venv .venv || ! .venv/bin/pip install --quiet --requirement=scripts/requirements.txt; then
		echo 'The SAM CLI and moto cannot be installed: that needs Python 3 with venv and pip, and access to a package index.' >&2
		exit 1
	fi
	cp scripts/requirements.txt .venv/
fi
export PATH="$PWD/.venv/bin:$PATH"

# The real thing

if [ "${ENTRA_LIVE-}" = 1 ]; then
	show 'live: real Entra and real AWS' go test ./internal/e2e -run '^TestLive$' -count=1 -v -timeout 30m
	check 'live: Secrets Manager keeps its contract' env SECRETS_MANAGER_ENDPOINT=aws \
		go test ./internal/secretstore/secretstoretest -run Contract -count=1 -timeout 60m
else
	skip 'live: it needs ENTRA_LIVE=1, AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, AWS credentials and AWS_REGION'
fi

export AWS_EC2_METADATA_DISABLED=true AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none
unset AWS_PROFILE AWS_SESSION_TOKEN

# Somebody else's idea of Secrets Manager, held to the same contract as the stand-in

port=$(free_port)
moto_server -H 127.0.0.1 -p "$port" >"$scratch/moto.log" 2>&1 </dev/null &
moto=$!
until_in "Running on" "$scratch/moto.log" "$moto"
check 'moto keeps the contract of Secrets Manager' \
	env "SECRETS_MANAGER_ENDPOINT=http://127.0.0.1:$port" go test ./internal/secretstore/secretstoretest -run Contract -count=1
stop "$moto" && moto=

# The template, and the build for both architectures

built() { # built <GOARCH> <ELF machine, as its bytes in hexadecimal>
	local bootstrap info setting
	for bootstrap in .aws-sam/build/{Provision,Refresh}Function/bootstrap; do
		[ "$(od -An -tx1 -j18 -N2 "$bootstrap" | tr -d ' ')" = "$2" ] || { echo "$bootstrap: not for $1" && return 1; }
		info=$(CGO_ENABLED=0 go version -m "$bootstrap")
		for setting in "GOARCH=$1" GOOS=linux CGO_ENABLED=0 -tags=lambda.norpc -trimpath=true; do
			[[ $info == *"$setting"* ]] || { echo "$bootstrap: built without $setting" && return 1; }
		done
	done
}
demonstrated() { # demonstrated <GOARCH>: what SAM built provisions, sweeps and serves, against the stand-ins
	[ "$(go env GOHOSTOS GOHOSTARCH | paste -sd/)" = "linux/$1" ] || { skip "  … at work: this machine is not linux/$1" && return; }
	check '  … at work, as in make demo' timeout 120 go run ./cmd/local demo \
		-provision .aws-sam/build/ProvisionFunction/bootstrap -refresh .aws-sam/build/RefreshFunction/bootstrap
}
check 'sam validate --lint' sam validate --lint
check 'events/*.json are JSON' python3 -c 'import json, sys; [json.load(open(name)) for name in sys.argv[1:]]' events/*.json
check 'the template keeps its promises' scripts/template/test.sh
check 'sam build, Architecture=arm64' sam build --parameter-overrides Architecture=arm64
check '  … is for arm64' built arm64 b700
demonstrated arm64
# A parameter of the deployment, on which no build may depend.
check 'sam build, Federation=true' sam build --parameter-overrides Federation=true
check 'sam build' sam build
check '  … is for x86_64' built amd64 3e00
demonstrated amd64

# sam local, in containers of the Docker engine's architecture: of one that answers or, to root on Linux, one of our own

static_busybox() { command -v busybox && ! ldd "$(command -v busybox)"; } &>/dev/null
complete() { command -v dockerd && command -v docker && static_busybox; } &>/dev/null
install_engine() { # without recommended packages, and without starting a service
	local packages=(docker.io busybox-static) policy=/usr/sbin/policy-rc.d made=
	apt-get update -qq || return
	[ -z "$(apt-cache search --names-only '^docker-cli$')" ] || packages+=(docker-cli) # where docker.io comes without
	[ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made=1; }
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" || true # see complete
	[ -z "$made" ] || rm "$policy"
	complete
}
beside=() lacks=
if arch=$(docker version --format '{{.Server.Arch}}' 2>/dev/null); then
	:
elif [ "$(uname -s) $(id -u)" = 'Linux 0' ]; then
	arch=$(go env GOHOSTARCH) beside=(scripts/e2e/engine.sh)
	if ! complete && [ "${CI-}" = true ]; then
		check 'install a Docker engine' install_engine
	fi
	complete || lacks='dockerd, docker and a static busybox (Debian: docker.io, busybox-static)'
else
	lacks='a Docker engine that answers'
fi
case $arch in
amd64) arch=x86_64 ;;
arm64) arch=arm64 && check 'sam build, for the Docker engine' sam build --parameter-overrides Architecture=arm64 ;;
esac
if [ -n "$lacks" ]; then
	skip "sam local: it needs $lacks"
elif CGO_ENABLED=0 go test -c -o "$scratch/e2e.test" ./internal/e2e; then # here, where modules can be had
	show 'sam local: both functions, the API and the sweep' ${beside[@]+"${beside[@]}"} scripts/e2e/sam-local.sh "$arch" "$scratch/e2e.test"
else
	failed=$((failed + 1))
fi

skip 'a browser: there is no page to look at yet'
echo "$passed passed, $failed failed"
exit $((failed > 0))
