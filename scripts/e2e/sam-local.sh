#!/usr/bin/env bash
# sam-local.sh <architecture> <test>: runs the compiled test of internal/e2e with what sam build
# left. The architecture is that of the build and of the Docker engine.
set -euo pipefail
export E2E_ARCH=$1 E2E_IMAGE=public.ecr.aws/lambda/provided:al2023-$1

if ! docker image inspect "$E2E_IMAGE" >/dev/null 2>&1 && ! docker pull --quiet "$E2E_IMAGE" >/dev/null 2>&1; then
	# SAM adds its emulator to the image, which needs a shell, mv and chmod. The functions need nothing.
	echo "$E2E_IMAGE cannot be pulled: the functions run in an image made from busybox."
	rootfs=$(mktemp -d)
	export E2E_IMAGE=entra-connector-e2e:busybox
	trap 'rm -rf "$rootfs"; docker rmi "$E2E_IMAGE" >/dev/null' EXIT
	mkdir -p "$rootfs"/{bin,etc/ssl/certs,tmp,var/task,var/rapid}
	cp -L "$(command -v busybox)" "$rootfs/bin/busybox"
	for applet in sh mv chmod; do ln -s busybox "$rootfs/bin/$applet"; done
	tar -C "$rootfs" -c . | docker import --change 'ENV PATH=/bin' - "$E2E_IMAGE" >/dev/null
fi

cd "$(dirname "$0")/../../internal/e2e"
"$2" -test.v -test.timeout 15m -test.run '^TestSAM$'
