#!/usr/bin/env python3
"""Writes docs/QUALITY.md: how good the first pick is, measured on this machine.

  build_quality.py [PATH OF tans]      default: target/release/tans

Two parts, both from the starter zoo: the five query examples, which no network and no encoder has
seen (`tans measure --all` is the truth), and `tans evaluate`, which holds out one family of starter
tasks at a time. Nothing is tuned on either.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HEAD = """# Quality of the first pick

Written by `python3 scripts/build_quality.py` from `assets/starter.tar`; nothing here is tuned by hand.
Accuracies are fractions, losses are accuracy points (100 x fraction).

## Five datasets that nothing was learned from

Truth: ridge-probe accuracy of every network of the starter zoo (`tans measure ZOO --all DATASET`). The query answers
before any of it is measured. `random` is the mean of the zoo, `largest` the network with most parameters.

"""


def run(binary, *arguments):
    done = subprocess.run([binary, *arguments], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout


def lines(binary, *arguments):
    return [json.loads(line) for line in run(binary, *arguments, "--json", "--quiet").splitlines()]


def held_out(binary, folder):
    yield "| dataset | networks | best | random | largest | first pick | its accuracy | rank | best of 5 | predicted | above random |"
    yield "|---|--:|--:|--:|--:|---|--:|--:|--:|--:|---|"
    queries = os.path.join(ROOT, "assets", "queries")
    for name in sorted(os.listdir(queries)):
        # A zoo of its own for each, so that no dataset profits from the results on another.
        zoo, dataset = os.path.join(folder, name), os.path.join(queries, name)
        run(binary, "init", zoo, "--starter", os.path.join(ROOT, "assets", "starter.tar"))
        hits = lines(binary, "query", zoo, dataset, "-k", "1000")
        truth = {row["model"]: row["accuracy"] for row in lines(binary, "measure", zoo, "--all", dataset)}
        pick = hits[0]
        ranked = sorted(truth.values(), reverse=True)
        largest = max((hit for hit in hits if hit["model"] in truth), key=lambda hit: hit["params"] or 0)
        above = "yes" if truth[pick["model"]] > sum(ranked) / len(ranked) else "**no**"
        best5 = max(truth[hit["model"]] for hit in hits[:5])
        yield (
            f"| {name} | {len(truth)} | {ranked[0]:.3f} | {sum(ranked) / len(ranked):.3f} "
            f"| {truth[largest['model']]:.3f} | {pick['model']} | {truth[pick['model']]:.3f} "
            f"| {ranked.index(truth[pick['model']]) + 1} | {best5:.3f} | {pick['predicted_accuracy']:.3f} | {above} |"
        )
        print(f"{name}: pick {truth[pick['model']]:.3f}, mean {sum(ranked) / len(ranked):.3f}", flush=True)


def evaluation(binary, folder):
    zoo = os.path.join(folder, "evaluate")
    run(binary, "init", zoo, "--starter", os.path.join(ROOT, "assets", "starter.tar"))
    start = time.monotonic()
    table = run(binary, "evaluate", zoo, "--quiet").rstrip()
    return table, time.monotonic() - start


def main():
    binary = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "target/release/tans"))
    with tempfile.TemporaryDirectory() as folder:
        table = "\n".join(held_out(binary, folder))
        text, seconds = evaluation(binary, folder)
    with open(os.path.join(ROOT, "docs", "QUALITY.md"), "w", encoding="utf-8") as out:
        out.write(HEAD + table)
        out.write("\n\n## Starter tasks, one family held out at a time\n\n")
        out.write("`tans evaluate` on the starter zoo: networks that saw a task of the held-out family are no candidates, ")
        out.write("and no result on the family is learned from.\n`default` is what `query` serves; ")
        out.write("`tans2021` is the published baseline on the same pairs. Intervals are 90 % bootstrap intervals over tasks; ")
        out.write(f"differences to the static list are paired (negative is better). {seconds:.0f} s.\n\n```\n{text}\n```\n")
    print(f"docs/QUALITY.md written, evaluate took {seconds:.0f} s")


if __name__ == "__main__":
    main()
