#!/usr/bin/env python3
"""Builds assets/starter.tar: small networks trained on the starter datasets, with all results.

  build_starter_zoo.py [PATH OF tans]      default: target/release/tans; `make starter-zoo`

Works in the cache folder (starter/work*: the zoos in which networks are trained; starter/final*: the
zoos in which the shipped f16 weights are measured; starter/whole: both together) and may be stopped and started again at any
time: what a zoo already holds is skipped. Data, widths, epochs and seeds are fixed.

Needs Python 3.9 or newer, the release binary, and what starter_data.py needs.
"""

import collections
import concurrent.futures
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
TRAIN_IMAGES_MIN = 260
LICENCE = "MIT OR Apache-2.0"
# (first family, second family) of a set, and the widths each family goes through, set after set.
PAIRS = (("resnet8", "cnn"), ("cnn", "resnet8"), ("resnet8", "cnn"), ("cnn", "mobile"))
WIDTHS = {"resnet8": (12, 16, 14, 18), "cnn": (20, 28, 16, 24), "mobile": (16, 12, 20)}
# About this many images pass a network in training, which takes 15 to 20 s of one core.
IMAGES_SEEN, EPOCHS_MIN, EPOCHS_MAX = 9_000, 12, 30
# One zoo has one writer, so as many zoos are filled side by side, on one thread each.
SHARDS = 2

STARTER_SETS = set(
    "clipart_food clipart_people clipart_recreation clipart_topics fashion_mnist font_style font_script "
    "icons_arrows icons_weather_nature icons_devices icons_office icons_transport icons_home "
    "icons_media icons_commerce icons_leisure icons_people icons_tools icons_colour "
    "char_latin_lower char_latin_upper char_greek char_cyrillic char_hebrew char_arabic "
    "char_armenian char_hiragana char_kanji char_tamil char_telugu char_katakana char_georgian "
    "icons_colour_set icons_hue clipart_hue icons_colour_things".split()
)

Set = collections.namedtuple("Set", "name file family side images")
Specialist = collections.namedtuple("Specialist", "name config file epochs seed")


class Tans:
    """Every command that this script gives to the binary stands here and nowhere else."""

    def __init__(self, binary):
        self.binary = binary

    def init(self, zoo):
        self.run("init", zoo)

    def init_from(self, zoo, starters):
        self.run("init", zoo, *(word for starter in starters for word in ("--starter", starter)))

    def models(self, zoo):
        return {line["model"] for line in self.json("list", zoo)}

    def require_license(self, zoo):
        bare = [line["model"] for line in self.json("list", zoo) if line["license"] != LICENCE]
        if bare:
            packages.fail(f"expected the license {LICENCE} for every network, found another for {bare}")

    def tasks(self, zoo):
        return {line["task"] for line in self.json("task", "list", zoo)}

    def task_add(self, zoo, entry):
        self.run("task", "add", zoo, entry.name, entry.file, "--family", entry.family)

    def train(self, zoo, net):
        self.run(
            "finetune", zoo, net.config, net.file, "--from-scratch", "--epochs", str(net.epochs),
            "--patience", "0", "--seed", str(net.seed), "--name", net.name, "--license", LICENCE,
            "--benchmark", "none",
        )  # fmt: skip

    def measure_missing(self, zoo, file):
        self.run("measure", zoo, "--all", "--missing", file, "--by", "probe")

    def remove(self, zoo, models):
        self.run("remove", zoo, *models)

    def reindex(self, zoo):
        self.run("reindex", zoo)

    def export(self, zoo, path):
        self.run("export", zoo, "--starter", "-o", path)

    def run(self, *arguments):
        """Runs a command; its last lines are the message if it fails."""
        done = subprocess.run(
            [self.binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
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
        if name not in STARTER_SETS:
            continue
        file = os.path.join(starter_data.folder(), f"{name}.npz")
        images = len(np.load(file)["y"])
        sets.append(Set(name, file, spec["family"], 32 if spec["side"] <= 32 else 64, images))
    return sets


def specialists(sets):
    """Two networks of different families for each set that is large enough."""
    turns, nets = {family: 0 for family in WIDTHS}, []
    large = [entry for entry in sets if entry.images >= TRAIN_IMAGES_MIN]
    large.sort(key=lambda entry: entry.images < 300)
    for i, entry in enumerate(large):
        epochs = min(EPOCHS_MAX, max(EPOCHS_MIN, IMAGES_SEEN // entry.images))
        for j, family in enumerate(PAIRS[i % len(PAIRS)]):
            width = WIDTHS[family][turns[family] % len(WIDTHS[family])]
            turns[family] += 1
            name = f"{entry.name}--{family}-w{width}"
            config = f"small:{family}-w{width}@{entry.side}"
            nets.append(Specialist(name, config, entry.file, epochs, 100 + 10 * i + j))
    return nets


def shards(work):
    """Runs work(shard) for every shard side by side."""
    with concurrent.futures.ThreadPoolExecutor(SHARDS) as pool:
        return list(pool.map(work, range(SHARDS)))


def train(tans, zoo, sets, nets, progress):
    """Fills a work zoo with tasks and networks."""
    if not packages.is_zoo(zoo):
        tans.init(zoo)
    known = tans.tasks(zoo)
    for entry in sets:
        # One that is stored under its name stays; other data under a known name is refused.
        tans.task_add(zoo, entry)
        if entry.name not in known:
            progress.say(f"task {entry.name}, {entry.images} images")
    known = tans.models(zoo)
    for i, net in enumerate(nets):
        if net.name not in known:
            tans.train(zoo, net)
            progress.say(f"network {i + 1} of {len(nets)}: {net.name}, {net.epochs} epochs")


def measure(tans, zoo, files, progress):
    """Measures every network on every set, except where the zoo holds the result."""
    for i, file in enumerate(files):
        tans.measure_missing(zoo, file)
        progress.say(f"measured on {i + 1} of {len(files)}: {os.path.basename(file)}")


def measured_zoo(tans, zoo, stages, names):
    """A zoo of the shipped f16 weights, made anew unless it holds just these.

    Networks that the last build shipped unchanged bring their results along: a model's and a task's
    identity are those of their content.
    """
    if packages.is_zoo(zoo) and names == tans.models(zoo):
        return
    shutil.rmtree(zoo, ignore_errors=True)
    shipped = [path for path in [starter_tar()] if os.path.exists(path)]
    try:
        tans.init_from(zoo, shipped + stages)
    except SystemExit as refused:
        if "another model of that name" not in str(refused.code):
            raise
        # Another machine or library trains other weights under the same names: all of them are measured anew.
        tans.init_from(zoo, stages)
    gone = tans.models(zoo) - names
    if gone:
        tans.remove(zoo, sorted(gone))


def starter_tar():
    return os.path.join(packages.root(), "assets", "starter.tar")


def combined(tans, zoos, path):
    """Exports zoos one by one and returns the files."""
    files = [f"{path}{shard}.tar" for shard in range(SHARDS)]
    for zoo, file in zip(zoos, files):
        tans.export(zoo, file)
    return files


def main():
    packages.in_venv(starter_data.REQUIREMENTS)
    binary = sys.argv[1] if len(sys.argv) > 1 else "target/release/tans"
    binary = os.path.join(packages.root(), binary)
    if not os.access(binary, os.X_OK):
        packages.fail(f"no program at {binary}: run `make build`, or name its path")
    tans, progress, base = Tans(binary), Progress(), packages.cache("starter")
    sets = starter_sets()
    nets = specialists(sets)

    works = [os.path.join(base, f"work{shard}") for shard in range(SHARDS)]
    # Each starts at another end, so that one finds in the cache what the other has encoded.
    orders = [sets[::-1] if n % 2 else sets for n in range(SHARDS)]
    shards(lambda n: train(tans, works[n], orders[n], nets[n::SHARDS], progress))
    stages = combined(tans, works, os.path.join(base, "stage"))

    # The shipped weights are f16, so the results to ship are those of the rounded networks.
    finals = [os.path.join(base, f"final{shard}") for shard in range(SHARDS)]
    benchmark = os.path.join(packages.root(), "assets", "benchmark")
    files = [os.path.join(benchmark, f"{name}.npz") for name in starter_data.table()["benchmark"]]
    files += [entry.file for entry in sets]
    for final in finals:
        measured_zoo(tans, final, stages, {net.name for net in nets})
    shards(lambda n: measure(tans, finals[n], files[n::SHARDS], progress))

    whole = os.path.join(base, "whole")
    shutil.rmtree(whole, ignore_errors=True)
    tans.init_from(whole, combined(tans, finals, os.path.join(base, "measured")))
    # A bundle of an older program brings no signatures of this one.
    tans.reindex(whole)
    tans.require_license(whole)
    output = starter_tar()
    partial = output.replace(".tar", ".partial.tar")
    tans.export(whole, partial)
    size = os.path.getsize(partial)
    if size > STARTER_BYTES_MAX:
        packages.fail(f"expected at most {STARTER_BYTES_MAX} bytes, found {size} in the export")
    os.replace(partial, output)
    progress.say(f"assets/starter.tar: {size} bytes, {len(nets)} networks, {len(sets)} tasks")


if __name__ == "__main__":
    main()
