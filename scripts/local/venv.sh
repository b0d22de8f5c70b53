# Sourced by scripts/serve, deploy, destroy and test: makes .venv with what the lock of a requirements file names, once.
# `ensure_venv FILE` is called in the project's folder; after it the venv's programs, Node among them, come first in PATH.
# The lock of FILE is scripts/locks/FILE.

# They would put packages or a standard library from elsewhere in the place of the venv's, or hide the scripts' folder.
unset PYTHONPATH PYTHONHOME PYTHONSAFEPATH

say() { printf '%s\n' "$*" >&2; }

# Prints the path of a Python for which torch and ONNX Runtime have builds. Links are followed, since .venv/bin/python3,
# which is the first in PATH where .venv is active, may be about to be deleted.
find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3 python3.14 python3.13 python3.12 python3.11
    fi
    for candidate; do
        "$candidate" -c 'import os, sys
(3, 11) <= sys.version_info[:2] <= (3, 14) or sys.exit(1)
print(os.path.realpath(sys.executable))' 2>/dev/null && return 0
    done
    say "This needs Python 3.11, 3.12, 3.13 or 3.14, but $* is none of them."
    say "Install one, and name it where it isn't in PATH: PYTHON=/path/to/python3 $0"
    return 1
}

make_venv() {
    local python said
    python=$(find_python) || return 1
    rm -rf .venv
    if ! said=$("$python" -m venv .venv 2>&1); then
        rm -rf .venv
        say "$said"
        say "Making .venv with $python failed; on Debian and Ubuntu, apt-get install python3-venv first."
        return 1
    fi
}

# Passes on those of pip's lines that name a file of a megabyte or more, or its last step. The others would be hundreds.
only_steps() {
    local line
    while IFS= read -r line; do
        case $line in
            *Downloading\ *MB\)* | *Using\ cached\ *MB\)*) say "$line" ;;
            "Installing collected packages: "*)
                # shellcheck disable=SC2086  # splits the list at its spaces
                set -- ${line#*: }
                say "  Installing packages: $# (pip says nothing until it is done)"
                ;;
        esac
    done
}

pip_install() {
    local options=(--disable-pip-version-check --progress-bar off)
    # Into .venv, whatever pip's settings say (`user = true`, PIP_TARGET, ...); those that name an index stay in force.
    options+=(--no-user --target= --root=/ --prefix="$PWD/.venv")
    # Python compiles what it imports. To compile all of it would take two thirds of the set-up's time, and is worth it
    # only where Python may not keep what it has compiled.
    if [ -z "${PYTHONDONTWRITEBYTECODE:-}" ]; then options+=(--no-compile); fi
    .venv/bin/python -m pip install "${options[@]}" "$@" 2>&1 | tee -a .venv/pip.log | only_steps
}

torch_pin() { grep -E '^torch==' inference/requirements-torch.txt; }

# torch from PyTorch's CPU index: on Linux the ordinary build brings several GB of CUDA along. Where that index can't be
# reached, or has no build for this machine, the ordinary index (or a wheel that pip knows of) has to do.
install_torch() {
    local pin
    pin=$(torch_pin)
    pip_install --no-deps --retries 1 --timeout 20 --index-url https://download.pytorch.org/whl/cpu "$pin" && return 0
    say "PyTorch's own index didn't give $pin; trying pip's, where on Linux it may be larger by several GB."
    pip_install --no-deps "$pin"
}

# All that the lock names, and nothing else: pip refuses a file whose hash the lock doesn't have. Not with --no-deps: pip
# then forgets which package needs which, and installs aws-cdk-lib before a package that overwrites some of its files.
install_lock() {
    pip_install --require-hashes -r "$1" || return 1
    # The CPU build of torch needs no more. Another build asks for libraries of CUDA, which no lock has.
    .venv/bin/python -c 'import torch' >>.venv/pip.log 2>&1 || pip_install "$(torch_pin)"
}

advise() {
    say "Installing $1 failed. pip's last lines:"
    tail -n 15 .venv/pip.log | sed 's/^/    /' >&2
    say "If it's about the network, give the same command again: it goes on where it stopped."
    say "If pip finds no such version: this needs Linux with glibc 2.28, or macOS 14 on Apple silicon, or newer, and Python"
    say "  3.11 to 3.14. Here: $(.venv/bin/python -c 'import platform; print(platform.platform(), "with Python", platform.python_version())')."
    say "If it's about pip's settings, this lists them: $PWD/.venv/bin/python -m pip config list"
    say "All that pip said: $PWD/.venv/pip.log"
}

# A venv is complete when its stamp holds the checksum of the requirements and the lock it was made from.
ensure_venv() {
    local requirements=$1 lock=scripts/locks/$1 wanted stamp
    # shellcheck disable=SC2046  # the files that it includes
    wanted=$(cat "$requirements" $(sed -n 's/^-r //p' "$requirements") requirements.txt inference/requirements*.txt "$lock" | cksum)
    stamp=.venv/.installed-${requirements%.txt}
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || ! .venv/bin/python -c '' 2>/dev/null; then
        trap 'say ""; say "Stopped; the same command goes on from here."; exit 130' INT
        say "Setting up .venv from $requirements, once; this takes a minute or two and downloads 400 to 750 MB."
        if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then make_venv || return 1; fi
        if ! .venv/bin/python scripts/local/locks.py "$requirements" "$lock"; then
            say "The lock doesn't fit the requirements. This writes it anew: $PWD/.venv/bin/python scripts/lock.py"
            return 1
        fi
        : >.venv/pip.log
        if ! { install_torch && install_lock "$lock"; }; then
            advise "$requirements"
            return 1
        fi
        printf '%s\n' "$wanted" >"$stamp"
        trap - INT
    fi
    PATH=$PWD/.venv/bin:$PATH
    export PATH
}
