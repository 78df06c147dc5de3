#!/usr/bin/env bash
# Compares us with the ONNX project's corpus and with ONNX Runtime, and writes docs/OPERATORS.md.
# TANS_FUZZ_SECONDS (default 60) is how long damaged models are fed to the reader and the executor.
# TANS_TORCH_PYTHON names a Python with torch, onnx and onnxscript, whose ResNet-18 is then compared too.
set -euo pipefail
export LC_ALL=C

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
cache="${TANS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tans}"
venv="$cache/venv-onnx"
requirements=(onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6)

if [ "$(cat "$venv/.complete" 2>/dev/null)" != "${requirements[*]}" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${requirements[@]}"
    echo "${requirements[*]}" >"$venv/.complete"
fi

cd "$root"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
tests() { cargo test --release --package tans --lib --quiet -- --nocapture "$@"; }
TANS_WRITE_OPERATORS=1 tests the_corpus_of_the_onnx_project
sed -n '/^| suite/,/^## What/p' docs/OPERATORS.md | grep '^|'
tests --include-ignored corpus_tests::files corpus_tests::networks fuzz_tests third_party_networks
TANS_EXPORTS="$work" tests --include-ignored exports_for_another_runtime
"$venv/bin/python" scripts/check_exports.py "$work"

if [ -n "${TANS_TORCH_PYTHON:-}" ]; then
    "$TANS_TORCH_PYTHON" scripts/export_resnet18.py "$work"
    TANS_TORCH_EXPORTS="$work" tests --include-ignored exports_of_pytorch_give_its_logits
else
    echo "test_onnx: *** SKIPPED *** ResNet-18 from PyTorch: TANS_TORCH_PYTHON names no Python that has torch"
fi
