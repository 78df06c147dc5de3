#!/usr/bin/env python3
"""Exports a ResNet-18 from PyTorch by both of its ONNX exporters and as checkpoints, with its logits.

  export_resnet18.py FOLDER     writes FOLDER/{torchscript,dynamo}.onnx, FOLDER/{zip,legacy}.pth, and .json
                                {pixels, side, logits} for each

Needs torch, onnx and onnxscript. scripts/test_onnx.sh runs it where TANS_TORCH_PYTHON names a Python
that has them; the test `exports_of_pytorch_give_its_logits` reads the files.
"""
import json
import sys
from pathlib import Path

import torch
from torch import nn

SIDE = 96
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al. 2015)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet18():
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
              nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for outputs, stride in [(64, 1), (128, 2), (256, 2), (512, 2)]:
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
        inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return nn.Sequential(*layers)


def main():
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    model = resnet18()
    # Running statistics as after training.
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, SIDE, SIDE))
    model.eval()
    pixels = torch.randint(0, 256, (SIDE, SIDE, 3), dtype=torch.uint8)
    x = ((pixels / 255.0 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = model(x)[0].tolist()
    record = json.dumps({"side": SIDE, "pixels": pixels.flatten().tolist(), "logits": logits,
                         "mean": MEAN, "std": STD})
    for name, dynamo in [("torchscript", False), ("dynamo", True)]:
        path = folder / f"{name}.onnx"
        extra = {"external_data": False} if dynamo else {}
        torch.onnx.export(model, (x,), str(path), dynamo=dynamo, **extra)
        path.with_suffix(".json").write_text(record)
    for name, modern in [("zip", True), ("legacy", False)]:
        path = folder / f"{name}.pth"
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=modern)
        path.with_suffix(".json").write_text(record)


if __name__ == "__main__":
    main()
