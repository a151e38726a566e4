#!/usr/bin/env bash
# engine.sh <command>...: starts a Docker engine, runs the command with it, and stops the engine. It
# needs Linux, root, dockerd with its client, and busybox.
#
# The engine, its containers and the command run in new namespaces. Everything that they start,
# mount, listen on or route is gone when the command ends, and the machine's own engine and firewall
# stay as they are. There is no network to other machines, so no image can be pulled.
set -euo pipefail

if [ "$1" = --inside ]; then
	shift
	trap 'exit 130' INT TERM # without a handler, the first process of a namespace ignores them
	# The engine keeps its files in memory. There its overlayfs works whatever the machine's disk is,
	# even if that is an overlayfs itself, on which another cannot be stacked.
	state=/run
	mount -t tmpfs tmpfs $state
	[ -n "$(ls /sys/fs/cgroup)" ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
	busybox ip link set lo up
elif unshare --mount --net --pid --fork --mount-proc true 2>/dev/null; then
	exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" --inside "$@"
else # as in a chroot, whose root is not a mount
	echo 'This machine allows no new namespaces: the Docker engine runs without.'
	state=$(mktemp -d)
	trap 'busybox ip link del docker0 2>/dev/null || true; rm -rf "$state"' EXIT
fi

# No firewall is needed: no other machine can reach the engine, or be reached.
cat >"$state/dockerd.json" <<END
{"data-root": "$state/docker-data", "exec-root": "$state/docker", "pidfile": "$state/docker.pid",
 "cgroup-parent": "/entra-connector-e2e", "iptables": false, "ip6tables": false}
END
export DOCKER_HOST=unix://$state/docker.sock
unset DOCKER_CONTEXT

for options in '' --storage-driver=vfs; do # vfs is slower, but works everywhere
	dockerd --config-file "$state/dockerd.json" --host "$DOCKER_HOST" $options >"$state/dockerd.log" 2>&1 </dev/null &
	dockerd=$!
	patience=$((SECONDS + 120)) # a busy machine starts it slowly
	until timeout 10 docker version >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$patience" ] || kill -KILL "$dockerd" 2>/dev/null || true
		kill -0 "$dockerd" 2>/dev/null || continue 2
		sleep 0.2
	done
	docker info --format 'Started Docker {{.ServerVersion}} with {{.Driver}}'
	status=0
	"$@" || status=$?
	kill "$dockerd" && wait "$dockerd" || true # this removes the containers' control groups too
	find /sys/fs/cgroup -depth -type d -path '*/entra-connector-e2e*' -exec rmdir {} + || true
	exit "$status"
done
echo 'The Docker engine did not start:'
tail -n 20 "$state/dockerd.log"
exit 1
