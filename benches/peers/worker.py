"""One Python library in a process of its own: builds or searches, and prints one JSON line each.

  worker.py SYSTEM build|search FOLDER INDEX THREADS [EF ...]

SYSTEM is hnswlib, usearch or faiss; FOLDER holds base.f32 and queries.f32. `search` writes what it
found to FOLDER/found-SYSTEM-EF.u32. The Rust worker (src/main.rs) speaks the same protocol.
"""

import json
import os
import sys
import time

import numpy as np

DIM, K, M, EF_CONSTRUCTION, FIRST_EF = 128, 10, 16, 200, 64


class Hnswlib:
    def __init__(self, threads):
        import hnswlib

        self.threads = threads
        self.index = hnswlib.Index(space="ip", dim=DIM)

    def build(self, base, path):
        self.index.init_index(len(base), M=M, ef_construction=EF_CONSTRUCTION, random_seed=1)
        self.index.add_items(base, num_threads=self.threads)
        yield
        self.index.save_index(path)

    def open(self, path):
        self.index.load_index(path)

    def search(self, queries, ef):
        self.index.set_ef(ef)
        return self.index.knn_query(queries, K, num_threads=self.threads)[0]


class Usearch:
    def __init__(self, threads):
        from usearch.index import Index

        self.threads = threads
        self.index = Index(
            ndim=DIM, metric="ip", dtype="f32", connectivity=M, expansion_add=EF_CONSTRUCTION
        )

    def build(self, base, path):
        self.index.add(np.arange(len(base), dtype=np.uint64), base, threads=self.threads)
        yield
        self.index.save(path)

    def open(self, path):
        self.index.load(path)

    def search(self, queries, ef):
        self.index.expansion_search = ef
        # With one thread the library takes one query at a time from Python: batches are fairer.
        return self.index.search(queries, K, threads=self.threads).keys.reshape(-1, K)


class Faiss:
    def __init__(self, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.faiss, self.index = faiss, faiss.IndexHNSWFlat(DIM, M, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION

    def build(self, base, path):
        self.index.add(base)
        yield
        self.faiss.write_index(self.index, path)

    def open(self, path):
        self.index = self.faiss.read_index(path)

    def search(self, queries, ef):
        self.index.hnsw.efSearch = ef
        return self.index.search(queries, K)[1]


def main():
    system, action, folder, path, threads, *efs = sys.argv[1:]
    worker = {"hnswlib": Hnswlib, "usearch": Usearch, "faiss": Faiss}[system](int(threads))
    rows = lambda name: np.fromfile(os.path.join(folder, name), np.float32).reshape(-1, DIM)
    if action == "build":
        base = rows("base.f32")
        start = clocks()
        building = worker.build(base, path)
        next(building)
        report(start, action="build")
        next(building, None)
        return
    queries, before = rows("queries.f32"), resident()
    start = clocks()
    worker.open(path)
    worker.search(queries[:1], FIRST_EF)
    report(start, action="open")
    for at, ef in enumerate(map(int, efs)):
        worker.search(queries[:1000], ef)
        start = clocks()
        found = worker.search(queries, ef)
        report(start, action="search", ef=ef, resident=resident() - before if at == 0 else None)
        np.asarray(found).astype(np.uint32).tofile(os.path.join(folder, f"found-{system}-{ef}.u32"))


def clocks():
    return time.perf_counter(), time.process_time()


def report(start, **fields):
    wall, processor = clocks()
    print(json.dumps({"wall": wall - start[0], "cpu": processor - start[1], **fields}), flush=True)


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


main()
