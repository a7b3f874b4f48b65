#!/usr/bin/env bash
# Runs every test. Prepares what the comparisons with MNE-Python and numpy need (a virtual environment under target/),
# then runs the whole suite; arguments are passed on to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=target/python
wanted=$(cat tests/python/requirements.txt)
if [ "$(cat "$environment/installed.txt" 2>/dev/null)" != "$wanted" ]; then
    echo "preparing $environment (once)"
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check -r tests/python/requirements.txt
    printf '%s\n' "$wanted" > "$environment/installed.txt"
fi

export GPT2MEG_PYTHON="$PWD/$environment/bin/python"
exec cargo test --workspace --features python-tests "$@"
