#!/usr/bin/env bash
# Builds the Python binding into a virtual environment of its own in the cache and runs its tests.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
cache="${TANS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tans}"
venv="$cache/venv-python"

if [ ! -x "$venv/bin/pytest" ] || [ ! -x "$venv/bin/maturin" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'maturin>=1.9,<2' 'pytest>=8' 'numpy>=1.23'
fi

cd "$root/bindings/python"
# One profile for everything that links RocksDB or libtorch.
VIRTUAL_ENV="$venv" "$venv/bin/maturin" develop --release --quiet
"$venv/bin/pytest" --quiet tests
