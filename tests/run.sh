#!/usr/bin/env bash
# Runs every test. Prepares, under target/, what the comparisons with MNE-Python and numpy need (a virtual environment)
# and the CUDA compiler that the emulator's tests need (NVIDIA's wheels: their licence forbids committing them), then
# runs the whole suite; arguments are passed on to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."

# prepare FOLDER REQUIREMENTS: a virtual environment with exactly what is pinned there; nothing to do when it has it.
prepare() {
    local folder=$1 requirements=$2
    cmp --silent "$requirements" "$folder/installed.txt" && return
    echo "preparing $folder (once)"
    python3 -m venv "$folder" &&
        "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" &&
        cp "$requirements" "$folder/installed.txt"
}

prepare target/python tests/python/requirements.txt
export GPT2MEG_PYTHON="$PWD/target/python/bin/python"

# With the compiler at hand, a test that skips because it does not find it would be a defect: it fails instead.
if prepare target/cuda emulator/tests/requirements.txt; then
    export PTX_EMULATOR_REQUIRE_CUDA=1
elif [ -n "${PTX_EMULATOR_REQUIRE_CUDA:-}" ]; then
    echo "the CUDA compiler could not be set up in target/cuda" >&2
    exit 1
else
    echo "the CUDA compiler could not be set up in target/cuda: tests that compile kernels will say that they are skipped" >&2
fi

exec cargo test --workspace --features python-tests,emulated "$@"
