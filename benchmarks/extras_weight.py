"""What each extra weighs installed on a Raspberry Pi: python benchmarks/extras_weight.py [EXTRA …].

Wheels for aarch64 are fetched and unpacked, not run. `search` and `serve` are weighed over numpy
and LiteRT, which are there before them, the others over numpy. Bytecode is not counted: pip writes
about as much again for packages of Python.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

BASE = ["numpy==2.4.6"]
DEVICE = ("tflite", "onnx", "gguf", "tokenizers", "feeds", "markdown", "pdf", "encodings")
ENGINE = ("search", "serve")  # weighed over an engine's own packages
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")


def requirements(extra: str, extras: dict[str, list[str]]) -> list[str]:
    """Return the requirement lines of an extra, those of the extras it names put in their place."""
    found: list[str] = []
    for line in extras[extra]:
        if line.startswith("asterisk-edge["):
            for name in line.partition("[")[2].rstrip("]").split(","):
                found += requirements(name.strip(), extras)
        else:
            found.append(line)
    return found


def installed(lines: list[str]) -> dict[str, int]:
    """Return the bytes of every distribution that pip installs for ``lines`` on aarch64."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder]
        command += [word for name in PLATFORMS for word in ("--platform", name)]
        command += ["--only-binary", ":all:", "--python-version", "3.11", "--no-compile", *lines]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        sizes = {}
        for record in Path(folder).glob("*.dist-info/RECORD"):
            names = [line.split(",")[0] for line in record.read_text("utf-8").splitlines()]
            files = [Path(folder, name) for name in names]
            size = sum(file.stat().st_size for file in files if file.is_file())
            sizes[record.parent.name.removesuffix(".dist-info")] = size
        return sizes


def main() -> None:
    """Print a Markdown table."""
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    extras = tomllib.loads(pyproject.read_text("utf-8"))["project"]["optional-dependencies"]
    asked = sys.argv[1:] or [*DEVICE, *ENGINE]
    print("| extra | MB | of which |\n|---|--:|---|")
    base = installed(BASE)
    print(f"| (none) | {sum(base.values()) / 1e6:.1f} | {', '.join(sorted(base))} |")
    engine = installed(BASE + requirements("tflite", extras))
    for extra in asked:
        names = engine if extra in ENGINE else base
        found = installed(BASE + requirements(extra, extras))
        own = {name: size for name, size in found.items() if name not in names}
        listed = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sorted(own.items()))
        print(f"| `{extra}` | {sum(own.values()) / 1e6:.1f} | {listed} |", flush=True)


if __name__ == "__main__":
    main()
