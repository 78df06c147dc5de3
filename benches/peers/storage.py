#!/usr/bin/env python3
"""Measures the store beside the bare disk and bare RocksDB and puts what it says into docs/BENCHMARKS.md.

  storage.py [MODELS [RECORDS]]      default: 10,000 models of 100 kB and 1,000,000 records

Needs Python 3.9 or newer and what `make build` needs.
"""

import subprocess
import sys

import report


def main():
    command = ["cargo", "bench", "--package", "tans", "--package", "tans-storage", "--bench", "storage"]
    ran = subprocess.run(command + ["--"] + sys.argv[1:], stdout=subprocess.PIPE, text=True)
    print(ran.stdout, end="")
    if ran.returncode:
        sys.exit(f"storage.py: the benchmark ended with {ran.returncode}")
    report.put("storage", f"{report.machine()}\n\n```\n{ran.stdout.strip()}\n```")


if __name__ == "__main__":
    main()
