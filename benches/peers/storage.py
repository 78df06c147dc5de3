#!/usr/bin/env python3
"""Measures the store beside the bare disk and bare RocksDB, and threads that record beside one, and puts what it says
into docs/BENCHMARKS.md.

  storage.py [MODELS [RECORDS]]      default: 10,000 models of 100 kB and 1,000,000 records
  storage.py record                  threads that record at the same time, alone

Needs Python 3.9 or newer and what `make build` needs.
"""

import subprocess
import sys

import report


def bench(packages, name, arguments):
    packages = [word for package in packages for word in ("--package", package)]
    command = ["cargo", "bench", *packages, "--bench", name, "--", *arguments]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    print(ran.stdout, end="")
    if ran.returncode:
        sys.exit(f"storage.py: the benchmark {name} ended with {ran.returncode}")
    return f"{report.machine()}\n\n```\n{ran.stdout.strip()}\n```"


def main():
    if sys.argv[1:] != ["record"]:
        report.put("storage", bench(["tans", "tans-storage"], "storage", sys.argv[1:]))
    report.put("record", bench(["tans", "tans-benches"], "record", []))


if __name__ == "__main__":
    main()
