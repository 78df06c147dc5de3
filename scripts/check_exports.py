#!/usr/bin/env python3
"""Checks networks that we exported: onnx.checker accepts them and ONNX Runtime gives our logits.

  check_exports.py FOLDER     FOLDER/N.onnx with FOLDER/N.json {spec, shape, input, logits}

Needs numpy, onnx and onnxruntime; scripts/test_onnx.sh writes the files and has them.
"""
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

TOLERANCE = 1e-4


def main():
    records = sorted(Path(sys.argv[1]).glob("*.json"))
    if not records:
        sys.exit(f"check_exports: expected records in {sys.argv[1]}, found none")
    for path in records:
        record = json.loads(path.read_text())
        model = onnx.load(path.with_suffix(".onnx"))
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(model.SerializeToString(),
                                               providers=["CPUExecutionProvider"])
        x = np.array(record["input"], np.float32).reshape(record["shape"])
        y = session.run(None, {session.get_inputs()[0].name: x})[0].reshape(-1)
        expected = np.array(record["logits"])
        worst = np.max(np.abs(y - expected) / np.maximum(1.0, np.abs(expected)))
        print(f"{record['spec']}: checked, ONNX Runtime differs by {worst:.1e}")
        if not worst <= TOLERANCE:
            sys.exit(f"check_exports: {record['spec']}: expected at most {TOLERANCE}, found {worst}")


if __name__ == "__main__":
    main()
