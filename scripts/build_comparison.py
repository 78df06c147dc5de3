#!/usr/bin/env python3
"""Writes docs/COMPARISON.md: what a dataset's owner gets from each way to a network, at equal inputs and epochs.

  build_comparison.py [--tans PATH] [--epochs 10] [--seeds 3]

The five query examples, which no network of the starter zoo has seen. Resumable: every training is
a line in the cache folder (TANS_CACHE, default ~/.cache/tans), and what is there is not run again.
"""

import argparse
import collections
import json
import os
import random
import statistics
import time

import packages
import starter_data
from build_quality import ROOT, lines, run

SPACE, SIDE = "mobilenetv3_tiny", 32
SUPERNET_EPOCHS = 40
# The smallest subnet with some room.
SUBNET_PARAMS = 300_000
LITE0 = "efficientnet-lite0"
LITE0_SIDE = 128
STARTER = os.path.join(ROOT, "assets", "starter.tar")
QUERIES = os.path.join(ROOT, "assets", "queries")
NOT_RUN = ("PC-DARTS", "DrNAS", "FBNet-A", "MetaD2A")
ROWS = {
    "scratch": "MobileNetV3, random weights",
    "subnet": "Once-for-all, best subnet",
    "imagenet": "EfficientNet-Lite0, ImageNet",
    "random": "a network of the zoo at random",
    "static": "static list",
    "fifth": "`tans`, a fifth of the epochs",
    "pick": "`tans`",
}
HEAD = """# Ways to a network

Written by `make comparison` (`scripts/build_comparison.py`). No figure is edited by hand. The rows are those of the table of
Task-Adaptive Neural Network Search (Jeong et al. 2021), on our ground: the five datasets of `assets/queries`, each split 60/40,
{epochs} epochs of the same fine-tuning (AdamW, cosine, no early stop); seeds: {seeds}; mean and, with several seeds, standard deviation
of accuracy over them. Times are wall clock on two cores that other work may share.

- MobileNetV3: `{space}:d3-k5-e4@{side}` from random weights, and Once-for-all: a supernet of that space, trained on the union of the
  eight benchmark tasks (800 images, {supernet_epochs} epochs, {supernet_seconds:.0f} s, not counted below); `tans cut` searches the best of 16 subnets of at most the
  pick's parameters, or {subnet_params:,} where that is more, on the dataset, for each dataset anew.
- EfficientNet-Lite0: ImageNet weights, at {lite0_side} x {lite0_side}: the one row whose network sees larger inputs than the others.
- The zoo is the starter zoo. `static` is the network with the best mean standardised accuracy on the zoo's tasks, `tans` the first
  answer of `tans query` before anything was trained on the dataset. Search is the query with its backbone, or the search of `tans cut`.
- {not_run}: not run here.

"""


class Job:
    """Trainings and searches, each made once."""

    def __init__(self, flags):
        self.tans, self.epochs, self.seeds = os.path.abspath(flags.tans), flags.epochs, range(flags.seeds)
        self.folder = packages.cache("comparison", f"{flags.epochs}")
        self.log = os.path.join(self.folder, "results.jsonl")
        self.known = {}
        if os.path.exists(self.log):
            with open(self.log, encoding="utf-8") as file:
                for line in file:
                    found = json.loads(line)
                    self.known[tuple(found.pop("key"))] = found

    def once(self, key, work):
        """What `work` found, now or in an earlier run."""
        if key not in self.known:
            found = work()
            with open(self.log, "a", encoding="utf-8") as out:
                out.write(json.dumps({"key": key, **found}) + "\n")
            self.known[key] = found
            print(*key, found.get("accuracy", ""), flush=True)
        return self.known[key]

    def zoo(self, name, *options):
        """A zoo that trainings may fill: answers are asked of others."""
        path = os.path.join(self.folder, name)
        if not packages.is_zoo(path):
            run(self.tans, "init", path, *options)
        return path

    def finetune(self, zoo, model, dataset, seed, epochs):
        name = f"{model.split(':')[0]}-{os.path.basename(dataset)}-{seed}-{epochs}"
        options = ["--epochs", epochs, "--patience", 0, "--seed", seed, "--benchmark", "none", "--name", name]
        *_, found = lines(self.tans, "finetune", zoo, model, dataset, *map(str, options))
        macs = lines(self.tans, "show", zoo, name)[0]["macs"]
        run(self.tans, "remove", zoo, name)
        return {"accuracy": found["accuracy"], "params": found["params"], "macs": macs, "training": found["seconds"]}


def standing(job, zoo):
    """The network with the best mean standardised probe accuracy."""
    by_task = collections.defaultdict(dict)
    for model in lines(job.tans, "list", zoo):
        for result in lines(job.tans, "show", zoo, model["model"])[0]["results"]:
            if result["kind"] == "probe" and result["task"] not in model["source_tasks"]:
                by_task[result["task"]][model["model"]] = result["accuracy"]
    scores = collections.defaultdict(list)
    for accuracies in by_task.values():
        if len(accuracies) > 2:
            mean, sd = statistics.mean(accuracies.values()), statistics.pstdev(accuracies.values()) or 1.0
            for model, accuracy in accuracies.items():
                scores[model].append((accuracy - mean) / sd)
    return max(scores, key=lambda model: (sum(scores[model]) / (len(scores[model]) + 2), model))


def union_of_benchmarks():
    """The eight benchmark tasks side by side at 32 x 32 in colour."""
    import numpy as np

    path = os.path.join(packages.cache("comparison"), "benchmarks.npz")
    images, labels, names = [], [], []
    folder = os.path.join(ROOT, "assets", "benchmark")
    for file in sorted(name for name in os.listdir(folder) if name.endswith(".npz")):
        data = np.load(os.path.join(folder, file))
        x = data["x"].astype(np.float32)
        step = x.shape[1] // SIDE
        x = x.reshape(len(x), SIDE, step, SIDE, step, -1).mean((2, 4))
        images.append(np.repeat(x, 3 // x.shape[3], 3).round().astype(np.uint8))
        labels.append(data["y"] + len(names))
        names += [f"{file[:-4]}/{name}" for name in data["class_names"]]
    packages.write_npz(path, {"x": np.concatenate(images), "y": np.concatenate(labels), "class_names": np.array(names)})
    return path


def supernet(job):
    """A zoo with the supernet, and what its training took."""
    zoo = job.zoo("subnets")

    def train():
        *_, found = lines(
            job.tans, "finetune", zoo, f"{SPACE}:supernet@{SIDE}", union_of_benchmarks(), "--elastic", "--name", "supernet",
            "--epochs", str(SUPERNET_EPOCHS), "--train-share", "0.9", "--benchmark", "none",
        )  # fmt: skip
        return {"training": found["seconds"]}

    return zoo, job.once(("supernet",), train)["training"]


def lite0(job):
    """A zoo with EfficientNet-Lite0."""
    zoo = job.zoo("lite0")
    if not lines(job.tans, "list", zoo):
        folder = run("python3", os.path.join(ROOT, "scripts", "fetch_packages.py"), "lite0").strip()
        (file,) = (name for name in os.listdir(folder) if name.endswith(".pth"))
        published, onnx = job.zoo("published"), os.path.join(job.folder, f"{LITE0}.onnx")
        quiet = ["--name", LITE0, "--benchmark", "none", "--quiet"]
        # The space knows the published side only; the file of the network may be told another.
        run(job.tans, "ingest", published, os.path.join(folder, file), "--space", LITE0, *quiet)
        run(job.tans, "export", published, LITE0, "-o", onnx)
        run(job.tans, "ingest", zoo, onnx, "--input", f"3x{LITE0_SIDE}x{LITE0_SIDE}", *quiet)
    return zoo


def search(job, zoo, dataset):
    def query():
        start = time.monotonic()
        hit = lines(job.tans, "query", zoo, dataset, "-k", "1")[0]
        return {"model": hit["model"], "params": hit["params"], "seconds": time.monotonic() - start}

    return job.once(("query", os.path.basename(dataset)), query)


def subnet(job, zoo, dataset, params):
    name = f"for-{os.path.basename(dataset)}"

    def cut():
        start = time.monotonic()
        lines(
            job.tans, "cut", zoo, "supernet", "--max-params", str(params), "--calibrate", dataset, "--name", name,
            "--benchmark", "none",
        )  # fmt: skip
        return {"model": name, "seconds": time.monotonic() - start}

    return job.once(("cut", os.path.basename(dataset)), cut)


def trainings(job, dataset, seed):
    """(row, seed, figures) of one dataset and seed."""
    name, fifth = os.path.basename(dataset), max(job.epochs // 5, 1)
    asked = job.zoo(f"asked-{name}", "--starter", STARTER)
    pick = search(job, asked, dataset)
    starter, (subnets, _), own = job.zoo("starter", "--starter", STARTER), supernet(job), lite0(job)
    best = job.once(("static",), lambda: {"model": standing(job, asked)})["model"]
    cut = subnet(job, subnets, dataset, max(pick["params"], SUBNET_PARAMS))
    rivals = sorted(model["model"] for model in lines(job.tans, "list", asked))
    rival = random.Random(seed).choice(rivals)
    plans = {
        "scratch": (job.zoo("scratch"), f"{SPACE}:d3-k5-e4@{SIDE}", job.epochs, 0.0),
        "subnet": (subnets, cut["model"], job.epochs, cut["seconds"]),
        "imagenet": (own, LITE0, job.epochs, 0.0),
        "random": (starter, rival, job.epochs, 0.0),
        "static": (starter, best, job.epochs, 0.0),
        "fifth": (starter, pick["model"], fifth, pick["seconds"]),
        "pick": (starter, pick["model"], job.epochs, pick["seconds"]),
    }
    for row, (zoo, model, epochs, seconds) in plans.items():
        work = lambda: job.finetune(zoo, model, dataset, seed, epochs)
        yield row, seed, {**job.once((row, name, seed), work), "search": seconds}


def table(found):
    """One row of figures for each way."""
    yield "| way | accuracy | parameters | MACs | search | training |"
    yield "|---|--:|--:|--:|--:|--:|"
    for row, label in ROWS.items():
        of = lambda field: [figures[field] for key, _, figures in found if key == row]
        accuracy, by_seed = 100 * statistics.mean(of("accuracy")), collections.defaultdict(list)
        for key, seed, figures in found:
            if key == row:
                by_seed[seed].append(100 * figures["accuracy"])
        seeds = [statistics.mean(values) for values in by_seed.values()]
        spread = f" ± {statistics.stdev(seeds):.1f}" if len(seeds) > 1 else ""
        params, macs = statistics.mean(of("params")) / 1e6, statistics.mean(of("macs")) / 1e6
        seconds = [statistics.mean(of(field)) for field in ("search", "training")]
        yield f"| {label} | {accuracy:.1f}{spread} | {params:.2f}M | {macs:.1f}M | {seconds[0]:.1f} s | {seconds[1]:.1f} s |"
    for name in NOT_RUN:
        yield f"| {name} | not run | | | | |"


def by_dataset(found):
    yield "| dataset | " + " | ".join(ROWS.values()) + " |"
    yield "|---|" + "--:|" * len(ROWS)
    for name, results in found.items():
        means = (100 * statistics.mean(f["accuracy"] for key, _, f in results if key == row) for row in ROWS)
        yield f"| {name} | " + " | ".join(f"{mean:.1f}" for mean in means) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tans", default=os.path.join(ROOT, "target/release/tans"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    flags = parser.parse_args()
    packages.in_venv(starter_data.REQUIREMENTS)
    job, found = Job(flags), collections.defaultdict(list)
    for seed in job.seeds:
        for name in sorted(os.listdir(QUERIES)):
            found[name] += trainings(job, os.path.join(QUERIES, name), seed)
    figures = dict(epochs=flags.epochs, seeds=flags.seeds, space=SPACE, side=SIDE, supernet_epochs=SUPERNET_EPOCHS)
    text = HEAD.format(
        **figures, subnet_params=SUBNET_PARAMS, lite0_side=LITE0_SIDE, not_run=", ".join(NOT_RUN), supernet_seconds=supernet(job)[1]
    )
    text += "\n".join(table([line for lines in found.values() for line in lines]))
    text += "\n\nAccuracy by dataset, mean over the seeds:\n\n" + "\n".join(by_dataset(found)) + "\n"
    packages.install(os.path.join(ROOT, "docs", "COMPARISON.md"), text.encode())
    print("docs/COMPARISON.md written")


if __name__ == "__main__":
    main()
