#!/usr/bin/env python3
"""Writes tests/data/pytorch/: small files of torch.save and torch.jit.save, good and refused.

Needs torch.
"""
import os
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "data" / "pytorch"


def state():
    plain = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    grid = torch.arange(16, dtype=torch.float32).reshape(4, 4)
    return OrderedDict([
        ("plain", nn.Parameter(plain)),
        ("transposed", plain.t()),
        ("window", grid[1:3, 1:3]),
        ("tied", plain),
        ("half", torch.tensor([0.5, -2.0], dtype=torch.float16)),
        ("brain", torch.tensor([0.5, -2.0], dtype=torch.bfloat16)),
        ("double", torch.tensor([0.5, -2.0], dtype=torch.float64)),
        ("count", torch.tensor(7)),
    ])


class Hostile:
    def __reduce__(self):
        return os.system, ("true",)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x):
        return self.linear(x)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    weights = state()
    torch.save(weights, FOLDER / "state.pt")
    torch.save(weights, FOLDER / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(weights, FOLDER / "protocol4.pt", pickle_protocol=4)
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    torch.save({"epoch": 3, "best": 0.25, "optimizer": optimizer.state_dict(), "state_dict": weights,
                "device": torch.device("cpu"), "size": torch.Size([2, 3]), "dtype": torch.float32},
               FOLDER / "checkpoint.pt")
    torch.save(nn.Linear(2, 2), FOLDER / "module.pt")
    torch.save({"weight": torch.zeros(2), "trap": Hostile()}, FOLDER / "hostile.pt")
    torch.jit.save(torch.jit.script(Net()), str(FOLDER / "script.pt"))


if __name__ == "__main__":
    main()
