#!/usr/bin/env python3
"""Compiles RocksDB, from the sources of the crate librocksdb-sys in Cargo.lock, into FOLDER/librocksdb.a.

The crate's own build script compiles 342 files one by one and spends most of its time on the same headers. Here some 24
files at a time are one translation unit, which takes a third of the CPU time, and once it is there no profile, feature
or clone compiles RocksDB again: `ROCKSDB_LIB_DIR` and `ROCKSDB_STATIC` point the crate to it (scripts/setup.sh).

FOLDER is made complete or not at all. Linux on x86_64 and aarch64; needs a C++20 compiler (CXX, c++ or g++), ar and cargo.
"""

import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

FILES_A_UNIT = 24
# What one unit takes at most while it is compiled.
UNIT_BYTES = 2 << 30
# As in the crate's build script, for the features that storage/Cargo.toml names. SSE 4.2 and carry-less products make
# RocksDB's checksums fast; every x86_64 processor since 2010 has them.
DEFINES = [
    "LZ4=1", "ZSTD=1", "NDEBUG=1", "HAVE_ALIGNED_NEW", "HAVE_UINT128_EXTENSION", "OS_LINUX", "ROCKSDB_PLATFORM_POSIX",
    "ROCKSDB_LIB_IO_POSIX", "ROCKSDB_SCHED_GETCPU_PRESENT", "ROCKSDB_AUXV_GETAUXVAL_PRESENT",
    "ROCKSDB_FALLOCATE_PRESENT", "ROCKSDB_RANGESYNC_PRESENT",
]  # fmt: skip
FLAGS = ["-std=c++20", "-O2", "-fPIC", "-ffunction-sections", "-fdata-sections", "-include", "cstdint", "-w"]
PROCESSOR_FLAGS = {"x86_64": ["-msse4.2", "-mpclmul"], "aarch64": []}
ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    folder = pathlib.Path(sys.argv[1])
    crates = sources()
    rocksdb = crates["librocksdb-sys"]
    fresh = folder.with_name(folder.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    units = write_units(rocksdb, fresh)
    includes = [
        rocksdb, rocksdb / "rocksdb/include", rocksdb / "rocksdb",
        rocksdb / "rocksdb/third-party/gtest-1.8.1/fused-src",
        crates["lz4-sys"] / "liblz4/lib", crates["zstd-sys"] / "zstd/lib",
    ]  # fmt: skip
    compiler = os.environ.get("CXX") or shutil.which("c++") or "g++"
    command = [compiler, *FLAGS, *PROCESSOR_FLAGS[platform.machine()]]
    command += [f"-D{define}" for define in DEFINES] + [f"-I{include}" for include in includes]
    with ThreadPoolExecutor(jobs()) as pool:
        objects = list(pool.map(lambda unit: compile_unit(command, unit), units))
    subprocess.run(["ar", "crs", fresh / "librocksdb.a", *objects], check=True)
    for path in [*objects, *(unit for unit in units if unit.parent == fresh)]:
        path.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def sources():
    """Folders of the crates by name, fetched where they are not yet."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    answer = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    packages = json.loads(answer.stdout)["packages"]
    return {package["name"]: pathlib.Path(package["manifest_path"]).parent for package in packages}


def write_units(rocksdb, folder):
    """Files that include files of one directory each."""
    names = (rocksdb / "rocksdb_lib_sources.txt").read_text().split()
    directories = {}
    for name in names:
        # The crate has its own version of this file.
        if name != "util/build_version.cc":
            directories.setdefault(name.split("/")[0], []).append(name)
    units = [rocksdb / "build_version.cc"]
    for directory, files in directories.items():
        for start in range(0, len(files), FILES_A_UNIT):
            unit = folder / f"{directory}-{start}.cc"
            part = files[start : start + FILES_A_UNIT]
            unit.write_text("".join(f'#include "rocksdb/{name}"\n' for name in part))
            units.append(unit)
    # The largest first, so that no core waits long for the last.
    return sorted(units, key=lambda unit: -len(unit.read_text()))


def jobs():
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), memory // UNIT_BYTES))


def compile_unit(command, unit):
    folder = pathlib.Path(sys.argv[1] + ".partial")
    target = folder / f"{unit.stem}.o"
    subprocess.run([*command, "-c", unit, "-o", target], check=True)
    return target


if __name__ == "__main__":
    main()
