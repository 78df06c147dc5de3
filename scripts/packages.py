"""What the scripts of this folder share: the cache folder, package downloads, .npz files.

Packages are fetched by name with the clients every machine has (`pip download`, `npm pack`,
`apt-get download`), without root, into the cache folder; a second run downloads nothing.
"""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

VENV_ENV = "TANS_SCRIPT_VENV"


def cache(*parts):
    """The cache folder, or a folder inside it, made if missing."""
    base = os.environ.get("TANS_CACHE")
    if not base:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        base = os.path.join(home, "tans")
    folder = os.path.join(base, *parts)
    os.makedirs(folder, exist_ok=True)
    return folder


def root():
    """The root of the clone."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def is_zoo(path):
    """Whether a zoo is complete: one that `init` was stopped in makes way for the next."""
    return os.path.isfile(os.path.join(path, "FORMAT"))


def fail(message):
    """Ends the script with one clear line."""
    sys.exit(f"{os.path.basename(sys.argv[0])}: {message}")


def call(command, folder, hint):
    """Runs a client in `folder`; its last line and the hint are the message if it fails."""
    if shutil.which(command[0]) is None:
        fail(f"{command[0]} is missing: {hint}")
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        fail(f"{' '.join(command[:6])} failed ({last}): {hint}")


def in_venv(requirements, name="venv-starter"):
    """Continues this script inside the virtual environment `name` of the cache folder.

    It holds `requirements`; those of datasets are pinned, because resampling and glyph rendering
    decide the bytes we ship.
    """
    if os.environ.get(VENV_ENV) == "ready":
        return
    venv = os.path.join(cache(), name)
    python = os.path.join(venv, "bin", "python")
    stamp = os.path.join(venv, ".complete")
    wanted = "\n".join(requirements)
    if not os.path.exists(stamp) or open(stamp).read() != wanted:
        call([sys.executable, "-m", "venv", "--clear", venv], cache(), "install python3-venv")
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        call(install + list(requirements), cache(), "check the network and the package index")
        with open(stamp, "w") as file:
            file.write(wanted)
    os.environ[VENV_ENV] = "ready"
    os.execv(python, [python] + sys.argv)


def wheel(name, version):
    """A PyPI wheel as an open archive."""
    folder = cache("starter", "pip")
    start = f"{name.replace('-', '_')}-{version}-".lower()
    find = lambda: [f for f in os.listdir(folder) if f.lower().startswith(start)]
    if not find():
        client = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        # A fixed tag makes every Python fetch the same file; only its data is read.
        client += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]
        client += ["--disable-pip-version-check", "--dest", folder, f"{name}=={version}"]
        call(client, folder, "check the network and the package index")
    return zipfile.ZipFile(os.path.join(folder, find()[0]))


def npm(name, version):
    """The path of an npm package's archive."""
    folder = cache("starter", "npm")
    path = os.path.join(folder, f"{name.lstrip('@').replace('/', '-')}-{version}.tgz")
    if not os.path.exists(path):
        call(["npm", "pack", "--silent", f"{name}@{version}"], folder, "install Node.js with npm")
    return path


def npm_members(name, version):
    """(path inside the package, bytes) of an npm package, in the order of the archive."""
    with tarfile.open(npm(name, version)) as archive:
        for member in archive:
            if member.isfile():
                yield member.name, archive.extractfile(member).read()


def debs(names):
    """The unpacked root folders of Debian packages, by name. Those that apt lacks are left out."""
    downloads, unpacked = cache("starter", "deb", "dl"), cache("starter", "deb")
    if shutil.which("dpkg-deb") is None:
        fail("dpkg-deb is missing: these datasets need a Debian or Ubuntu machine")
    have = {f.split("_")[0] for f in os.listdir(downloads) if f.endswith(".deb")}
    missing = [n for n in names if n not in have and not os.path.isdir(f"{unpacked}/{n}")]
    if missing:
        apt_download(missing, downloads)
    roots = {}
    for file in sorted(os.listdir(downloads)):
        name = file.split("_")[0]
        if name in names and file.endswith(".deb"):
            roots[name] = unpack_deb(os.path.join(downloads, file), os.path.join(unpacked, name))
    return {name: roots[name] for name in names if name in roots}


def apt_download(names, folder):
    """Downloads packages in one call, or one by one where a single name is gone."""
    client = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root"]
    if shutil.which("apt-get") is None:
        fail("apt-get is missing: these datasets need a Debian or Ubuntu machine")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if subprocess.run(client + names, cwd=folder, **quiet).returncode == 0:
        return
    for name in names:
        if subprocess.run(client + [name], cwd=folder, **quiet).returncode:
            print(f"  apt has no package {name}: its images are left out", flush=True)


def deb(name):
    """The unpacked root folder of one Debian package."""
    found = debs([name])
    if name not in found:
        fail(f"apt-get download {name} failed: run apt-get update, or check the network")
    return found[name]


def unpack_deb(path, folder):
    """Unpacks once; a folder that is there is complete."""
    if not os.path.isdir(folder):
        # Two scripts may unpack the same package at once; whichever ends first is kept.
        partial = f"{folder}.{os.getpid()}"
        call(["dpkg-deb", "-x", path, partial], os.path.dirname(path), "the download is damaged")
        try:
            os.rename(partial, folder)
        except OSError:
            shutil.rmtree(partial)
    return folder


def write_npz(path, arrays):
    """Writes a compressed .npz whose bytes depend on the arrays alone (numpy stamps the time)."""
    import numpy as np

    partial = f"{path}.{os.getpid()}"
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.asarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data.getvalue())
    os.replace(partial, path)


def install(path, data):
    """Replaces a file in one step, so that a run that is broken off leaves the old one."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".partial", "wb") as file:
        file.write(data)
    os.replace(path + ".partial", path)


def sha256(data):
    """The hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def expect_digest(name, data, expected):
    """Fails unless the bytes are those that were recorded."""
    found = sha256(data)
    if found != expected:
        fail(f"{name}: expected sha256 {expected}, found {found}")
