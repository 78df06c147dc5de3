#!/usr/bin/env bash
# Formatting, lints as errors, and the syntax of every script.
set -euo pipefail
export LC_ALL=C

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
cd "$root"
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 \
        || { echo "lint: cargo $component is missing: rustup component add rustfmt clippy" >&2; exit 1; }
done
scripts/setup.sh
cargo fmt --all --check
for script in scripts/*.sh .ci/run; do
    bash -n "$script"
done
python3 - scripts/*.py <<'PY'
import ast, sys
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as source:
        ast.parse(source.read(), path)
PY
cargo clippy --release --all-targets --package tans --package tans-storage --package tans-index \
    --package tans-python -- -D warnings
