#!/usr/bin/env bash
# Sets this machine up and leaves the release binary at target/release/tans.
set -euo pipefail
export LC_ALL=C

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
cd "$root"
scripts/setup.sh
cargo build --release --bin tans

# Cargo builds into the cache folder (see .cargo/config.toml), so that `git clean` costs no rebuild.
built="$(cargo metadata --format-version 1 --no-deps --offline \
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/release/tans"
mkdir -p target/release
if ! cmp -s "$built" target/release/tans; then
    # Through a rename, because a running binary cannot be overwritten.
    cp "$built" target/release/tans.partial
    mv target/release/tans.partial target/release/tans
fi
