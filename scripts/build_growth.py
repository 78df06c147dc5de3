#!/usr/bin/env python3
"""Writes docs/GROWTH.md and docs/growth.svg: `tans grow` beside `tans grow --random` at equal budget.

  build_growth.py [--tans PATH] [--space small@32] [--epochs 10] [--per-class 100] [--seeds 3] [--budget 40]

Each seed grows two empty zoos on the five query examples. Both draw the same weights for a network
and so get the same accuracy for a pair: what differs is which pairs are trained. Resumable: a run
that was stopped goes on from its zoo, in the cache folder (TANS_CACHE, default ~/.cache/tans). One
thread: networks this small gain nothing from a second.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys

from build_quality import ROOT, lines, run

MARKS = (5, 10, 20, 40, 80, 160)
MODES = {"grow": (), "random": ("--random",)}
HEAD = """# Growing a zoo

Written by `make growth` (`scripts/build_growth.py`). No figure is edited by hand. `tans grow` trains networks of `{space}` from
random weights on the five datasets of `assets/queries` ({epochs} epochs, at most {per_class} images a class), each time the pair
from which the largest rise of the area is expected; `random` is `tans grow --random`, which draws the pair. Both get the same
accuracy for the same pair and seed.

The area is that under the best accuracy within a number of parameters, whose logarithm runs from the smallest network of the
space (0) to the largest (1); a dataset without a network has area 0. Mean over the datasets, then over {seeds} seeds,
with the lowest and the highest.

"""


def datasets():
    queries = os.path.join(ROOT, "assets", "queries")
    return [os.path.join(queries, name) for name in sorted(os.listdir(queries))]


def read(log):
    """Trainings of a log; the last line may be torn."""
    found = []
    if os.path.exists(log):
        with open(log, encoding="utf-8") as file:
            for line in file:
                try:
                    found.append(json.loads(line))
                except ValueError:
                    break
    return [it for it in found if "training" in it]


def grow(flags, mode, seed, folder):
    """Trainings of one run, those of before included."""
    zoo, log = os.path.join(folder, f"{mode}-{seed}"), os.path.join(folder, f"{mode}-{seed}.jsonl")
    trainings = read(log)
    stored = sum(it["status"] == "stored" for it in trainings)
    if not os.path.isdir(zoo) or len(lines(flags.tans, "list", zoo)) != stored:
        # A training was stored and not told: its turn is unknown.
        shutil.rmtree(zoo, ignore_errors=True)
        open(log, "w", encoding="utf-8").close()
        run(flags.tans, "init", zoo)
        trainings = []
    if len(trainings) < flags.budget:
        command = [
            flags.tans, "grow", zoo, *datasets(), "--space", flags.space, "--budget", str(flags.budget - len(trainings)),
            "--epochs", str(flags.epochs), "--per-class", str(flags.per_class), "--seed", str(seed),
            "--benchmark", "none", "--threads", "1", "--json", "--quiet", *MODES[mode],
        ]  # fmt: skip
        with open(log, "a", encoding="utf-8") as out:
            subprocess.run(command, stdout=out, check=True)
        trainings = read(log)
    return trainings[: flags.budget]


def areas(trainings):
    """Mean area over the datasets after each training, and each dataset's at the end."""
    names = [os.path.basename(path) for path in datasets()]
    known, curve = dict.fromkeys(names, 0.0), [0.0]
    for training in trainings:
        known[training["dataset"]] = training["area"]
        curve.append(sum(known.values()) / len(names))
    return curve, known


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def span(values):
    return f"{mean(values):.4f} ({min(values):.4f}..{max(values):.4f})"


def table(curves, budget):
    yield "| trainings | grow | random | difference | random trainings for the same area |"
    yield "|--:|--:|--:|--:|--:|"
    for mark in [mark for mark in MARKS if mark < budget] + [budget]:
        chosen, drawn = ([curve[mark] for curve in curves[mode]] for mode in MODES)
        average = [mean(curve[at] for curve in curves["random"]) for at in range(budget + 1)]
        same = next((at for at, area in enumerate(average) if area >= mean(chosen)), None)
        equal = str(same) if same is not None else f"more than {budget}"
        differences = [a - b for a, b in zip(chosen, drawn)]
        yield f"| {mark} | {span(chosen)} | {span(drawn)} | {span(differences)} | {equal} |"


def by_dataset(ends):
    yield "| dataset | grow | random |"
    yield "|---|--:|--:|"
    for name in sorted(ends["grow"][0]):
        yield f"| {name} | " + " | ".join(span([end[name] for end in ends[mode]]) for mode in MODES) + " |"


def plot(curves, budget, path):
    """Mean area against trainings, the range over seeds shaded: an SVG of 560 x 300."""
    top = 1.1 * max(max(curve) for mode in MODES for curve in curves[mode])
    x, y = (lambda at: 50 + 400 * at / budget), (lambda area: 260 - 240 * area / top)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="560" height="300" font-family="sans-serif" font-size="12">']
    out.append('<rect width="560" height="300" fill="white"/>')
    out.append('<path d="M50 20V260H450" fill="none" stroke="black"/>')
    for mode, colour in (("random", "gray"), ("grow", "blue")):
        at = range(budget + 1)
        low, high = ([pick(curve[n] for curve in curves[mode]) for n in at] for pick in (min, max))
        edge = [(n, high[n]) for n in at] + [(n, low[n]) for n in reversed(at)]
        band = " ".join(f"{x(n):.1f},{y(area):.1f}" for n, area in edge)
        line = [mean(curve[n] for curve in curves[mode]) for n in at]
        points = " ".join(f"{x(n):.1f},{y(area):.1f}" for n, area in enumerate(line))
        out.append(f'<polygon points="{band}" fill="{colour}" fill-opacity="0.15"/>')
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        below = 12 if mode == "random" else 0
        out.append(f'<text x="455" y="{y(line[-1]) + below:.1f}" fill="{colour}">{mode} {line[-1]:.3f}</text>')
    for n in range(0, budget + 1, max(budget // 4, 1)):
        out.append(f'<text x="{x(n) - 4:.1f}" y="276">{n}</text>')
    out.append('<text x="220" y="294">trainings</text><text x="8" y="14">mean area</text></svg>')
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tans", default=os.path.join(ROOT, "target/release/tans"))
    parser.add_argument("--space", default="small@32")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=40)
    flags = parser.parse_args()
    if min(flags.epochs, flags.seeds, flags.budget) < 1:
        sys.exit("build_growth: expected at least 1 epoch, seed and training")
    flags.tans = os.path.abspath(flags.tans)
    cache = os.environ.get("TANS_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "tans"
    )
    folder = os.path.join(cache, "growth", f"{flags.space}-{flags.epochs}-{flags.per_class}")
    os.makedirs(folder, exist_ok=True)
    curves, ends = {mode: [] for mode in MODES}, {mode: [] for mode in MODES}
    for seed in range(flags.seeds):
        for mode in MODES:
            curve, end = areas(grow(flags, mode, seed, folder))
            # What ends early, because nothing is left, stays as it is.
            curves[mode].append(curve + [curve[-1]] * (flags.budget + 1 - len(curve)))
            ends[mode].append(end)
            print(f"{mode}, seed {seed}: {curve[-1]:.4f} after {len(curve) - 1}", flush=True)
    plot(curves, flags.budget, os.path.join(ROOT, "docs", "growth.svg"))
    text = HEAD.format(space=flags.space, epochs=flags.epochs, per_class=flags.per_class, seeds=flags.seeds)
    text += "\n".join(table(curves, flags.budget))
    text += f"\n\n![Mean area against trainings](growth.svg)\n\nEach dataset after {flags.budget} trainings:\n\n"
    text += "\n".join(by_dataset(ends)) + "\n"
    with open(os.path.join(ROOT, "docs", "GROWTH.md"), "w", encoding="utf-8") as out:
        out.write(text)
    print("docs/GROWTH.md written")


if __name__ == "__main__":
    main()
