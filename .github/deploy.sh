#!/usr/bin/env bash
# Runs the steps of a deployment that its arguments name: get_model, get_state, deploy. For workflows/deploy-to.yml.
# An earlier commit is deployed with its own version of this file.
# STACK_NAME names the stack. The settings are in .env.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. scripts/local/venv.sh
ensure_venv requirements.txt

setting() { python -c 'import dotenv, sys; print(dotenv.dotenv_values(".env").get(sys.argv[1]) or "")' "$1"; }

# MODEL_COMMAND: the script that gets the model, with its options.
get_model() {
    # shellcheck disable=SC2086  # splits the options
    python scripts/${MODEL_COMMAND:-fetch_model.py}
}

# Exports the precision of the settings. The export needs the state: it measures the agreement on its titles.
export_precision() {
    local precision fastest=int8
    precision=$(setting ENCODER_PRECISION)
    [ "$(setting ENCODER_ENGINE)" != torch ] || fastest=bfloat16
    case "${precision:-float32}" in
        float32) ;;
        auto)
            python scripts/export_onnx.py inference/model --precision "$fastest" ||
                echo "::warning::$fastest could not be exported (see above), so float32 will serve."
            ;;
        *) python scripts/export_onnx.py inference/model --precision "$precision" ;;
    esac
}

# Gets the served state. Builds one only if nothing is served that the model can use, never after another failure.
# BUILD_OPTIONS: the options of scripts/build_state.py.
get_state() {
    local code=0
    python scripts/publish_state.py --fetch-state inference/model/incident_cls.pt || code=$?
    if [ "$code" = 3 ]; then
        # shellcheck disable=SC2086  # splits the options
        python scripts/build_state.py --latest ${BUILD_OPTIONS:---vectors published}
    elif [ "$code" != 0 ]; then
        return "$code"
    fi
    export_precision
}

deploy() { scripts/deploy --yes; }

for part; do "$part"; done
