#!/usr/bin/env python3
"""tans-index beside hnswlib, usearch, faiss and hannoy: same vectors, M = 16, efConstruction = 200.

  peers.py fashion|clusters|clustered [--repeats N] [--systems A,B,..] [--threads 1,2] [--keep]

Every system works in a process of its own; within a round they take turns, and each round starts
with another one. All figures are medians over the rounds. Times of one thread are processor time,
because other work on the machine stretches wall time; those of two threads are wall time. `--keep`
takes the indexes of the run before instead of building them. Writes tables and a plot into
docs/BENCHMARKS.md and docs/, and ends with one line per peer:

  ratio PEER R97 R99      queries a second of tans over those of PEER at recall@10 0.97 and 0.99

Needs Python 3.9 with pip, cargo, a C++ compiler and, for the data, apt-get; makes what it needs in
the cache folder (TANS_CACHE, default ~/.cache/tans).
"""

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../scripts"))
import packages

REQUIREMENTS = ["numpy==2.4.6", "hnswlib==0.8.0", "usearch==2.26.6", "faiss-cpu==1.15.1"]
SYSTEMS = ["tans", "hnswlib", "usearch", "faiss", "hannoy"]
EFS = [10, 14, 20, 28, 40, 64, 112, 200]
RECALLS = [0.97, 0.99]


def main():
    packages.in_venv(REQUIREMENTS, "venv-peers")
    import data
    import report

    options = parse()
    binary = compile_worker()
    vectors = data.load(options.dataset)
    measured = {system: collections.defaultdict(list) for system in options.systems}
    for system in options.systems:
        build(binary, system, vectors.folder, options, measured[system])
    for repeat in range(options.repeats):
        for threads in options.threads:
            shift = repeat % len(options.systems)
            for system in options.systems[shift:] + options.systems[:shift]:
                search(binary, system, vectors, threads, measured[system])
    results = {system: medians(values) for system, values in measured.items()}
    extra = {} if "tans" not in results else alone(binary, vectors, results["tans"])
    report.write(vectors, results, extra, options)
    for peer in options.systems:
        if peer != "tans" and "tans" in results:
            rates = [ratio(results["tans"], results[peer], recall) for recall in RECALLS]
            print("ratio", peer, *(f"{rate:.2f}" if rate else "not-reached" for rate in rates))


def parse():
    parser = argparse.ArgumentParser(description="tans-index beside other libraries")
    words = lambda text: text.split(",")
    parser.add_argument("dataset", choices=["fashion", "clusters", "clustered"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--systems", type=words, default=SYSTEMS)
    parser.add_argument("--threads", type=lambda text: [int(n) for n in words(text)], default=[1, 2])
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


def compile_worker():
    target = packages.cache("peers", "target")
    command = ["cargo", "build", "--release", "--quiet", "--locked", "--target-dir", target]
    if subprocess.run(command, cwd=HERE).returncode:
        packages.fail("the Rust worker does not compile")
    return os.path.join(target, "release", "tans-peers")


def index_path(system, folder):
    return os.path.join(folder, f"{system}.index")


def build(binary, system, folder, options, values):
    """Builds on one thread; times of an index that is kept are those of its build."""
    path = index_path(system, folder)
    if not (options.keep and os.path.exists(path + ".json")):
        rows = run(binary, system, "build", folder, path, 1)
        with open(path + ".json", "w") as file:
            json.dump(rows[0], file)
    with open(path + ".json") as file:
        row = json.load(file)
    values["build"].append(row["cpu"])
    values["repaired"].append(row.get("repaired", 0))
    files = [path] if os.path.isfile(path) else [os.path.join(path, "data.mdb")]
    values["bytes"].append(sum(os.path.getsize(file) for file in files))


def search(binary, system, vectors, threads, values):
    import numpy as np
    import data

    arguments = map(str, EFS)
    rows = run(binary, system, "search", vectors.folder, index_path(system, vectors.folder), threads, *arguments)
    for row in rows:
        if row["action"] == "open":
            values["open"].append(row["wall"])
            continue
        if row["resident"]:
            values["resident"].append(row["resident"])
        ef, seconds = row["ef"], row["cpu" if threads == 1 else "wall"]
        values["rate", threads, ef].append(len(vectors.queries) / seconds)
        if not values["recall", ef]:
            found = np.fromfile(os.path.join(vectors.folder, f"found-{system}-{ef}.u32"), np.uint32)
            values["recall", ef].append(data.recall(vectors, found.reshape(-1, data.K)))


def run(binary, system, action, folder, *arguments):
    python = [sys.executable, os.path.join(HERE, "worker.py")]
    worker = [binary] if system in ("tans", "hannoy") else python
    path, threads, *efs = arguments
    command = worker + [system, action, folder, path, str(threads), *efs]
    print(" ".join([system, action, f"{threads} thread(s)"]), file=sys.stderr, flush=True)
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        packages.fail(f"{system} {action} failed with code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def medians(values):
    return {key: statistics.median(numbers) for key, numbers in values.items() if numbers}


def curve(result, threads):
    """(recall, queries a second, ef) by rising recall."""
    points = [(result["recall", ef], result["rate", threads, ef], ef) for ef in EFS]
    return sorted(points)


def rate_at(result, recall, threads=1):
    """Queries a second at this recall, between the two points around it; None beyond the ends."""
    points = curve(result, threads)
    for (low, slow, _), (high, fast, _) in zip(points, points[1:]):
        if low <= recall <= high:
            share = (recall - low) / (high - low) if high > low else 0
            return slow ** (1 - share) * fast**share
    return None


def ratio(ours, theirs, recall, threads=1):
    pair = rate_at(ours, recall, threads), rate_at(theirs, recall, threads)
    return pair[0] / pair[1] if all(pair) else None


def alone(binary, vectors, result):
    """What is measured of tans only: single queries, filters, the exact scan."""
    folder, path = vectors.folder, index_path("tans", vectors.folder)
    good = [ef for ef in EFS if result["recall", ef] >= 0.99] or EFS[-1:]
    ef = str(good[0])
    return {
        "latency": run(binary, "tans", "latency", folder, path, 1, ef),
        "filters": run(binary, "tans", "filters", folder, path, 1, ef),
        "scan": run(binary, "tans", "scan", folder, path, 1),
        "paper": paper(binary) if vectors.name == "fashion" else None,
    }


def paper(binary):
    """Seconds of a search among 14,000 vectors: the paper's by libtorch, ours, ours exact."""
    import data

    vectors = data.load("paper")
    path = index_path("tans", vectors.folder)
    run(binary, "tans", "build", vectors.folder, path, 1)
    libtorch = os.path.join(packages.cache(), "libtorch-2.11.0")
    environment = dict(os.environ, LIBTORCH=os.environ.get("LIBTORCH", libtorch))
    command = [sys.executable, os.path.join(HERE, "torch_search.py"), vectors.folder, "200"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        packages.fail("torch_search.py failed: run scripts/setup.sh, which fetches libtorch")
    values = collections.defaultdict(list)
    search(binary, "tans", vectors, 1, values)
    result = medians(values)
    return {
        "torch": json.loads(done.stdout)["cpu"],
        "tans": 1 / rate_at(result, 0.99),
        "recall": 0.99,
    }


if __name__ == "__main__":
    main()
