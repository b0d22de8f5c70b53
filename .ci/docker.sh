# Sourced by .ci/run, after .ci/packages.sh: sees to it that a Docker Engine answers. What it starts, it stops when the
# shell ends.

start_dockerd() {
    docker_dir=$(mktemp -d)
    export DOCKER_HOST=unix://$docker_dir/docker.sock
    as_root dockerd --host "$DOCKER_HOST" --data-root "$docker_dir/data" --exec-root "$docker_dir/exec" --group "$(id -g)" \
        --pidfile "$docker_dir/pid" "$@" >"$docker_dir/log" 2>&1 &
    docker_job=$!
    local tries
    for tries in $(seq 100); do
        docker version >/dev/null 2>&1 && return 0
        kill -0 "$docker_job" 2>/dev/null || break
        sleep 0.2
    done
    tail -n 20 "$docker_dir/log" >&2
    stop_dockerd
    return 1
}

stop_dockerd() {
    [ -n "${docker_dir:-}" ] || return 0
    # Not the job, which is a shell or sudo around it.
    as_root kill "$(cat "$docker_dir/pid" 2>/dev/null)" 2>/dev/null || true
    wait "$docker_job" 2>/dev/null || true
    # It may leave mounts: of its data where it has not started, of a network namespace where it has.
    local mount
    for mount in $(cut -d ' ' -f 2 /proc/mounts | grep "^$docker_dir/" | sort -r); do as_root umount "$mount" || true; done
    as_root rm -rf "$docker_dir"
    docker_dir=
}

# Leaves DOCKER_HOST pointing to an engine. Fails where none can be had.
ensure_docker() {
    if docker version >/dev/null 2>&1; then return 0; fi
    trap stop_dockerd EXIT
    # In a sandbox Docker's preferred storage may not work; vfs does everywhere, slowly.
    start_dockerd || start_dockerd --storage-driver=vfs
}
