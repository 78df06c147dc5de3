"""The vectors of the comparison: made once into the cache folder, as raw little-endian f32 rows.

  fashion    60,000 Fashion-MNIST images, the 128 leading principal components of their pixels, of
             length 1; the queries are the 10,000 test images
  paper      the first 14,000 of these: the size of the zoo in the TANS paper
  clustered  1,000,000 points, a hundred around each of 10,000 centres, 128 dimensions, of length 1;
             10,000 queries of the same kind
  clusters   200,000 of the same kind around 2,000 centres
"""

import gzip
import os
import sys
from collections import namedtuple

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts"))
import packages

DIM, K = 128, 10
CLUSTER, BESIDE = 100, 0.7
# Recall is counted over this many queries at most: exact answers over a million vectors take long.
JUDGED = {"fashion": 10_000, "paper": 10_000, "clustered": 2_000, "clusters": 2_000}
Data = namedtuple("Data", "name folder base queries truth")


def load(name):
    """The dataset of that name, made if missing; `truth` holds the cosine of each query's K-th."""
    folder = packages.cache("peers", name)
    paths = [os.path.join(folder, part) for part in ("base.f32", "queries.f32", "truth.f32")]
    if not all(os.path.exists(path) for path in paths):
        base, queries = MAKERS[name]()
        for path, array in zip(paths, (base, queries, kth_cosines(base, queries[: JUDGED[name]]))):
            packages.install(path, np.ascontiguousarray(array, np.float32).tobytes())
    rows = [np.fromfile(path, np.float32).reshape(-1, DIM) for path in paths[:2]]
    return Data(name, folder, *rows, np.fromfile(paths[2], np.float32))


def fashion():
    folder = packages.deb("dataset-fashion-mnist") + "/usr/share/datasets/fashion-mnist/"
    parts = []
    for part in ("train", "t10k"):
        with gzip.open(f"{folder}{part}-images-idx3-ubyte.gz") as file:
            parts.append(np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 784) / 255.0)
    mean = parts[0].mean(0)
    _, axes = np.linalg.eigh(np.cov(parts[0], rowvar=False))
    return [unit((part - mean) @ axes[:, ::-1][:, :DIM]) for part in parts]


def paper():
    base, queries = fashion()
    return base[:14_000], queries


def clustered(count):
    random = np.random.default_rng(7)
    centres = random.standard_normal((count // CLUSTER, DIM), np.float32)

    def draw(count):
        rows = random.standard_normal((count, DIM), np.float32)
        rows *= BESIDE
        rows += centres[random.integers(0, len(centres), count)]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    return draw(count), draw(10_000)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def kth_cosines(base, queries):
    kths = []
    for start in range(0, len(queries), 50):
        cosines = queries[start : start + 50] @ base.T
        kths.append(np.partition(cosines, -K, axis=1)[:, -K])
    return np.concatenate(kths)


MAKERS = {
    "fashion": fashion,
    "paper": paper,
    "clustered": lambda: clustered(1_000_000),
    "clusters": lambda: clustered(200_000),
}


def recall(data, ids):
    """Share of the K nearest that were found; equally near vectors count as the same."""
    found = 0
    ids = ids[: len(data.truth)]
    for start in range(0, len(ids), 1000):
        some = ids[start : start + 1000]
        rows = data.base[np.minimum(some, len(data.base) - 1)]
        cosines = np.einsum("qd,qkd->qk", data.queries[start : start + 1000], rows)
        near = cosines >= data.truth[start : start + 1000, None] - 1e-6
        found += np.count_nonzero(near & (some < len(data.base)))
    return found / ids.size
