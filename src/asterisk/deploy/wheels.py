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
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from asterisk.common.errors import EngineError, MissingPackage, UsageError
from asterisk.common.files import replacing_folder
from asterisk.common.terminal import report
from asterisk.deploy.boards import MACHINE, PYTHONS

PROJECT = "asterisk-edge"
SUITES = {"3.11": "bookworm", "3.13": "trixie"}
GLIBC = {"3.11": (2, 36), "3.13": (2, 41)}  # of those suites
GLIBCXX = {"3.11": (3, 4, 30), "3.13": (3, 4, 33)}
PLATFORMS = tuple(
    f"{tag}_{MACHINE}"
    for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")
)
FORMATS = ("tflite", "onnx", "gguf")
EDITION = 2  # to be raised when this module makes something else of the same request
DOWNLOAD_SECONDS = 1800
LARGEST_WHEEL = 1 << 30  # unpacked bytes
# What devices have no use for: patterns of paths as they lie in site-packages, by the reason. What
# is dropped is proven not to be needed by the verification of every installation.
DROPPED: Mapping[str, str] = {
    "type stubs": "*.pyi */py.typed",
    "made where it runs": "*.pyc",
    "tests": "*/tests/* */test/* */conftest.py",
    "headers": "*.h *.hpp */include/*",
    "for compilers": "*.a *.lib *.pyx *.pxd *.c *.pc",
    "its hashes stand in bundle.json, and no pip will remove the files": "*.dist-info/RECORD",
    "for installers": "*.dist-info/WHEEL *.dist-info/INSTALLER *.dist-info/top_level.txt",
    "for auditors of the wheel, in the wheel": "*.dist-info/sboms/*",
    "commands of others": "*.data/scripts/*",
    "a Fortran compiler's wrapper": "numpy/f2py/*",
    "a build system": "numpy/distutils/*",
    "documentation": "numpy/doc/*",
    "for another packager": "numpy/_pyinstaller/*",
    "for C compilers": "numpy/_core/lib/*",
    "for tests": "numpy/_core/_*_tests.* numpy/_core/_simd.* numpy/testing/*",
    "for a type checker": "numpy/typing/mypy_plugin.py",
    "converters": "onnxruntime/transformers/* onnxruntime/quantization/* "
    "onnxruntime/capi/convert_npz_to_onnx_adapter.py ai_edge_litert/tools/* "
    "ai_edge_litert/*_pb2.py ai_edge_litert/schema_py_generated.py "
    "ai_edge_litert/_pywrap_litert_converter.so ai_edge_litert/_pywrap_litert_c[!o]* "
    "ai_edge_litert/format_converter_wrapper_pybind11.so "
    "ai_edge_litert/_pywrap_modify_model_interface.so ai_edge_litert/_pywrap_*calibration*",
    "converters and profilers": "onnxruntime/tools/* ai_edge_litert/tflite/*",
    "sample models": "onnxruntime/datasets/*",
    "ONNX's test interface": "onnxruntime/backend/*",
    "the C library: Python's module has it inside": "onnxruntime/capi/libonnxruntime.so*",
    "for other devices' providers": "onnxruntime/capi/libonnxruntime_providers_shared.so",
    "an ahead-of-time compiler for phones": "ai_edge_litert/aot/*",
    "an analyser": "ai_edge_litert/_pywrap_analyzer_wrapper.so",
    "a GPU's backend": "ai_edge_litert/libLiteRtWebGpuAccelerator.so",
    "the compiled-model interface, which is not used here": "ai_edge_litert/libLiteRt.so "
    "ai_edge_litert/*_options.py ai_edge_litert/compiled_model.py "
    "ai_edge_litert/_pywrap_litert_compiled*",
    "operators of generators": "ai_edge_litert/pywrap_genai_ops.so",
}
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


def cache() -> Path:
    """Return the folder where everything downloaded is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "asterisk"


def requirements(format: str, tokenizer: str = "tokenizer.bin") -> tuple[str, ...]:
    """Return what a device needs for ``format`` and the server: pinned numpy, engine, ``serve``.

    And the ``tokenizers`` library, where the artifact's ``tokenizer`` is a file that it reads.
    """
    numpy = [line for line in required_by("export") if line.startswith("numpy==")]
    engine = required_by(format) if format in FORMATS else ()
    if len(numpy) != 1 or not engine:
        raise UsageError(f"no pinned engine for {format!r}; there are: {', '.join(FORMATS)}")
    library = required_by("tokenizers") if tokenizer == "tokenizer.json" else ()
    return (*numpy, *engine, *library, *required_by("serve"))


def wheels(requirements: Sequence[str], python: str) -> list[Path]:
    """Return the wheels of ``requirements``, from cache or index.

    EngineError, one line, where they cannot be had; UsageError for another Python.
    """
    if python not in PYTHONS:
        raise UsageError(f"bundles are made for Python {' and '.join(PYTHONS)}, not {python}")
    made_of = [EDITION, python, PLATFORMS, sorted(requirements)]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    folder = cache() / f"wheels-{digest[:16]}"
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
        raise EngineError(
            "the wheels for the device cannot be downloaded (is there a package index within "
            f"reach?): {last.removeprefix('ERROR: ')[:200]}"
        )


def canonical(name: str) -> str:
    """Return a distribution's name as it is compared (PEP 503)."""
    return name.lower().replace("_", "-").replace(".", "-")


def is_dropped(path: str) -> bool:
    """Whether ``path`` of a wheel is left out; licences always stay, and no file is changed."""
    name = PurePosixPath(path).name.lower()
    licence = any(fnmatch.fnmatchcase(name, pattern) for pattern in LICENCES)
    if licence or ("/licenses/" in path and ".dist-info/" in path):
        return False
    patterns = " ".join(DROPPED.values()).split()
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


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
                with target.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").digest()
                text = "sha256=" + base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
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
