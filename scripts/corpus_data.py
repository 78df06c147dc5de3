#!/usr/bin/env python3
"""Makes the tasks of the corpus, NAME.npz, in the cache folder, and checks them.

  corpus_data.py             makes what is missing and compares everything with assets/corpus.toml

A corpus task is a set of the starter zoo as it stands, a further set of scripts/starter.json with
fewer images, one of the query examples, or a set of scripts/corpus.json. Some of their sources may
be used but not passed on, so their images stay in the cache folder: the repository gets feature
rows and results. assets/corpus.toml holds names, families, folds and a digest of each task.

Needs Python 3.11 or newer, pip, npm, and apt-get (Debian or Ubuntu; no root).
"""

import collections
import hashlib
import json
import os
import subprocess
import sys
import tomllib

import build_starter_zoo
import packages
import starter_data

FOLDS = 10
# With fewer groups the program splits by image.
GROUPS_MIN = 3
IMAGES_MAX, CLASSES_MAX = 1000, 20
FREEZE = os.path.join("assets", "corpus.toml")
HEAD = """\
# The tasks of the corpus, frozen: written by `scripts/build_corpus.py --freeze`, read by everything
# that measures. Later changes are listed in docs/QUALITY.md.
#
# Every task is split 60/40 by `tans` itself (seed 0, stratified, at most 100 images a class): by
# group (font package, icon set, vendor, thing shown) where it has three or more groups, otherwise
# by image. Tasks of one family share images or sources; a family lies in one fold, the one that
# `tans evaluate --folds 10` deals it into (families in the order of their tasks' ids).
# `digest` is the sha256 of images, labels and groups. `benchmark/` tasks ship with their images.
"""

Task = collections.namedtuple("Task", "name file family side licence packages")


def table():
    """scripts/corpus.json: sets, font packages, unions, versions."""
    with open(os.path.join(packages.root(), "scripts", "corpus.json"), encoding="utf-8") as file:
        return json.load(file)


def folder():
    """Where the sets lie that only the corpus has."""
    return packages.cache("corpus", "data")


def own_sets(corpus, starter):
    """The specs of the sets that are drawn for the corpus alone, by name."""
    smaller, queries = corpus["starter_sets"].items(), corpus["queries"].items()
    return {
        **{name: {**starter["sets"][name], "cap": cap} for name, cap in smaller},
        **{name: {**starter["queries"][name], **own} for name, own in queries},
        **corpus["sets"],
    }


def tasks():
    """All tasks of the corpus: the starter zoo's, the benchmark's, the corpus's own."""
    starter = starter_data.table()
    own = own_sets(table(), starter)
    side = lambda spec: 32 if spec["side"] <= 32 else 64
    task = lambda name, file, spec: Task(
        name, file, spec["family"], side(spec), spec["licence"], spec["packages"]
    )
    sets, found = starter["sets"], []
    for name in sets:
        if name in build_starter_zoo.STARTER_SETS:
            file = os.path.join(starter_data.folder(), f"{name}.npz")
            found.append(task(name, file, sets[name]))
    for name in starter["benchmark"]:
        file = os.path.join(packages.root(), "assets", "benchmark", f"{name}.npz")
        found.append(task(f"benchmark/{name}", file, sets[name]))
    found += [task(name, os.path.join(folder(), f"{name}.npz"), own[name]) for name in own]
    return found


def make(wanted):
    """Makes the files that are missing."""
    starter = starter_data.table()
    names = [t.name for t in wanted if t.name in build_starter_zoo.STARTER_SETS]
    if not all(os.path.exists(t.file) for t in wanted if t.name in names):
        script = os.path.join(packages.root(), "scripts", "starter_data.py")
        if subprocess.run([sys.executable, script, *names]).returncode:
            packages.fail("the starter datasets could not be made: see above")
    missing = [t for t in wanted if not os.path.exists(t.file)]
    if missing:
        draw(wanted, missing, own_sets(table(), starter), starter)


def draw(wanted, missing, own, starter):
    """Draws sets; no image of another family is drawn again."""
    import sources

    corpus = table()
    shelf = starter_data.Shelf(
        {
            # All sets, because an icon that shows what one of them asks for is kept for it.
            "sets": {**starter["sets"], **own},
            "queries": starter["queries"],
            "fonts": starter["fonts"] + corpus["fonts"],
            "any_font_licence": True,
            "versions": {**starter["versions"], **corpus["versions"]},
        }
    )
    digests = {}
    for task in wanted:
        if task not in missing:
            digests[task.name] = image_digests(task.file)
            continue
        spec = own[task.name]
        # Those before it in the list alone, so that the order of the runs decides nothing.
        others = (digests[t.name] for t in wanted if t.name in digests and t.family != task.family)
        made = sources.collect(
            shelf.items(spec), starter_data.classes(spec), spec["cap"], starter_data.SEED,
            frozenset().union(*others),
        )  # fmt: skip
        packages.write_npz(task.file, made.arrays())
        digests[task.name] = image_digests(task.file)
        counts = made.counts()
        print(
            f"{task.name:22} {len(made.x):4} images {'x'.join(map(str, made.x.shape[1:])):8} "
            f"{len(counts):2} classes of {counts.min()}-{counts.max()}, "
            f"{len(made.group_names)} groups",
            flush=True,
        )


def image_digests(file):
    import numpy as np
    import sources

    return {sources.digest(image) for image in np.load(file)["x"]}


def union(name, spec, of_name):
    """The file of a union of tasks: their classes side by side, all at one size, in colour."""
    import numpy as np
    import sources
    from PIL import Image

    path = os.path.join(packages.cache("corpus", "unions"), f"{name}.npz")
    if os.path.exists(path):
        return path
    side, images, labels, names = spec["side"], [], [], []
    for member in spec["members"].split():
        data = np.load(of_name[member].file)
        for label, class_name in enumerate(data["class_names"]):
            # The first ones come from as many groups as there are: `collect` draws in turn.
            for image in data["x"][data["y"] == label][: spec["cap"]]:
                picture = Image.fromarray(image.squeeze() if image.shape[2] == 1 else image)
                picture = picture.convert("RGB").resize((side, side), Image.LANCZOS)
                images.append(sources.with_channels(picture))
                labels.append(len(names))
            names.append(f"{member}/{class_name}")
    labels = np.array(labels, np.int64)
    packages.write_npz(path, {"x": np.stack(images), "y": labels, "class_names": np.array(names)})
    return path


def describe(task):
    """What assets/corpus.toml says of a task, but for its fold."""
    import numpy as np

    data = np.load(task.file)
    digest = hashlib.sha256()
    for array in (data["x"], data["y"], data["group"] if "group" in data else np.zeros(0)):
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    groups = len(set(data["group"][data["group"] >= 0].tolist())) if "group" in data else 0
    return {
        "name": task.name,
        "family": task.family,
        "images": len(data["y"]),
        "classes": len(data["class_names"]),
        "split": "group" if groups >= GROUPS_MIN else "image",
        "digest": digest.hexdigest(),
    }


def freeze(described, families):
    """Writes assets/corpus.toml; `families` in the order in which they are dealt into the folds."""
    fold_of = {family: index % FOLDS for index, family in enumerate(families)}
    lines = [HEAD]
    for entry in described:
        entry = {**entry, "fold": fold_of[entry["family"]]}
        values = (f"{key} = {json.dumps(value)}\n" for key, value in entry.items())
        lines.append("[[task]]\n" + "".join(values))
    packages.install(os.path.join(packages.root(), FREEZE), "\n".join(lines).encode())


def frozen():
    """What assets/corpus.toml holds, by task."""
    with open(os.path.join(packages.root(), FREEZE), "rb") as file:
        return {entry["name"]: entry for entry in tomllib.load(file)["task"]}


def compare(described):
    """Fails unless the tasks are those that were frozen."""
    expected = frozen()
    for entry in described:
        known = {**expected.get(entry["name"], {})}
        known.pop("fold", None)
        if known != entry:
            packages.fail(
                f"{entry['name']}: expected what {FREEZE} says, {known}, found {entry}: results on "
                "it would not compare (packages of another Debian release? the recorded is 12)"
            )
    gone = set(expected) - {entry["name"] for entry in described}
    if gone:
        packages.fail(f"{FREEZE} names {sorted(gone)}, which no script makes")


def check_families(wanted):
    """Fails where sets of different families share images, or one is larger than agreed."""
    # A benchmark task is a part of the set that it is named after.
    wanted = [t for t in wanted if not t.name.startswith("benchmark/")]
    files = {t.name: t.file for t in wanted}
    wrong = starter_data.print_families(files, {t.name: t.family for t in wanted})
    if wrong:
        packages.fail(f"{wrong[0][0]} and {wrong[0][1]} share images: give them one family")


def checked_tasks(freezing=False):
    """All tasks, made where missing and proven to be those of assets/corpus.toml."""
    wanted = tasks()
    make(wanted)
    described = [describe(task) for task in wanted]
    large = [e for e in described if e["images"] > IMAGES_MAX or e["classes"] > CLASSES_MAX]
    if large:
        agreed = f"{IMAGES_MAX} images of {CLASSES_MAX} classes"
        packages.fail(f"expected at most {agreed}, found {large[0]}")
    if not freezing:
        compare(described)
    return wanted


def main():
    packages.in_venv(starter_data.REQUIREMENTS)
    wanted = checked_tasks()
    check_families(wanted)
    print(f"{len(wanted)} tasks in {len({task.family for task in wanted})} families")


if __name__ == "__main__":
    main()
