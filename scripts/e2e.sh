#!/usr/bin/env bash
# make e2e: tests what needs more than Go. It installs Python packages in .venv. Where something
# else is missing, it says which step it skips and what that step needs. With CI=true, as root on
# Linux, it also installs a Docker engine and skips nothing.
#
# Nothing reaches AWS or Entra unless ENTRA_LIVE=1 asks for the end-to-end test against both, with
# the variables of TestLive in internal/e2e/live_test.go.
set -euo pipefail
cd "$(dirname "$0")/.."

export SAM_CLI_TELEMETRY=0 PIP_DISABLE_PIP_VERSION_CHECK=1
export SAM_CLI_CONTAINER_CONNECTION_TIMEOUT=120 # seconds; a busy machine starts containers slowly
scratch=$(mktemp -d)
export TMPDIR=$scratch # sam leaves its locks there
servers=()
stop_servers() {
	local server
	for server in ${servers[@]+"${servers[@]}"}; do { kill "$server" && wait "$server"; } 2>/dev/null || true; done
	servers=()
}
cleanup() {
	stop_servers
	rm -rf "$scratch"
}
trap cleanup EXIT

passed=0 failed=0
check() { # check <what> <command>...: shows the command's output only if it fails
	local what=$1
	shift
	printf '%s … ' "$what"
	if "$@" >"$scratch/out" 2>&1 </dev/null; then
		passed=$((passed + 1)) && echo ok
	else
		failed=$((failed + 1)) && echo FAILED && sed 's/^/    /' "$scratch/out"
	fi
}
show() { # show <what> <command>...: shows the command's output as it comes
	local what=$1
	shift
	echo "$what:"
	if "$@" 2>&1 </dev/null | sed 's/^/    /'; then
		passed=$((passed + 1)) && echo "$what … ok"
	else
		failed=$((failed + 1)) && echo "$what … FAILED"
	fi
}
skip() { echo "$1 … NOT RUN: it needs $2"; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
serve() { # serve <text> <log> <command>...: starts a server and waits for the text, at most two minutes
	local text=$1 log=$2 server
	shift 2
	: >"$log"
	"$@" >>"$log" 2>&1 </dev/null &
	server=$!
	servers+=("$server")
	for _ in {1..240}; do
		grep -qF -- "$text" "$log" || ! kill -0 "$server" 2>/dev/null && break
		sleep 0.5
	done
}
serve_local() { # the stack of make local, with its API at $port
	port=$(free_port)
	rm -rf "$scratch/local"
	serve 'sweep: checked' "$scratch/local.log" \
		build/local serve -connect build/connect/bootstrap -addr "127.0.0.1:$port" -every 24h -data "$scratch/local/secrets.json"
}

# Python packages: the SAM CLI, moto, schemathesis, linters

if ! cmp -s scripts/requirements.txt .venv/requirements.txt; then
	echo 'Installing the SAM CLI, moto, schemathesis and linters in .venv, which takes a minute or two.'
	if ! python3 -m venv .venv || ! .venv/bin/pip install --quiet --requirement=scripts/requirements.txt; then
		echo 'The installation failed. It needs Python 3 with venv and pip, and access to a package index.' >&2
		exit 1
	fi
	cp scripts/requirements.txt .venv/
fi
export PATH="$PWD/.venv/bin:$PATH"

check 'The shell scripts pass shellcheck' shellcheck --exclude=SC2329 .ci/run scripts/*.sh scripts/*/*.sh clients/*.sh

# The clients for integrations

what='The Python and TypeScript clients work, as built and installed'
readers='Each service takes the tokens from its own client, and no integration meets an expired one'
if command -v node >/dev/null && command -v npm >/dev/null; then
	show "$what" make clients
	show "$readers" scripts/e2e/readers.sh
else
	skip "$what" 'Node 20 or newer with npm'
	skip "$readers" 'Node 20 or newer with npm'
fi

# The API's description

what='api/openapi.yaml passes redocly'
if command -v npx >/dev/null; then
	# The rule looks for a property only beside its "required", not around an "if" or "oneOf".
	check "$what" env REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true npm_config_ignore_scripts=true \
		npx --yes @redocly/cli@2.77.0 lint --skip-rule no-required-schema-properties-undefined api/openapi.yaml
else
	skip "$what" 'Node 20.19 or newer with npx'
fi

check 'Building for this machine' make build build/local
serve_local
show 'make local keeps to api/openapi.yaml, says schemathesis' env "CERTIFICATE=$scratch/local/certificate.pem" \
	schemathesis --config-file scripts/e2e/openapi/schemathesis.toml run api/openapi.yaml \
	--url "http://127.0.0.1:$port" --generation-database none --no-color
stop_servers

# The page for customers, in a browser

what='The page for customers works in Chromium, for everybody'
chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -n "$chromium" ] && command -v npm >/dev/null; then
	mkdir -p build/browser/pages
	check 'Installing axe and html-validate' npm install --silent --no-audit --no-fund --prefix build/browser axe-core@4.14.1 html-validate@10.17.0
	check 'make build' make build
	show "$what" env "CHROMIUM=$chromium" sh -c 'cd internal/browser && go test -count=1 -timeout 20m .'
	check 'The ways through the page work' env "PAGES=$PWD/build/browser/pages" go test -count=1 ./functions/connect
	check 'Its HTML is valid' build/browser/node_modules/.bin/html-validate --config scripts/htmlvalidate.json 'build/browser/pages/*.html'
else
	skip "$what" 'Chromium, and Node with npm'
fi

# Real Entra and real AWS

if [ "${ENTRA_LIVE-}" = 1 ]; then
	show 'The functions work with real Entra and real AWS' \
		go test ./internal/e2e -run '^TestLive$' -count=1 -v -timeout 30m
	check 'Secrets Manager keeps the contract of its stand-in' env SECRETS_MANAGER_ENDPOINT=aws \
		go test ./internal/secretstore/secretstoretest -run Contract -count=1 -timeout 60m
else
	skip 'The functions work with real Entra and real AWS' \
		'ENTRA_LIVE=1, AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, AWS credentials and AWS_REGION'
fi

export AWS_EC2_METADATA_DISABLED=true AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none
unset AWS_PROFILE AWS_SESSION_TOKEN

# moto, an independent imitation of Secrets Manager, has to pass the tests of our stand-in.

port=$(free_port)
serve 'Running on' "$scratch/moto.log" moto_server -H 127.0.0.1 -p "$port"
check 'moto keeps the contract of the stand-in Secrets Manager' \
	env "SECRETS_MANAGER_ENDPOINT=http://127.0.0.1:$port" go test ./internal/secretstore/secretstoretest -run Contract -count=1
stop_servers

# The template, and SAM's builds for both architectures

commit=$(git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || true)
built() { # built <GOARCH> <ELF machine, as its bytes in hexadecimal>
	local bootstrap info setting
	for bootstrap in .aws-sam/build/{Provision,Refresh,Connect}Function/bootstrap; do
		[ "$(od -An -tx1 -j18 -N2 "$bootstrap" | tr -d ' ')" = "$2" ] || { echo "$bootstrap: not for $1" && return 1; }
		info=$(go version -m "$bootstrap")
		for setting in "GOARCH=$1" GOOS=linux CGO_ENABLED=0 -tags=lambda.norpc -trimpath=true; do
			[[ $info == *"$setting"* ]] || { echo "$bootstrap: built without $setting" && return 1; }
		done
		grep -qaF -- "$commit" "$bootstrap" || { echo "$bootstrap: does not know its commit, $commit" && return 1; }
	done
}
used() { # used <GOARCH>: uses what sam build left, in make demo and deployed
	local demo='  The functions work, as in make demo' deployed='  The stack works, deployed to ministack'
	if [ "$(go env GOHOSTOS)/$(go env GOHOSTARCH)" != "linux/$1" ]; then
		skip "$demo" "linux/$1" && skip "$deployed" "linux/$1"
		return
	fi
	check "$demo" timeout 120 build/local demo \
		-provision .aws-sam/build/ProvisionFunction/bootstrap -refresh .aws-sam/build/RefreshFunction/bootstrap

	# ministack wants another botocore than the SAM CLI.
	if ! cmp -s scripts/e2e/ministack/requirements.txt .venv/ministack/requirements.txt; then
		check '  Installing ministack in .venv/ministack' install_ministack
	fi
	serve_local
	port=$(free_port)
	local -x AWS_ENDPOINT_URL=http://127.0.0.1:$port # for sam and boto3
	serve 'Running on' "$scratch/ministack.log" env -u AWS_ENDPOINT_URL \
		AUTH=true BIND_HOST=127.0.0.1 "GATEWAY_PORT=$port" IOT_MTLS_ENABLED=false "HOME=$scratch" \
		.venv/ministack/bin/python scripts/e2e/ministack/serve.py
	show "$deployed" python3 scripts/e2e/ministack/deployed.py "$(sed -n 's/^ *Entra *\(http[^ ]*\).*/\1/p' "$scratch/local.log")"
	stop_servers
}
install_ministack() {
	python3 -m venv .venv/ministack &&
		.venv/ministack/bin/pip install --quiet --requirement=scripts/e2e/ministack/requirements.txt &&
		cp scripts/e2e/ministack/requirements.txt .venv/ministack/
}
check 'The template passes sam validate --lint' sam validate --lint
check "The examples' templates pass cfn-lint" cfn-lint examples/*/template.yaml
check 'The events are JSON' python3 -c 'import json, sys; [json.load(open(name)) for name in sys.argv[1:]]' events/*.json
check 'The template deploys what it should' scripts/template/test.sh
echo 'Building with SAM. The first build for each architecture takes about a minute.'
check 'sam build --parameter-overrides Architecture=arm64' sam build --parameter-overrides Architecture=arm64
check '  The binaries are for arm64 and have the right settings' built arm64 b700
used arm64
# The build must not depend on any other parameter.
check 'sam build --parameter-overrides Federation=true' sam build --parameter-overrides Federation=true
check 'sam build' sam build
check '  The binaries are for x86_64 and have the right settings' built amd64 3e00
used amd64

# sam local, in containers of the Docker engine's architecture. The engine is one that answers or,
# for root on Linux, one that this script starts.

static_busybox() { command -v busybox && ! ldd "$(command -v busybox)"; } &>/dev/null
complete() { command -v dockerd && command -v docker && static_busybox; } &>/dev/null
install_engine() { # without recommended packages, and without starting a service
	local packages=(docker.io busybox-static) policy=/usr/sbin/policy-rc.d made=
	apt-get update -qq || return
	[ -z "$(apt-cache search --names-only '^docker-cli$')" ] || packages+=(docker-cli) # where docker.io does not have it
	[ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made=1; }
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" || true # complete decides
	[ -z "$made" ] || rm "$policy"
	complete
}
what='The functions work under sam local: the API and the sweep'
beside=() lacks=
if arch=$(docker version --format '{{.Server.Arch}}' 2>/dev/null); then
	:
elif [ "$(uname -s) $(id -u)" = 'Linux 0' ]; then
	arch=$(go env GOHOSTARCH) beside=(scripts/e2e/engine.sh)
	if ! complete && [ "${CI-}" = true ]; then
		check 'Installing a Docker engine' install_engine
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
	skip "$what" "$lacks"
elif CGO_ENABLED=0 go test -c -o "$scratch/e2e.test" ./internal/e2e; then # here, because the engine's namespace has no network
	show "$what" ${beside[@]+"${beside[@]}"} scripts/e2e/sam-local.sh "$arch" "$scratch/e2e.test"
else
	failed=$((failed + 1))
fi

echo "$passed passed, $failed failed"
exit $((failed > 0))
