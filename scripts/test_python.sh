#!/usr/bin/env bash
# Tests the Python binding: builds the extension from the program's own compiled dependencies and runs pytest on it.
# With --install it is installed as a user would, through pip, and tested then. Numpy and pytest lie in the cache; pip
# alone is needed, no venv module.
set -euo pipefail
export LC_ALL=C

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
cache="${TANS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tans}"
packages="$cache/python-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"

install_into() {
    python3 -m pip install --quiet --disable-pip-version-check --target "$@"
}

"$root/scripts/setup.sh"
cd "$root"
# Two clones may come here at the same moment; the second waits and finds the work done.
exec 8>"$cache/python.lock"
flock 8
if [ ! -f "$packages/.complete" ]; then
    rm -rf "$packages"
    install_into "$packages" 'numpy>=1.23' 'pytest>=8'
    touch "$packages/.complete"
fi
flock --unlock 8

if [ "${1:-}" = --install ]; then
    extension="$(mktemp -d)"
    trap 'rm -rf "$extension"' EXIT
    install_into "$extension" --no-deps "$root/bindings/python"
else
    # With the tests' features, as `cargo test` has just built everything: other features would be a second build.
    cargo build --release --lib --tests \
        --package tans --package tans-storage --package tans-index --package tans-python
    built="$(cargo metadata --format-version 1 --no-deps --offline \
        | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/release"
    extension="$built/python"
    mkdir -p "$extension"
    ln -sf ../libtans.so "$extension/tans.abi3.so"
fi
PYTHONPATH="$extension:$packages" PYTHONDONTWRITEBYTECODE=1 \
    python3 -m pytest --quiet -p no:cacheprovider bindings/python/tests
