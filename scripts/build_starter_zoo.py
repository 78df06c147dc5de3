#!/usr/bin/env python3
"""Builds assets/starter.tar: small networks trained on the starter datasets, with all results.

  build_starter_zoo.py [PATH OF tans]      default: target/release/tans; `make starter-zoo`

Works in the cache folder (starter/work: the zoo in which networks are trained; starter/final: the
zoo in which the shipped f16 weights are measured) and may be stopped and started again at any
time: what a zoo already holds is skipped. Data, widths, epochs and seeds are fixed.

Needs Python 3.9 or newer, the release binary, and what starter_data.py needs.
"""

import collections
import json
import os
import shutil
import subprocess
import sys
import time

import packages
import starter_data

STARTER_BYTES_MAX = 25_000_000
# Sets with fewer images stay tasks without a network of their own: it would learn little.
TRAIN_IMAGES_MIN = 300
LICENCE = "MIT OR Apache-2.0"
# (first family, second family) of a set, and the widths each family goes through, set after set.
PAIRS = (("resnet8", "cnn"), ("cnn", "mobile"), ("mobile", "resnet8"))
WIDTHS = {"resnet8": (12, 16, 14, 18), "cnn": (20, 28, 16, 24), "mobile": (16, 12, 20)}
# About this many images pass a network in training, which takes 10 to 20 s of one core.
IMAGES_SEEN, EPOCHS_MIN, EPOCHS_MAX = 14_000, 15, 40

Set = collections.namedtuple("Set", "name file family side images")
Specialist = collections.namedtuple("Specialist", "name config file epochs seed")


class Tans:
    """Every command that this script gives to the binary stands here and nowhere else."""

    def __init__(self, binary):
        self.binary = binary

    def init(self, zoo):
        self.run("init", zoo)

    def init_from(self, zoo, starter):
        self.run("init", zoo, "--starter", starter)

    def models(self, zoo):
        return {line["name"] for line in self.json("list", zoo)}

    def tasks(self, zoo):
        return {line["name"] for line in self.json("task", "list", zoo)}

    def task_add(self, zoo, entry):
        self.run("task", "add", zoo, entry.name, entry.file, "--family", entry.family)

    def train(self, zoo, net):
        self.run(
            "finetune", zoo, net.config, net.file, "--from-scratch", "--epochs", str(net.epochs),
            "--seed", str(net.seed), "--name", net.name, "--license", LICENCE,
            "--benchmark", "none",
        )  # fmt: skip

    def ingest_backbone(self, zoo):
        self.run("ingest", zoo, "backbone:efficientnet-lite0")

    def measure_all(self, zoo, file):
        self.run("measure", zoo, "--all", file, "--by", "probe")

    def export(self, zoo, path):
        self.run("export", zoo, "--starter", "-o", path)

    def run(self, *arguments):
        """Runs a command; its last lines are the message if it fails."""
        done = subprocess.run(
            [self.binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            said = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
            packages.fail(f"tans {' '.join(arguments)} ended with {done.returncode}: {said}")
        return done.stdout

    def json(self, *arguments):
        lines = self.run(*arguments, "--json").splitlines()
        return [json.loads(line) for line in lines if line.strip()]


class Progress:
    """One line a step, with the time since the start."""

    def __init__(self):
        self.start = time.monotonic()

    def say(self, text):
        seconds = int(time.monotonic() - self.start)
        print(f"[{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}] {text}", flush=True)


def starter_sets():
    """The datasets, made first where missing."""
    import numpy as np

    script = os.path.join(packages.root(), "scripts", "starter_data.py")
    made = subprocess.run([sys.executable, script])
    if made.returncode:
        packages.fail("the starter datasets could not be made: see above")
    sets = []
    for name, spec in starter_data.table()["sets"].items():
        file = os.path.join(starter_data.folder(), f"{name}.npz")
        images = len(np.load(file)["y"])
        sets.append(Set(name, file, spec["family"], 32 if spec["side"] <= 32 else 64, images))
    return sets


def specialists(sets):
    """Two networks of different families for each set that is large enough."""
    turns, nets = {family: 0 for family in WIDTHS}, []
    large = [entry for entry in sets if entry.images >= TRAIN_IMAGES_MIN]
    for i, entry in enumerate(large):
        epochs = min(EPOCHS_MAX, max(EPOCHS_MIN, IMAGES_SEEN // entry.images))
        for j, family in enumerate(PAIRS[i % len(PAIRS)]):
            width = WIDTHS[family][turns[family] % len(WIDTHS[family])]
            turns[family] += 1
            name = f"{entry.name}--{family}-w{width}"
            config = f"small:{family}-w{width}@{entry.side}"
            nets.append(Specialist(name, config, entry.file, epochs, 100 + 10 * i + j))
    return nets


def train_all(tans, zoo, sets, progress):
    """Fills the work zoo with tasks and networks."""
    if not os.path.isdir(zoo):
        tans.init(zoo)
    known = tans.tasks(zoo)
    for entry in sets:
        if entry.name not in known:
            tans.task_add(zoo, entry)
            progress.say(f"task {entry.name}, {entry.images} images")
    nets, known = specialists(sets), tans.models(zoo)
    for i, net in enumerate(nets):
        if net.name not in known:
            tans.train(zoo, net)
            progress.say(f"network {i + 1} of {len(nets)}: {net.name}, {net.epochs} epochs")
    if not any("efficientnet-lite0" in name for name in known):
        tans.ingest_backbone(zoo)
        progress.say("the backbone as a network")
    return nets


def measure_all(tans, zoo, files, progress):
    """Measures every network on every set; a list beside the zoo says which sets are done."""
    done_path = zoo + ".measured"
    done = open(done_path).read().split() if os.path.exists(done_path) else []
    for i, file in enumerate(files):
        name = os.path.relpath(file, os.path.dirname(os.path.dirname(file)))
        if name not in done:
            tans.measure_all(zoo, file)
            with open(done_path, "a") as marks:
                marks.write(name + "\n")
            progress.say(f"measured on {i + 1} of {len(files)}: {name}")


def main():
    packages.in_venv(starter_data.REQUIREMENTS)
    binary = sys.argv[1] if len(sys.argv) > 1 else "target/release/tans"
    binary = os.path.join(packages.root(), binary)
    if not os.access(binary, os.X_OK):
        packages.fail(f"no program at {binary}: run `make build`, or name its path")
    tans, progress, base = Tans(binary), Progress(), packages.cache("starter")
    sets = starter_sets()
    work, final = os.path.join(base, "work"), os.path.join(base, "final")
    stage = os.path.join(base, "stage.tar")
    nets = train_all(tans, work, sets, progress)
    # The shipped weights are f16, so the results to ship are those of the rounded networks.
    if not os.path.isdir(final) or not {net.name for net in nets} <= tans.models(final):
        shutil.rmtree(final, ignore_errors=True)
        if os.path.exists(final + ".measured"):
            os.remove(final + ".measured")
        tans.export(work, stage)
        tans.init_from(final, stage)
        progress.say(f"exported {os.path.getsize(stage)} bytes and read them back")
    benchmark = os.path.join(packages.root(), "assets", "benchmark")
    tasks = [os.path.join(benchmark, f"{name}.npz") for name in starter_data.table()["benchmark"]]
    measure_all(tans, final, [entry.file for entry in sets] + tasks, progress)
    output = os.path.join(packages.root(), "assets", "starter.tar")
    tans.export(final, output + ".partial")
    size = os.path.getsize(output + ".partial")
    if size > STARTER_BYTES_MAX:
        packages.fail(f"expected at most {STARTER_BYTES_MAX} bytes, found {size} in the export")
    os.replace(output + ".partial", output)
    progress.say(f"assets/starter.tar: {size} bytes, {len(nets) + 1} networks, {len(sets)} tasks")


if __name__ == "__main__":
    main()
