# Sourced by .ci/run: installs what the tests need of a machine beside Python's packages, by Debian's apt-get, if it isn't there.

# Runs as root, which a machine of CI is or may become.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo --preserve-env=DEBIAN_FRONTEND "$@"; fi; }

# Prints the packages that are missing.
missing_packages() {
    # debootstrap makes a base image where no registry can be reached.
    if ! docker version >/dev/null 2>&1; then
        command -v dockerd >/dev/null || echo docker.io
        command -v debootstrap >/dev/null || echo debootstrap
    fi
    # It emulates older CPUs.
    command -v qemu-x86_64 >/dev/null || echo qemu-user
    # tests/browser/chromium.py knows the same names.
    local name
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        if command -v "$name" >/dev/null; then return 0; fi
    done
    echo chromium
}

# One call for all of them, since each reads the lists of packages anew.
ensure_packages() {
    local missing
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -qq
    # shellcheck disable=SC2086  # splits them at their ends
    as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
