"""Build an unmodified upstream llama.cpp, once, from a source package.

::

    python tests/outside/build_llama.py [FOLDER]

The source distribution of llama-cpp-python carries llama.cpp's whole tree at one commit, which
``git status`` there confirms to be unmodified. ``FOLDER`` (see `home`) then holds::

    bin/llama-server   bin/llama-quantize
    source/            convert_hf_to_gguf.py and what it imports

pip fetches 77 MB; cmake and a C++ compiler take some 20 minutes of one core. Optimisation is -O1:
it halves that, and no figure here is a time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
VARIABLE = "ASTERISK_LLAMA_CPP"
PROGRAMS = ("llama-quantize", "llama-server")
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_C_FLAGS_RELEASE": "-O2 -DNDEBUG",
    "CMAKE_CXX_FLAGS_RELEASE": "-O1 -DNDEBUG",
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_NATIVE": "OFF",  # a cache may be read by another machine
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
}


def home() -> Path:
    """Return the folder that `VARIABLE` names, or the default one, built or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(VARIABLE) or cache / "asterisk" / f"llama.cpp-{VERSION}")


def built(folder: Path) -> bool:
    """Tell whether ``folder`` holds everything; programs are put there last."""
    return all((folder / "bin" / name).is_file() for name in PROGRAMS)


def fetch(folder: Path) -> Path:
    """Download and unpack the source distribution into ``folder``; return llama.cpp's tree."""
    package = f"llama-cpp-python=={VERSION}"
    run = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*run, "--dest", str(folder), package], check=True)
    (archive,) = folder.glob("*.tar.gz")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        sys.exit(f"{archive.name} is not the archive that is known here")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (tree,) = folder.glob("*/vendor/llama.cpp")
    return tree


def build(tree: Path, folder: Path) -> None:
    """Compile the programs in ``folder``."""
    options = [f"-D{name}={value}" for name, value in OPTIONS.items()]
    subprocess.run(["cmake", "-S", str(tree), "-B", str(folder), *options], check=True)
    parallel = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1)
    command = ["cmake", "--build", str(folder), "--parallel", parallel, "--target", *PROGRAMS]
    subprocess.run(command, check=True)


def main() -> None:
    """Build into the folder given, or into `home`, unless it is there already."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else home()
    if built(target):
        print(f"llama.cpp is built: {target}")
        return
    for program in ("cmake", "c++"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed; on Debian: apt-get install cmake g++")
    with tempfile.TemporaryDirectory(prefix="llama.cpp-") as name:
        staging = Path(name)
        tree = fetch(staging)
        build(tree, staging / "build")
        shutil.rmtree(target, ignore_errors=True)
        (target / "bin").mkdir(parents=True)
        converter = ("convert_hf_to_gguf.py", "conversion", "gguf-py", "LICENSE")
        for part in converter:
            source, copy = tree / part, target / "source" / part
            copy.parent.mkdir(exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, copy)
        for program in PROGRAMS:
            shutil.copy2(staging / "build" / "bin" / program, target / "bin" / program)
    print(f"llama.cpp is built: {target}")


if __name__ == "__main__":
    main()
