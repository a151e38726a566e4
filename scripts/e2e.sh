#!/usr/bin/env bash
# make e2e: what needs more than Go. It installs the SAM CLI and moto in .venv, and says of every step that it cannot take
# what it lacks. Nothing here reaches AWS or Entra.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly SAM_CLI=1.170.0 MOTO=5.2.1 # whose ways secretstoretest's contract_test.go knows
export SAM_CLI_TELEMETRY=0 PIP_DISABLE_PIP_VERSION_CHECK=1 AWS_EC2_METADATA_DISABLED=true AWS_DEFAULT_REGION=us-east-1
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none
unset AWS_PROFILE AWS_SESSION_TOKEN

scratch=$(mktemp -d)
image= api= moto=
stop() { { kill "$1" && wait "$1"; } 2>/dev/null || true; }
cleanup() {
	[ -z "$api" ] || stop "$api"
	[ -z "$moto" ] || stop "$moto"
	[ -z "$image" ] || docker rmi -f "$image" "${image%:*}:rapid-$arch" >/dev/null 2>&1 || true
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
skip() { echo "not run $1"; }
finish() {
	skip 'a browser: there is no page to look at yet'
	echo "$passed passed, $failed failed"
	exit $((failed > 0))
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
until_in() { # until_in <text> <log> <pid>: waits for the text, at most half a minute, or until the process has ended
	for _ in {1..60}; do
		grep -qF -- "$1" "$2" || ! kill -0 "$3" 2>/dev/null && break
		sleep 0.5
	done
}

# The SAM CLI and moto

if ! .venv/bin/sam --version 2>/dev/null | grep -q " $SAM_CLI\$"; then
	if ! python3 -m venv .venv || ! .venv/bin/pip install --quiet "aws-sam-cli==$SAM_CLI"; then
		echo 'The SAM CLI cannot be installed: that needs Python 3 with venv and pip, and access to a package index.' >&2
		exit 1
	fi
fi
if ! .venv/bin/pip list --format=freeze 2>/dev/null | grep -qx "moto==$MOTO"; then
	.venv/bin/pip install --quiet "moto[server]==$MOTO" || true # said below
fi
export PATH="$PWD/.venv/bin:$PATH"

# Somebody else's idea of Secrets Manager, held to the same contract as the stand-in

if command -v moto_server >/dev/null; then
	port=$(free_port)
	moto_server -H 127.0.0.1 -p "$port" >"$scratch/moto.log" 2>&1 </dev/null &
	moto=$!
	until_in "Running on" "$scratch/moto.log" "$moto"
	check "moto $MOTO keeps the contract of Secrets Manager" \
		env "SECRETS_MANAGER_ENDPOINT=http://127.0.0.1:$port" go test ./internal/secretstore/secretstoretest -run Contract -count=1
	stop "$moto" && moto=
else
	skip 'moto: it could not be installed'
fi

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
check 'sam build, Architecture=arm64' sam build --parameter-overrides Architecture=arm64
check '  … is for arm64' built arm64 b700
demonstrated arm64
# A parameter of the deployment, on which no build may depend.
check 'sam build, Federation=true' sam build --parameter-overrides Federation=true
check 'sam build' sam build
check '  … is for x86_64' built amd64 3e00
demonstrated amd64

# sam local, in containers of the Docker engine's architecture

engine=$(docker version --format '{{.Server.Arch}}' 2>/dev/null) || true
case $engine in
amd64) arch=x86_64 ;;
arm64) arch=arm64 && check 'sam build, for this machine' sam build --parameter-overrides Architecture=arm64 ;;
*) skip 'sam local: it needs a Docker engine that answers' && finish ;;
esac
options=(--skip-pull-image --parameter-overrides "Architecture=$arch" --env-vars "$scratch/env.json")
base=public.ecr.aws/lambda/provided:al2023-$arch
if ! docker image inspect "$base" >/dev/null 2>&1 && ! docker pull --quiet "$base" >/dev/null 2>&1; then
	# SAM adds its emulator to an image with a shell, mv and chmod; the functions are static. Ours gets a name of its own,
	# so that nobody takes it for Lambda's.
	busybox=$(command -v busybox) || { skip "sam local: it needs $base, or a static busybox to make an image from" && finish; }
	mkdir -p "$scratch"/image/{bin,tmp,var/task,var/rapid}
	cp -L "$busybox" "$scratch/image/bin/busybox"
	for applet in sh mv chmod; do ln -s busybox "$scratch/image/bin/$applet"; done
	image=entra-connector-e2e:base
	tar -C "$scratch/image" -c . | docker import --change 'ENV PATH=/bin' - "$image" >/dev/null
	options+=(--invoke-image "$image")
	echo "        sam local runs in an image made from busybox, since $base is out of reach"
fi

# Nobody listens there: what is shown is that the functions start, read their variables, answer, and log nothing secret.
cat >"$scratch/env.json" <<'END'
{"Parameters": {"AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://127.0.0.1:9", "AZURE_AUTHORITY_HOST": "http://127.0.0.1:9"}}
END
invoked() { # invoked <function> <event> <text that the answer has to contain>
	sam local invoke "$1" --event "$2" "${options[@]}" >"$scratch/answer" 2>"$scratch/log" || { cat "$scratch/log" && return 1; }
	cat "$scratch/log" "$scratch/answer"
	grep -qF -- "$3" "$scratch/answer" || { echo "The answer lacks $3" && return 1; }
	! grep -qF not-a-real-client-secret "$scratch/log" "$scratch/answer" || { echo 'The client secret leaked.' && return 1; }
}
check 'sam local invoke ProvisionFunction, no Secrets Manager: 503' \
	invoked ProvisionFunction events/create-connection.json '"statusCode": 503'
check 'sam local invoke RefreshFunction, no Secrets Manager: fails' \
	invoked RefreshFunction events/scheduled.json '"errorType": "SweepError"'

served() { # served <method> <path> <body> <status>: answered with this status and a problem document that says the same
	python3 - "http://127.0.0.1:$port$2" "$@" <<'END' || { tail -n 20 "$scratch/api.log" && return 1; }
import json, sys, urllib.error, urllib.request
url, method, _, body, status = sys.argv[1:]
request = urllib.request.Request(url, body.encode() or None, {"Content-Type": "application/json"}, method=method)
try:
    answer = urllib.request.urlopen(request, timeout=60)
except urllib.error.HTTPError as error:
    answer = error
problem = answer.read().decode()
print(answer.status, answer.headers, problem)
assert answer.status == int(status) and answer.headers["Content-Type"] == "application/problem+json"
assert json.loads(problem)["status"] == int(status)
END
}
port=$(free_port)
: >"$scratch/api.log"
sam local start-api --port "$port" "${options[@]}" >>"$scratch/api.log" 2>&1 </dev/null &
api=$!
until_in "Running on" "$scratch/api.log" "$api"
check 'sam local start-api: GET /nothing is 404' served GET /nothing '' 404
check 'sam local start-api: PATCH /apps/default is 405' served PATCH /apps/default '' 405
check 'sam local start-api: POST /connections of {} is 400' served POST /connections '{}' 400
check 'sam local start-api: GET /connections is 503' served GET /connections '' 503

finish
