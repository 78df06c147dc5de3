#!/usr/bin/env python3
"""Builds assets/benchmark/tasks.tar: rows, labels and landmarks of the eight benchmark tasks.

  build_benchmark_tasks.py [PATH OF tans]              default: target/release/tans
  build_benchmark_tasks.py --priors ZOO [PATH OF tans]

Every zoo starts from these rows, so a program without libtorch can answer as well. They are encoded
by the program itself from assets/benchmark/*.npz; build the program again afterwards, since the
file is compiled in. With --priors it writes assets/benchmark/priors.json instead: mean and standard
deviation of the probe accuracies that the small networks of ZOO have on each benchmark task.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, "assets", "benchmark")
PREFIX = "benchmark/"


def table():
    with open(os.path.join(ROOT, "scripts", "starter.json"), encoding="utf-8") as file:
        return json.load(file)


def run(binary, *arguments):
    return subprocess.run([binary, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def build_tasks(binary):
    # The program's own tasks would keep their names: they make room first.
    names, sets = table()["benchmark"], table()["sets"]
    with tempfile.TemporaryDirectory() as folder:
        zoo = os.path.join(folder, "zoo")
        run(binary, "init", zoo)
        for line in run(binary, "task", "list", zoo, "--json").splitlines():
            run(binary, "task", "remove", zoo, json.loads(line)["task"])
        for name in names:
            file = os.path.join(FOLDER, f"{name}.npz")
            family = sets[name]["family"]
            run(binary, "task", "add", zoo, PREFIX + name, file, "--family", family, "--benchmark")
        output = os.path.join(FOLDER, "tasks.tar")
        run(binary, "export", zoo, "--starter", "-o", output)
        print(f"{output}: {len(names)} tasks, {os.path.getsize(output)} bytes")


def build_priors(binary, zoo):
    accuracies = {}
    for line in run(binary, "list", zoo, "--json").splitlines():
        model = json.loads(line)
        if not model["source_tasks"]:
            continue
        shown = json.loads(run(binary, "show", zoo, model["model"], "--json"))
        for result in shown["results"]:
            if result["task"].startswith(PREFIX) and result["kind"] == "probe":
                accuracies.setdefault(result["task"], []).append(result["accuracy"])
    priors = {
        task: {"mean": round(statistics.fmean(values), 4), "sd": round(statistics.stdev(values), 4)}
        for task, values in sorted(accuracies.items())
    }
    with open(os.path.join(FOLDER, "priors.json"), "w", encoding="utf-8") as file:
        json.dump(priors, file, indent=1)
        file.write("\n")
    print(f"priors of {len(priors)} tasks from {len(next(iter(accuracies.values())))} networks")


def main():
    arguments = sys.argv[1:]
    zoo = None
    if arguments[:1] == ["--priors"]:
        zoo, arguments = arguments[1], arguments[2:]
    binary = os.path.abspath(arguments[0] if arguments else os.path.join(ROOT, "target/release/tans"))
    build_tasks(binary) if zoo is None else build_priors(binary, zoo)


if __name__ == "__main__":
    main()
