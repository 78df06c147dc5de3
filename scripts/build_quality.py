#!/usr/bin/env python3
"""Writes docs/QUALITY.md: how good the first pick is, measured on this machine.

  build_quality.py [--tans PATH] [--records FILE.csv] [--folds N]      default: target/release/tans, 10

The five query examples, which no network and no encoder has seen (`tans measure --all` is the
truth); `tans evaluate` on the starter zoo and, where assets/corpus is there, on the corpus with its
scores and a plot of loss against probes, then judged by real fine-tunes; and, for a file of results, `tans evaluate --records`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HEAD = """# Quality of the first pick

Written by `make evaluate` (`scripts/build_quality.py`) from `assets`. No figure is edited by hand, but the
constants of `default` (weights, noise) were chosen by looking at leave-family-out figures on these very starter tasks, and
those of the results-alone part on that very file; that the contrast of backbone and pixels is a coordinate of its own, and how
much it weighs, by looking at the corpus with EfficientNet-Lite0 and without (the weight is the best for the 76 tasks that are not among
the five as well). Expect somewhat less elsewhere. The five datasets took
no part in the first, and are five of the 81 tasks of the corpus in the rest, as for three noise constants (of a probe, of all
probes of a dataset, of a predicted mean accuracy), which are standard deviations over the corpus, and the same to half a hundredth
without the five.
Accuracies are fractions, losses are accuracy points (100 x fraction).

## Five datasets that the starter zoo has not seen

Truth: ridge-probe accuracy of every network of the starter zoo (`tans measure ZOO --all DATASET`), over five splits. The
query answers before any of it is measured. `random` is the mean of the zoo, `largest` the network with most parameters.
`test part` is the pick's accuracy on the images that the query did not look at, `5 probes` that of the first pick of
`tans query --rerank 5`.

"""


def run(binary, *arguments):
    done = subprocess.run([binary, *arguments], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout


def lines(binary, *arguments):
    return [json.loads(line) for line in run(binary, *arguments, "--json", "--quiet").splitlines()]


def held_out(binary, folder):
    yield "| dataset | networks | best | random | largest | first pick | its accuracy | rank | best of 5 | predicted | above random | test part | 5 probes |"
    yield "|---|--:|--:|--:|--:|---|--:|--:|--:|--:|---|--:|--:|"
    queries = os.path.join(ROOT, "assets", "queries")
    for name in sorted(os.listdir(queries)):
        # A zoo of its own for each, so that no dataset profits from the results on another.
        zoo, dataset = os.path.join(folder, name), os.path.join(queries, name)
        run(binary, "init", zoo, "--starter", os.path.join(ROOT, "assets", "starter.tar"))
        hits = lines(binary, "query", zoo, dataset, "-k", "1000")
        probed = lines(binary, "query", zoo, dataset, "-k", "1", "--rerank", "5")[0]
        measured = lines(binary, "measure", zoo, "--all", dataset)
        truth = {row["model"]: row["accuracy"] for row in measured}
        unseen = {row["model"]: row["held_out_accuracy"] for row in measured}
        pick = hits[0]
        ranked = sorted(truth.values(), reverse=True)
        largest = max((hit for hit in hits if hit["model"] in truth), key=lambda hit: hit["params"] or 0)
        above = "yes" if truth[pick["model"]] > sum(ranked) / len(ranked) else "**no**"
        best5 = max(truth[hit["model"]] for hit in hits[:5])
        yield (
            f"| {name} | {len(truth)} | {ranked[0]:.3f} | {sum(ranked) / len(ranked):.3f} "
            f"| {truth[largest['model']]:.3f} | {pick['model']} | {truth[pick['model']]:.3f} "
            f"| {ranked.index(truth[pick['model']]) + 1} | {best5:.3f} | {pick['predicted_accuracy']:.3f} "
            f"| {above} | {unseen[pick['model']]:.3f} | {unseen[probed['model']]:.3f} |"
        )
        print(f"{name}: pick {truth[pick['model']]:.3f}, mean {sum(ranked) / len(ranked):.3f}", flush=True)


def evaluate(binary, folder, bundle, *options):
    """Figures of every method, the text of the table, and what it took."""
    zoo = os.path.join(folder, os.path.basename(bundle) + ".zoo")
    run(binary, "init", zoo, "--starter", bundle)
    start = time.monotonic()
    table = run(binary, "evaluate", zoo, "--quiet", *options).rstrip()
    return table, time.monotonic() - start


def evaluate_small(binary, folder, *options):
    """As `evaluate`, in the zoo that it has left, without the large networks."""
    zoo = os.path.join(folder, "zoo.tar.zoo")
    start = time.monotonic()
    table = run(binary, "evaluate", zoo, "--quiet", "--max-params", SMALL, *options).rstrip()
    return table, time.monotonic() - start


def fine_tuned(binary, folder, corpus, *options):
    """As `evaluate`, in the zoo that it has left, judged by real fine-tunes."""
    zoo = os.path.join(folder, "zoo.tar.zoo")
    run(binary, "record", zoo, os.path.join(corpus, "finetunes.csv"))
    start = time.monotonic()
    table = run(binary, "evaluate", zoo, "--quiet", "--no-cold", "--judge", "finetune", *options).rstrip()
    return table, time.monotonic() - start


def plot(table, path):
    """Loss against probes spent, from the rows of `evaluate`: an SVG of 480 x 300."""
    cells = [re.split(r"\s{2,}", line) for line in table.splitlines()[2:-1]]
    rows = {method: float(loss) for method, loss, *_ in cells}
    points = [(0, rows["default held-out"])] + [(n, rows[f"default+{n}"]) for n in (3, 5, 10)]
    top = 1.15 * max(rows["static held-out"], rows["default held-out"])
    x, y = (lambda probes: 50 + 38 * probes), (lambda loss: 260 - 230 * loss / top)
    line = " ".join(f"{x(n)},{y(loss):.1f}" for n, loss in points)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="560" height="300" font-family="sans-serif" font-size="12">']
    out.append('<rect width="560" height="300" fill="white"/>')
    out.append('<path d="M50 20V260H440" fill="none" stroke="black"/>')
    labels = {"static held-out": "static list", "logme": "LogME, all networks", "probe": "probe, all networks"}
    for name, label in labels.items():
        height = y(rows[name])
        out.append(f'<path d="M50 {height:.1f}H440" stroke="gray" stroke-dasharray="4"/>')
        out.append(f'<text x="445" y="{height + 4:.1f}">{label}</text>')
    out.append(f'<polyline points="{line}" fill="none" stroke="blue" stroke-width="2"/>')
    for n, loss in points:
        out.append(f'<circle cx="{x(n)}" cy="{y(loss):.1f}" r="4" fill="blue"/>')
        out.append(f'<text x="{x(n) + 6}" y="{y(loss) - 6:.1f}">{loss:.2f}</text>')
        out.append(f'<text x="{x(n) - 4}" y="276">{n}</text>')
    out.append('<text x="200" y="294">probes spent</text><text x="8" y="14">loss of the first pick, points</text></svg>')
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")


STARTER = """`tans evaluate` on the starter zoo: networks that saw a task of the held-out family are no candidates, and no result on the family is learned from.
`default` is what `query` serves; `tans2021` is the published baseline on the same pairs. `cold` ranks networks among themselves of which
no result was known when the encoders were learned, `cold+8` and `cold+32` after so many tasks were measured. Intervals are 90 % bootstrap
intervals over tasks; differences to the static list are paired (negative is better)."""
CORPUS = """`tans evaluate --scores assets/corpus/scores.csv` on `assets/corpus/zoo.tar`. Accuracies
are means over five splits. The query looks at the training part of the first; `logme` and `probe` run every network on that part,
`default+N` no more than N, in the order in which `tans query --rerank N` would. These rows, and the `held-out` ones for
comparison, are judged by the test part of the first split alone, whose few images (40 % of at most 1,000) make every figure noisier:
the best of so many accuracies is best by luck as well, so that even `probe` loses points. Changed since the tasks were frozen:
accuracies are means over five splits instead of that of the first, which `scores.csv` still holds (`held_out`); EfficientNet-Lite0, 1
and 2 came last."""
SMALL = "1M"
CORPUS_SMALL = f"""`tans evaluate --max-params {SMALL}`: the corpus without the three EfficientNets, whose ImageNet weights win on two thirds of the tasks,
so that the static list, which always names one of them, leaves less to be won there."""
TUNED = """`tans evaluate --judge finetune` after `tans record` of `assets/corpus/finetunes.csv`: the same ten folds, but the candidates of a task are
the nine or so networks that were fine-tuned on it, and the truth is their test accuracy then. The encoders know probes of the other
tasks and the few fine-tunes there; `probe` ranks by the leave-one-out accuracy of the task's own probe, which is what a fine-tune
has to be guessed from when nothing was trained yet."""
RECORDS_TITLE = "Results alone, one dataset left out at a time"
RECORDS = """`tans evaluate --records` on 2,254 published results of 180 public image models on 13 data sets (not in this repository).
A model's result on the dataset that it was trained on before does not count (23 of them). `default` knows results alone, and LogME in the
`scored` rows, which count the datasets and models with LogME only; `@4` and `@1`: no more than so many known results of each model, drawn three times."""


def kept_records():
    """The section on results alone as it was: its data are not in the repository."""
    path = os.path.join(ROOT, "docs", "QUALITY.md")
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        _, found, rest = file.read().partition(f"\n## {RECORDS_TITLE}\n")
    return found + rest


def section(title, text, table, seconds=None):
    print(f"{title}\n{table}", flush=True)
    took = f" {seconds:.0f} s." if seconds is not None else ""
    return f"\n## {title}\n\n{text}{took}\n\n```\n{table}\n```\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tans", default=os.path.join(ROOT, "target/release/tans"))
    parser.add_argument("--records")
    parser.add_argument("--folds", default="10")
    flags = parser.parse_args()
    binary = os.path.abspath(flags.tans)
    folds = ["--folds", flags.folds]
    with tempfile.TemporaryDirectory() as folder:
        text = HEAD + "\n".join(held_out(binary, folder)) + "\n"
        starter = os.path.join(ROOT, "assets", "starter.tar")
        text += section("Starter tasks, one family held out at a time", STARTER, *evaluate(binary, folder, starter))
        corpus = os.path.join(ROOT, "assets", "corpus")
        if os.path.exists(os.path.join(corpus, "zoo.tar")):
            scores = ["--scores", os.path.join(corpus, "scores.csv")]
            table, seconds = evaluate(binary, folder, os.path.join(corpus, "zoo.tar"), *scores, *folds)
            plot(table, os.path.join(ROOT, "docs", "loss-probes.svg"))
            text += section(f"The corpus, in {flags.folds} folds over families", CORPUS, table, seconds)
            text += "\n![First pick's loss against probes spent](loss-probes.svg)\n"
            small = evaluate_small(binary, folder, *scores, *folds)
            text += section(f"The same, networks of at most {SMALL} parameters", CORPUS_SMALL, *small)
            text += section("The same networks, fine-tuned", TUNED, *fine_tuned(binary, folder, corpus, *scores, *folds))
        if not flags.records:
            text += kept_records()
        else:
            table = run(binary, "evaluate", os.path.join(folder, "starter.tar.zoo"), "--quiet", "--records", flags.records)
            text += section(RECORDS_TITLE, RECORDS, table.rstrip())
    with open(os.path.join(ROOT, "docs", "QUALITY.md"), "w", encoding="utf-8") as out:
        out.write(text)
    print("docs/QUALITY.md written")


if __name__ == "__main__":
    main()
