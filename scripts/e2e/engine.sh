#!/usr/bin/env bash
# engine.sh <command>...: runs the command beside a Docker engine of its own, on Linux. It takes root, dockerd with its
# client, and busybox.
#
# Engine, containers and command live in namespaces of their own. What they start, mount, listen on or route is gone when
# the command ends, and nothing of the machine's own engine or firewall is touched. They reach each other, but no other
# machine: no image can be pulled.
set -euo pipefail

if [ "$1" = --inside ]; then
	shift
	trap 'exit 130' INT TERM # to the first process of a namespace they mean nothing by themselves
	# All that the engine keeps goes into memory, out of sight of the machine's own. That is also where its overlayfs works
	# whatever the machine's disk is; an overlayfs cannot lie on another.
	state=/run
	mount -t tmpfs tmpfs $state
	[ -n "$(ls /sys/fs/cgroup)" ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
	busybox ip link set lo up
elif unshare --mount --net --pid --fork --mount-proc true 2>/dev/null; then
	exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" --inside "$@"
else # as in a chroot, whose root is no mount
	echo 'Namespaces cannot be had here: the Docker engine runs without.'
	state=$(mktemp -d)
	trap 'busybox ip link del docker0 2>/dev/null || true; rm -rf "$state"' EXIT
fi

# No firewall: there is nobody to keep out and nowhere to forward to.
cat >"$state/dockerd.json" <<END
{"data-root": "$state/docker-data", "exec-root": "$state/docker", "pidfile": "$state/docker.pid",
 "cgroup-parent": "/entra-connector-e2e", "iptables": false, "ip6tables": false}
END
export DOCKER_HOST=unix://$state/docker.sock
unset DOCKER_CONTEXT

for options in '' --storage-driver=vfs; do # vfs is slower, and works everywhere
	dockerd --config-file "$state/dockerd.json" --host "$DOCKER_HOST" $options >"$state/dockerd.log" 2>&1 </dev/null &
	dockerd=$!
	patience=$((SECONDS + 120)) # a busy machine starts slowly
	until timeout 10 docker version >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$patience" ] || kill -KILL "$dockerd" 2>/dev/null || true
		kill -0 "$dockerd" 2>/dev/null || continue 2
		sleep 0.2
	done
	docker info --format 'Docker {{.ServerVersion}} with {{.Driver}}, started for this alone'
	status=0
	"$@" || status=$?
	kill "$dockerd" && wait "$dockerd" || true # it takes the containers' control groups along
	find /sys/fs/cgroup -depth -type d -path '*/entra-connector-e2e*' -exec rmdir {} + || true
	exit "$status"
done
echo 'The Docker engine does not start:'
tail -n 20 "$state/dockerd.log"
exit 1
