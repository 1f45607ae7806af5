"""The pinned wheels that a device needs, for 64-bit Arm and its Python, and what stays of them.

They are downloaded once and kept in ``$XDG_CACHE_HOME/asterisk`` under a digest of what was asked
for. Nothing is resolved: the extras of this project name all that runs on a device. What engines
require beside that is for converters and downloads, which devices do not have.
"""

from __future__ import annotations

import base64
import csv
import email.parser
import fnmatch
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from asterisk.artifact import sha256
from asterisk.common.errors import EngineError, MissingPackage, UsageError
from asterisk.common.files import cache_folder, replacing_folder
from asterisk.common.terminal import report
from asterisk.deploy.boards import FORMATS, MACHINE, PYTHONS

PROJECT = "asterisk-edge"
SUITES = {"3.11": "bookworm", "3.13": "trixie"}
GLIBC = {"3.11": (2, 36), "3.13": (2, 41)}  # of those suites
GLIBCXX = {"3.11": (3, 4, 30), "3.13": (3, 4, 33)}
PLATFORMS = tuple(f"manylinux{tag}_{MACHINE}" for tag in ("2014", "_2_17", "_2_27", "_2_28"))
EDITION = 2  # to be raised when this module makes something else of the same request
DOWNLOAD_SECONDS = 1800
LARGEST_WHEEL = 1 << 30  # unpacked bytes
_LISTED = (Path(__file__).parent / "templates" / "dropped.txt").read_text("utf-8").splitlines()
DROPPED = [line for line in _LISTED if line and not line.startswith("#")]
LICENCES = ("licen[cs]e*", "copying*", "notice*", "thirdparty*", "third_party*", "authors*")


def required_by(extra: str) -> tuple[str, ...]:
    """Return the requirements of an extra of this project, without this project's own extras."""
    marker = re.compile(rf"\s*extra\s*==\s*[\"']{re.escape(extra)}[\"']")
    lines = [line.partition(";") for line in project().requires or ()]
    found = [requirement.strip() for requirement, _, text in lines if marker.fullmatch(text)]
    return tuple(line for line in found if not line.startswith(PROJECT))


def entry_points() -> str:
    """Return the text of ``entry_points.txt``: the plug-ins, without the scripts."""
    groups: dict[str, list[str]] = {}
    for point in project().entry_points:
        if point.group.startswith("asterisk."):
            groups.setdefault(point.group, []).append(f"{point.name} = {point.value}\n")
    return "\n".join(f"[{name}]\n{''.join(sorted(groups[name]))}" for name in sorted(groups))


def project() -> Distribution:
    """Return this project as it is installed; MissingPackage where it is not."""
    try:
        return distribution(PROJECT)
    except PackageNotFoundError:
        raise MissingPackage(PROJECT) from None


def requirements(format: str, tokenizer: str = "tokenizer.bin") -> tuple[str, ...]:
    """Return what a device needs for ``format``, a file of a tokenizer and the server, pinned."""
    numpy = [line for line in required_by("export") if line.startswith("numpy==")]
    engine = required_by(format) if format in FORMATS else ()
    if len(numpy) != 1 or not engine:
        raise UsageError(f"no pinned engine for {format!r}; there are: {', '.join(FORMATS)}")
    library = required_by("tokenizers") if tokenizer == "tokenizer.json" else ()
    return (*numpy, *engine, *library, *required_by("serve"))


def wheels(requirements: Sequence[str], python: str) -> list[Path]:
    """Return the wheels of ``requirements``, from cache or index; EngineError without them."""
    if python not in PYTHONS:
        raise UsageError(f"bundles are made for Python {' and '.join(PYTHONS)}, not {python}")
    made_of = [EDITION, python, PLATFORMS, sorted(requirements)]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    folder = cache_folder() / f"wheels-{digest[:16]}"
    if not folder.is_dir():
        report(f"wheels for Python {python} on {MACHINE}: downloading")
        with replacing_folder(folder, lambda _: True) as staging:
            _download(staging, requirements, python)
    return sorted(folder.glob("*.whl"))


def _download(folder: Path, requirements: Sequence[str], python: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--implementation", "cp"]
    command += ["--python-version", python, "--dest", str(folder)]
    command += [f"--platform={name}" for name in PLATFORMS]
    command += [f"--abi={name}" for name in (f"cp{python.replace('.', '')}", "abi3", "none")]
    command += ["--", *requirements]
    try:
        pip = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"pip found no wheels within {DOWNLOAD_SECONDS} s") from None
    if pip.returncode:
        lines = [line for line in pip.stderr.splitlines() if line.startswith("ERROR")]
        last = (lines or pip.stderr.strip().splitlines() or ["it failed"])[-1]
        what = "the wheels for the device cannot be downloaded"
        reason = last.removeprefix("ERROR: ")[:200]
        raise EngineError(f"{what} (is there a package index within reach?): {reason}")


def is_dropped(path: str) -> bool:
    """Whether ``path`` of a wheel is left out; licences always stay, and no file is changed."""
    name = PurePosixPath(path).name.lower()
    licence = any(fnmatch.fnmatchcase(name, pattern) for pattern in LICENCES)
    if licence or ("/licenses/" in path and ".dist-info/" in path):
        return False
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in DROPPED)


def unpack(wheel: Path, site: Path) -> tuple[str, str]:
    """Unpack what stays of ``wheel`` into ``site``; return the distribution's name and version.

    Every file is held against the wheel's own hashes; EngineError for a wheel that is damaged or
    whose names leave the folder.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            described = email.parser.Parser().parsestr(_own_text(archive, "METADATA"), True)
            name, version = str(described["Name"]), str(described["Version"])
    except (OSError, ValueError, zipfile.BadZipFile):
        raise EngineError(f"{wheel} is not a wheel: remove {wheel.parent}") from None
    try:
        with zipfile.ZipFile(wheel) as archive:
            record = csv.reader(io.StringIO(_own_text(archive, "RECORD")))
            digests = {path: digest for path, digest, _ in record if digest.startswith("sha256=")}
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_WHEEL:
                raise ValueError(f"over {LARGEST_WHEEL >> 20} MiB unpacked")
            for entry in archive.infolist():
                path = _installed_path(entry.filename)
                if entry.is_dir() or is_dropped(path):
                    continue
                target = site / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file)
                digest = base64.urlsafe_b64encode(bytes.fromhex(sha256(target)))
                text = "sha256=" + digest.decode("ascii").rstrip("=")
                if digests.get(entry.filename, text) != text:
                    raise ValueError(f"{entry.filename} is not what RECORD says")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as failure:
        raise EngineError(f"{wheel}: {failure}; remove {wheel.parent}") from None
    return name, version


def _own_text(archive: zipfile.ZipFile, name: str) -> str:
    """Return the text of a file in the wheel's own ``.dist-info`` folder."""
    paths = fnmatch.filter(archive.namelist(), f"*.dist-info/{name}")
    [path] = [path for path in paths if path.count("/") == 1]
    return archive.read(path).decode("utf-8")


def _installed_path(name: str) -> str:
    """Return where a wheel's file goes (binary distribution format, ``.data`` folders)."""
    pure = PurePosixPath(name)
    parts = pure.parts
    if pure.is_absolute() or ".." in parts or "\\" in name or "\0" in name or not parts:
        raise ValueError(f"a file called {name!r}")
    if parts[0].endswith(".data") and len(parts) > 2 and parts[1] in ("purelib", "platlib"):
        parts = parts[2:]
    return "/".join(parts)
