"""What of a wheel a device has no use for. Licences always stay, and no file is changed.

Each rule is a pattern of paths as they lie in ``site-packages``, and the reason. What is dropped
here is proven not to be needed by verification on the device, which every installation runs.
"""

from __future__ import annotations

import base64
import csv
import fnmatch
import hashlib
import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from asterisk.common.errors import EngineError
from asterisk.deploy.wheels import canonical, metadata

LARGEST = 1 << 30  # unpacked bytes of one wheel
ANYWHERE = (
    ("*.pyi", "type stubs"),
    ("*/py.typed", "a marker for type checkers"),
    ("*.pyc", "made where it runs"),
    ("*/tests/*", "tests"),
    ("*/test/*", "tests"),
    ("*/conftest.py", "tests"),
    ("*.h", "headers"),
    ("*.hpp", "headers"),
    ("*/include/*", "headers"),
    ("*.a", "static libraries"),
    ("*.lib", "static libraries"),
    ("*.pyx", "sources of compiled modules"),
    ("*.pxd", "declarations of compiled modules"),
    ("*.c", "sources of compiled modules"),
    ("*.pc", "for compilers"),
    ("*.dist-info/RECORD", "its hashes stand in bundle.json, and no pip will remove the files"),
    ("*.dist-info/WHEEL", "for installers"),
    ("*.dist-info/INSTALLER", "for installers"),
    ("*.dist-info/top_level.txt", "for installers"),
    ("*.dist-info/sboms/*", "for auditors of the wheel, in the wheel"),
    ("*.data/scripts/*", "commands of others"),
)
OF = {
    "numpy": (
        ("numpy/f2py/*", "a Fortran compiler's wrapper"),
        ("numpy/distutils/*", "a build system"),
        ("numpy/doc/*", "documentation"),
        ("numpy/_pyinstaller/*", "for another packager"),
        ("numpy/_core/lib/*", "for C compilers"),
        ("numpy/_core/_*_tests.*", "tests' compiled modules"),
        ("numpy/_core/_simd.*", "tests' compiled module"),
        ("numpy/testing/*", "imported by tests only"),
        ("numpy/typing/mypy_plugin.py", "for a type checker"),
    ),
    "onnxruntime": (
        ("onnxruntime/transformers/*", "a converter of models"),
        ("onnxruntime/quantization/*", "a converter of models"),
        ("onnxruntime/tools/*", "converters and profilers"),
        ("onnxruntime/datasets/*", "sample models"),
        ("onnxruntime/backend/*", "ONNX's test interface"),
        ("onnxruntime/capi/libonnxruntime.so*", "the C library: Python's module has it inside"),
        ("onnxruntime/capi/libonnxruntime_providers_shared.so", "for other devices' providers"),
        ("onnxruntime/capi/convert_npz_to_onnx_adapter.py", "a converter"),
    ),
    "ai-edge-litert": (
        ("ai_edge_litert/aot/*", "an ahead-of-time compiler for phones"),
        ("ai_edge_litert/tools/*", "converters"),
        ("ai_edge_litert/tflite/*", "profilers"),
        ("ai_edge_litert/*_pb2.py", "the converters' messages"),
        ("ai_edge_litert/schema_py_generated.py", "the converters' view of a model"),
        ("ai_edge_litert/libLiteRtWebGpuAccelerator.so", "a GPU's backend"),
        ("ai_edge_litert/libLiteRt.so", "the compiled-model interface, which is not used here"),
        ("ai_edge_litert/*_options.py", "the compiled-model interface"),
        ("ai_edge_litert/compiled_model.py", "the compiled-model interface"),
        ("ai_edge_litert/pywrap_genai_ops.so", "operators of generators"),
        ("ai_edge_litert/format_converter_wrapper_pybind11.so", "a converter"),
        ("ai_edge_litert/_pywrap_litert_c[!o]*", "a converter"),
        ("ai_edge_litert/_pywrap_litert_converter.so", "a converter"),
        ("ai_edge_litert/_pywrap_litert_compiled*", "the compiled-model interface"),
        ("ai_edge_litert/_pywrap_modify_model_interface.so", "a converter"),
        ("ai_edge_litert/_pywrap_*calibration*", "a converter"),
        ("ai_edge_litert/_pywrap_analyzer_wrapper.so", "an analyser"),
    ),
}
_KEPT = ("licen[cs]e*", "copying*", "notice*", "thirdparty*", "third_party*", "authors*")


def dropped(distribution: str, path: str) -> str | None:
    """Return why ``path`` of a distribution's wheel is left out; None if it is kept."""
    name = canonical(distribution)
    if any(fnmatch.fnmatchcase(PurePosixPath(path).name.lower(), it) for it in _KEPT):
        return None
    if "/licenses/" in path and ".dist-info/" in path:
        return None
    for pattern, reason in (*ANYWHERE, *OF.get(name, ())):
        if fnmatch.fnmatchcase(path, pattern):
            return reason
    return None


def unpack(wheel: Path, site: Path) -> tuple[str, str]:
    """Unpack what is kept of ``wheel`` into ``site``; return the distribution's name and version.

    Every file is held against the wheel's own hashes; EngineError for a wheel that is damaged or
    whose names leave the folder.
    """
    told = metadata(wheel)
    name, version = str(told["Name"]), str(told["Version"])
    try:
        with zipfile.ZipFile(wheel) as archive:
            expected = dict(_record(archive))
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                raise ValueError(f"over {LARGEST >> 20} MiB unpacked")
            for entry in archive.infolist():
                path = _place(entry.filename)
                if entry.is_dir() or dropped(name, path):
                    continue
                target = site / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file)
                if entry.filename in expected and _hash(target) != expected[entry.filename]:
                    raise ValueError(f"{entry.filename} is not what RECORD says")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as failure:
        raise EngineError(f"{wheel}: {failure}; remove {wheel.parent}") from None
    return name, version


def _place(name: str) -> str:
    """Return where a wheel's file goes (binary distribution format, ``.data`` folders)."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name or not pure.parts:
        raise ValueError(f"a file called {name!r}")
    parts = pure.parts
    if parts[0].endswith(".data") and len(parts) > 2 and parts[1] in ("purelib", "platlib"):
        parts = parts[2:]
    return "/".join(parts)


def _record(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    (name,) = [
        name
        for name in archive.namelist()
        if name.endswith(".dist-info/RECORD") and name.count("/") == 1
    ]
    for path, digest, _ in csv.reader(io.StringIO(archive.read(name).decode("utf-8"))):
        if digest.startswith("sha256="):
            yield path, digest.removeprefix("sha256=")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
