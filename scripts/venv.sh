# Sourced by scripts/serve and scripts/test: makes .venv with what a requirements file pins, once.
# After `ensure_venv FILE` the venv's programs, Node among them, come first in PATH.

say() { printf '%s\n' "$*" >&2; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    say "This needs Python 3.11 or newer; name one with PYTHON=/path/to/python3."
    return 1
}

# torch from PyTorch's CPU index: on Linux the ordinary build brings several GB of CUDA along. Where that index can't be
# reached, or has no build for this machine, the ordinary index (or a wheel that pip knows of) has to do.
install_torch() {
    local pin
    pin=$(grep -E '^torch==' inference/requirements-torch.txt)
    .venv/bin/python -m pip install --quiet --no-deps --retries 1 --timeout 20 \
        --index-url https://download.pytorch.org/whl/cpu "$pin" 2>/dev/null ||
        .venv/bin/python -m pip install --quiet --no-deps "$pin"
}

# A venv is complete when its stamp holds the checksum of the requirements it was made from.
ensure_venv() {
    local requirements=$1 python wanted stamp
    python=$(find_python) || return 1
    wanted=$(cat "$requirements" requirements.txt inference/requirements*.txt | cksum)
    stamp=.venv/.installed-${requirements%.txt}
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || ! .venv/bin/python -c '' 2>/dev/null; then
        say "Setting up .venv from $requirements; this takes a minute or two, once."
        if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
            rm -rf .venv
            if ! "$python" -m venv .venv >&2; then
                rm -rf .venv
                say "Making .venv failed; on Debian and Ubuntu, apt-get install python3-venv first."
                return 1
            fi
        fi
        if ! { install_torch && .venv/bin/python -m pip install --quiet -r "$requirements"; } >&2; then
            say "Installing $requirements failed; pip's message is above. Give the same command again to go on."
            return 1
        fi
        printf '%s\n' "$wanted" >"$stamp"
    fi
    PATH=$PWD/.venv/bin:$PATH
    export PATH
}
