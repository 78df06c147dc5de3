#!/usr/bin/env python3
"""Fine-tuning beside PyTorch: the same ResNet-18, samples of Fashion-MNIST, batch and threads.

  finetune_peer.py [--epochs 3] [--seeds 3] [--threads 2] [--train 3000]

PyTorch makes the network (ResNet-18 of a quarter of the width, torchvision's names, for images of 64
pixels) and trains it on upside-down images first. Its checkpoint and the files of both ONNX
exporters go into a zoo, and their logits are compared through ONNX Runtime. Then, seed by seed and in
rotating order, each in a process of its own: `tans finetune`, and the same loop in PyTorch (AdamW,
warm-up and cosine, label smoothing, clipped gradients, the same random changes of images, a tenth
held back for validation, the best epoch kept), once with its default layout of memory and once
channels-last. All are scored on the 10,000 test images: what tans exports by ONNX Runtime.

Writes the table into docs/BENCHMARKS.md and ends with the lines

  accuracy TANS PYTORCH DIFFERENCE      means over the seeds
  ratio epoch R                         median epoch time of tans over that of PyTorch

Needs Python 3.9 with pip, cargo and apt-get; makes what it needs in the cache folder (TANS_CACHE,
default ~/.cache/tans): PyTorch's package is the one with CUDA, some gigabytes.
"""

import argparse
import collections
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "../..")
sys.path.insert(0, os.path.join(ROOT, "scripts"))
import packages

REQUIREMENTS = [
    "torch==2.11.0", "onnx==1.23.2", "onnxscript==0.7.2", "onnxruntime==1.32.0", "numpy==2.4.6",
]  # fmt: skip
SPACE, SIDE, CLASSES, BATCH = "resnet:18-w0.25", 64, 10, 32
PRETRAINING, TESTS = 10_000, 10_000
SYSTEMS = ["tans", "PyTorch", "PyTorch, channels-last"]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def main():
    packages.in_venv(REQUIREMENTS, "venv-finetune")
    options = parse()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    if options.worker is not None:
        return print(json.dumps(train(options)))
    subprocess.run([os.path.join(ROOT, "scripts/build.sh")], check=True)
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        make_files(options)
        zoo = make_zoo(options)
        results = {system: collections.defaultdict(list) for system in SYSTEMS}
        for seed in range(options.seeds):
            shift = seed % len(SYSTEMS)
            for system in SYSTEMS[shift:] + SYSTEMS[:shift]:
                run = tune(zoo, seed, options) if system == "tans" else peer(system, seed, options)
                print(f"{system}, seed {seed}: {json.dumps(run)}", file=sys.stderr, flush=True)
                results[system]["accuracy"].append(run["accuracy"])
                results[system]["seconds"] += run["seconds"]
    write(results, options)


def parse():
    parser = argparse.ArgumentParser(description="tans finetune beside PyTorch")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train", type=int, default=3000, help="images to train on")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--channels-last", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def fashion(part):
    """Images [n, 28, 28] and labels [n], as tensors."""
    import numpy as np
    import torch

    folder = packages.deb("dataset-fashion-mnist") + "/usr/share/datasets/fashion-mnist/"
    with gzip.open(f"{folder}{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 28, 28)
    with gzip.open(f"{folder}{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read()[8:], np.uint8)
    return torch.tensor(images), torch.tensor(labels, dtype=torch.int64)


def resnet18():
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.downsample = None
            if stride != 1 or inputs != outputs:
                conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    layers = collections.OrderedDict(
        conv1=nn.Conv2d(3, 16, 7, 2, 3, bias=False), bn1=nn.BatchNorm2d(16), relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, 2, 1),
    )  # fmt: skip
    inputs = 16
    for stage, outputs in enumerate([16, 32, 64, 128]):
        first = Block(inputs, outputs, 2 if stage else 1)
        layers[f"layer{stage + 1}"] = nn.Sequential(first, Block(outputs, outputs, 1))
        inputs = outputs
    layers.update(avgpool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(128, CLASSES))
    return nn.Sequential(layers)


def prepared(images):
    """uint8 [n, 28, 28] to what the network takes."""
    import torch

    x = images[:, None].expand(-1, 3, -1, -1).float()
    x = torch.nn.functional.interpolate(x, SIDE, mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (x / 255 - mean) / std


def changed(images, generator):
    """As src/graph/exec/augment.rs: shifted, scaled and brightened copies."""
    import torch

    n, side = len(images), images.shape[-1]
    within = lambda limit: (torch.rand(n, 1, generator=generator) * 2 - 1) * limit
    scale, brightness, centre = 1 + within(0.08), 1 + within(0.15), (side - 1) / 2
    places = (torch.arange(side) - centre)[None] * scale + centre
    x, y = places + within(0.1) * side, places + within(0.1) * side
    unit = lambda at: at * 2 / (side - 1) - 1
    grid = torch.stack([unit(x)[:, None].expand(-1, side, -1), unit(y)[:, :, None].expand(-1, -1, side)], -1)
    moved = torch.nn.functional.grid_sample(
        images[:, None].float(), grid, padding_mode="border", align_corners=True
    )
    return (moved[:, 0] * brightness[..., None]).round().clamp(0, 255).to(torch.uint8)


def split(labels, share, generator):
    """Stratified: (rest, share)."""
    import torch

    rest, held = [], []
    for label in range(CLASSES):
        members = (labels == label).nonzero()[:, 0]
        members = members[torch.randperm(len(members), generator=generator)]
        count = round(len(members) * share)
        held.append(members[:count])
        rest.append(members[count:])
    return torch.cat(rest), torch.cat(held)


def fit(model, images, labels, generator, epochs, channels_last=False):
    """The loop; seconds of each epoch, its validation and copy of the weights included."""
    import math
    import time

    import torch

    train, held = split(labels, 0.1, generator)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0}])
    steps = math.ceil(len(train) / BATCH)
    total, warmup = steps * epochs, steps * 0.5
    seconds, best, step = [], (-1, None), 0
    for _ in range(epochs):
        clock = time.perf_counter()
        model.train()
        for batch in train[torch.randperm(len(train), generator=generator)].split(BATCH):
            share = max(0.0, (step - warmup) / (total - warmup))
            rate = (step + 1) / warmup if step + 1 < warmup else 0.5 * (1 + math.cos(math.pi * share))
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * rate
            x = prepared(changed(images[batch], generator))
            x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
            loss = torch.nn.functional.cross_entropy(model(x), labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            loss.item()
            step += 1
        accuracy = score(model, images[held], labels[held])
        if accuracy > best[0]:
            best = accuracy, {name: value.clone() for name, value in model.state_dict().items()}
        seconds.append(time.perf_counter() - clock)
    model.load_state_dict(best[1])
    return seconds


def score(model, images, labels):
    import torch

    model.eval()
    with torch.no_grad():
        right = [(model(prepared(x)).argmax(1) == y).sum() for x, y in zip(images.split(256), labels.split(256))]
    return (sum(right) / len(labels)).item()


def make_files(options):
    """The network as PyTorch's checkpoint and by both of its exporters, and the dataset."""
    import numpy as np
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    images, labels = fashion("train")
    model = resnet18()
    generator = torch.Generator().manual_seed(0)
    other = images[-PRETRAINING:].flip(1)
    fit(model, other, labels[-PRETRAINING:], generator, 2)
    path = lambda name: os.path.join(options.folder, name)
    torch.save(model.state_dict(), path("checkpoint.pth"))
    model.eval()
    x = prepared(images[:1])
    names = {"input_names": ["images"], "output_names": ["logits"]}
    # A run of one image would fix the batch in the exported graph.
    torch.onnx.export(
        model, (prepared(images[:2]),), path("dynamo.onnx"), dynamo=True, external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False, **names,
    )  # fmt: skip
    torch.onnx.export(
        model, (x,), path("torchscript.onnx"), dynamo=False,
        dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}}, **names,
    )  # fmt: skip
    with torch.no_grad():
        np.save(path("logits.npy"), model(prepared(images[:16])).numpy())
    count = round(options.train / 0.6 / CLASSES)
    chosen = [(labels == label).nonzero()[:count, 0] for label in range(CLASSES)]
    chosen = torch.cat(chosen).numpy()
    np.savez(path("fashion.npz"), x=images.numpy()[chosen], y=labels.numpy()[chosen])


def tans(*arguments):
    command = [os.path.join(ROOT, "target/release/tans"), "--json", "--quiet", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        packages.fail(f"tans {arguments[0]} failed with code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def make_zoo(options):
    """A zoo with the three files, whose logits are PyTorch's."""
    zoo = os.path.join(options.folder, "zoo")
    tans("init", zoo)
    contract = ["--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD)), "--benchmark", "none"]
    for file in ["torchscript.onnx", "dynamo.onnx", "checkpoint.pth"]:
        space = ["--space", f"{SPACE}@{SIDE}"] if file.endswith(".pth") else []
        (stored,) = tans("ingest", zoo, os.path.join(options.folder, file), *space, *contract)
        if stored["note"]:
            packages.fail(f"{file}: {stored['note']}")
        export = os.path.join(options.folder, f"exported-{file}.onnx")
        tans("export", zoo, stored["model"], "-o", export)
        off = distance(export, options)
        print(f"{file}: logits off by {off:.1e}", file=sys.stderr)
        if off > 1e-4:
            packages.fail(f"{file}: expected PyTorch's logits to 1e-4, found them off by {off:.1e}")
    return zoo


def outputs(path, x, threads):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def distance(path, options):
    import numpy as np

    expected = np.load(os.path.join(options.folder, "logits.npy"))
    found = outputs(path, prepared(fashion("train")[0][:16]), options.threads)
    return float((np.abs(found - expected) / np.maximum(np.abs(expected), 1)).max())


def tune(zoo, seed, options):
    """Ours: the epochs' seconds as it reports them, the accuracy of its export."""
    import torch

    path = lambda name: os.path.join(options.folder, name)
    *epochs, _ = tans(
        "finetune", zoo, "checkpoint", path("fashion.npz"), "--epochs", str(options.epochs), "--patience", "0",
        "--batch-size", str(BATCH), "--seed", str(seed), "--split-seed", str(seed), "--benchmark", "none",
        "--per-class", "100000", "--name", f"tuned-{seed}", "-o", path(f"tuned-{seed}.onnx"),
    )  # fmt: skip
    images, labels = (part[:TESTS] for part in fashion("t10k"))
    found = [outputs(path(f"tuned-{seed}.onnx"), prepared(x), options.threads) for x in images.split(256)]
    right = sum(int((torch.tensor(y).argmax(1) == z).sum()) for y, z in zip(found, labels.split(256)))
    return {"accuracy": right / len(labels), "seconds": [epoch["seconds"] for epoch in epochs]}


def peer(system, seed, options):
    command = [sys.executable, os.path.abspath(__file__), "--worker", str(seed), "--folder", options.folder]
    command += ["--epochs", str(options.epochs), "--threads", str(options.threads)]
    command += ["--channels-last"] if "channels-last" in system else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        packages.fail(f"{system} failed with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def train(options):
    """PyTorch's run, in a process of its own."""
    import numpy as np
    import torch

    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(options.worker)
    with np.load(os.path.join(options.folder, "fashion.npz")) as arrays:
        images, labels = torch.tensor(arrays["x"]), torch.tensor(arrays["y"], dtype=torch.int64)
    _, part = split(labels, 0.6, generator)
    model = resnet18()
    model.load_state_dict(torch.load(os.path.join(options.folder, "checkpoint.pth")))
    with torch.no_grad():
        model.fc.weight.normal_(0, 1 / 128**0.5, generator=generator)
        model.fc.bias.zero_()
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)
    seconds = fit(model, images[part], labels[part], generator, options.epochs, options.channels_last)
    images, labels = (part[:TESTS] for part in fashion("t10k"))
    return {"accuracy": score(model, images, labels), "seconds": seconds}


def write(results, options):
    import report

    rows, medians = [], {}
    for system, values in results.items():
        medians[system] = statistics.median(values["seconds"])
        accuracies = ", ".join(f"{value:.4f}" for value in values["accuracy"])
        mean = statistics.mean(values["accuracy"])
        rate = options.train * 0.9 / medians[system]
        rows.append([system, f"{medians[system]:.2f}", f"{rate:,.0f}", f"{mean:.4f}", accuracies])
    ratio = medians["tans"] / medians["PyTorch"]
    best = medians["tans"] / min(seconds for system, seconds in medians.items() if system != "tans")
    ours, theirs = (statistics.mean(results[system]["accuracy"]) for system in SYSTEMS[:2])
    text = "\n\n".join([
        f"{options.seeds} seeds, {options.epochs} epochs of {round(options.train * 0.9)} images in batches of {BATCH}, "
        f"{options.threads} threads; {report.machine()}.",
        report.table(["system", "epoch, s (median)", "images/s", "accuracy (mean)", "accuracies"], rows),
        f"An epoch of tans takes {ratio:.2f} x PyTorch's, {best:.2f} x that of its faster layout; accuracy on the "
        f"{TESTS:,} test images differs by {abs(ours - theirs) * 100:.2f} points. CUDA: not measured.",
    ])  # fmt: skip
    print(text)
    report.put("finetune", text)
    print(f"accuracy {ours:.4f} {theirs:.4f} {ours - theirs:+.4f}")
    print(f"ratio epoch {ratio:.2f}")


if __name__ == "__main__":
    main()
