"""The pinned wheels that a device needs, for 64-bit Arm and its Python, downloaded once.

They are kept in ``$XDG_CACHE_HOME/asterisk`` under a digest of what was asked for. Nothing is
resolved: the extras of this project name all that runs on a device. What engines require beside
that (flatbuffers, protobuf, huggingface-hub) is for converters and downloads, which are not there.
"""

from __future__ import annotations

import email.parser
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asterisk.common.errors import EngineError, UsageError
from asterisk.common.files import replacing_folder
from asterisk.common.terminal import report as tell
from asterisk.deploy import project

PYTHONS = ("3.11", "3.13")
SUITES = {"3.11": "bookworm", "3.13": "trixie"}
GLIBC = {"3.11": (2, 36), "3.13": (2, 41)}  # of those suites
GLIBCXX = {"3.11": (3, 4, 30), "3.13": (3, 4, 33)}
MACHINE = "aarch64"
PLATFORMS = tuple(
    f"{tag}_{MACHINE}"
    for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")
)
FORMATS = ("tflite", "onnx", "gguf")
SERVE = "serve"
_EDITION = 2  # to be raised when this module makes something else of the same request
_SECONDS = 1800


def cache() -> Path:
    """Return the folder where everything downloaded is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "asterisk"


def requirements(format: str, tokenizer: str = "tokenizer.bin") -> tuple[str, ...]:
    """Return what a device needs for ``format`` and the server: pinned numpy, engine, ``serve``.

    And the ``tokenizers`` library, where the artifact's ``tokenizer`` is a file that it reads.
    """
    numpy = [line for line in project.required_by("export") if line.startswith("numpy==")]
    engine = project.required_by(format) if format in FORMATS else ()
    if len(numpy) != 1 or not engine:
        raise UsageError(f"no pinned engine for {format!r}; there are: {', '.join(FORMATS)}")
    library = project.required_by("tokenizers") if tokenizer == "tokenizer.json" else ()
    return (*numpy, *engine, *library, *project.required_by(SERVE))


def wheels(asked: Sequence[str], python: str) -> list[Path]:
    """Return the wheels of the requirements ``asked``, from cache or index.

    EngineError, one line, where they cannot be had; UsageError for another Python.
    """
    if python not in PYTHONS:
        raise UsageError(f"bundles are made for Python {' and '.join(PYTHONS)}, not {python}")
    made_of = [_EDITION, python, PLATFORMS, sorted(asked)]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    folder = cache() / f"wheels-{digest[:16]}"
    if not folder.is_dir():
        tell(f"wheels for Python {python} on {MACHINE}: downloading")
        with replacing_folder(folder, lambda _: True) as staging:
            _pip(staging, asked, python)
    return sorted(folder.glob("*.whl"))


def _pip(folder: Path, asked: Sequence[str], python: str) -> None:
    abi = f"cp{python.replace('.', '')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--implementation", "cp"]
    command += ["--python-version", python]
    command += [part for name in PLATFORMS for part in ("--platform", name)]
    command += [part for name in (abi, "abi3", "none") for part in ("--abi", name)]
    command += ["--dest", str(folder), "--", *asked]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"pip found no wheels within {_SECONDS} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        last = (lines or done.stderr.strip().splitlines() or ["it failed"])[-1]
        raise EngineError(
            "the wheels for the device cannot be downloaded (is there a package index within "
            f"reach?): {last.removeprefix('ERROR: ')[:200]}"
        )


def metadata(wheel: Path) -> Any:
    """Return the core metadata of a wheel, as an `email.message.Message`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [
                name
                for name in archive.namelist()
                if name.endswith(".dist-info/METADATA") and name.count("/") == 1
            ]
            text = archive.read(name).decode("utf-8")
    except (OSError, ValueError, zipfile.BadZipFile):
        raise EngineError(f"{wheel} is not a wheel: remove {wheel.parent}") from None
    return email.parser.Parser().parsestr(text, headersonly=True)


def canonical(name: str) -> str:
    """Return a distribution's name as it is compared (PEP 503)."""
    return name.lower().replace("_", "-").replace(".", "-")
