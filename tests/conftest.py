"""What the tests share: a seeded toy checkpoint, its artifacts, and the places of real data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asterisk.artifact import Artifact, Manifest, Thresholds, sha256
from asterisk.common import texts
from asterisk.exporters import Exporter, Recipe
from asterisk.exporters.export import (
    Reference,
    choose,
    export,
    find_exporter,
    formats,
    open_reference,
)
from asterisk.model.checkpoint import Checkpoint, load, save
from asterisk.model.config import ModelConfig, tensor_shapes
from asterisk.runtimes.engine import ArtifactEngine
from asterisk.runtimes.runtime import Runtime
from asterisk.tokenizer import open_tokenizer

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
SHIPPED = ROOT / "checkpoints" / "asterisk-256"


NEEDS = {
    "sshd": "openssh-server",
    "qemu": "an emulated machine: python -m benchmarks.emulation, docs/benchmark.md",
    "llama": "llama.cpp: python tests/outside/build_llama.py",
    "browser": "Chromium: python tests/loaders/set_up_browser.py",
}
"""Marks of tests that need what pip does not bring."""
IN_CI = ("sshd", "qemu")  # .ci/run brings these, so that a skip there is a failure
SSHD_FIXTURES = {"tests/deploy": "way", "tests/bench/targets": "server"}


def pytest_collection_modifyitems(items):
    """Mark the tests whose fixture starts an sshd."""
    for item in items:
        folder = item.path.parent.relative_to(ROOT).as_posix()
        if SSHD_FIXTURES.get(folder) in item.fixturenames:
            item.add_marker("sshd")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    needed = [name for name in IN_CI if item.get_closest_marker(name)]
    if report.skipped and needed and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped, though CI has {', '.join(needed)}: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter):
    """Count what was skipped for lack of a program, by its mark."""
    skipped = terminalreporter.stats.get("skipped", [])
    for name, what in NEEDS.items():
        if count := sum(name in report.keywords for report in skipped):
            terminalreporter.write_line(f"skipped: {count} need {name} ({what})")


def install_example(source: Path, folder: Path) -> Path:
    """Install the package in ``source`` as pip does, from a copy; return where it can be imported.

    Skips where setuptools is older than the packages ask for.
    """
    pytest.importorskip("setuptools", "77")
    shutil.copytree(source, folder / "source")
    target = folder / "installed"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(target), str(folder / "source")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def random_checkpoint(config: ModelConfig, name: str = "toy") -> Checkpoint:
    """Return seeded random weights at a realistic scale, as they read back from 16 bits."""
    random = np.random.default_rng(0)
    tensors = {}
    for tensor, shape in tensor_shapes(config).items():
        if "LayerNorm.weight" in tensor:
            values = random.normal(1.0, 0.1, shape)
        elif tensor.endswith("bias"):
            values = random.normal(0.0, 0.02, shape)
        elif "embeddings" in tensor:
            values = random.normal(0.0, 0.5, shape)
        else:
            values = random.normal(0.0, shape[-1] ** -0.5, shape)
        tensors[tensor] = values.astype("f4")
    return Checkpoint(name, config, tensors).stored()


def thresholds_of(format: str, recipe: str, layers: int = 2) -> Thresholds:
    """Return what a recipe is held to."""
    writer = find_exporter(format)
    return writer.thresholds(choose(writer, recipe), layers)


def bare_artifact(
    writer: Exporter, checkpoint: Checkpoint, recipe: Recipe, folder: Path
) -> Artifact:
    """Write the engine's files alone, without the gate that needs the real vocabulary."""
    written = writer.write(checkpoint, recipe, folder, [])
    tokenizer, table = checkpoint.tokenizer.compile()
    (folder / tokenizer).write_bytes(table)
    manifest = Manifest(
        format=writer.format,
        recipe=recipe.name,
        name=checkpoint.name,
        entry=written.entry,
        tokenizer=tokenizer,
        model=checkpoint.config,
        fingerprint=checkpoint.fingerprint,
        compatible_with=(),
        prompts={},
        default_prompt_name=None,
        similarity=None,
        source=None,
        files={path.name: sha256(path) for path in folder.iterdir() if path.is_file()},
        thresholds=Thresholds(0, 0, 0),
        fidelity={},
        versions={},
    )
    return Artifact(folder, manifest)


def bare_runtime(engine: type[ArtifactEngine], artifact: Artifact, lanes: int = 1) -> Runtime:
    """Open what `bare_artifact` wrote."""
    tokenizer = open_tokenizer(artifact.tokenizer)
    return Runtime(engine.open(artifact, lanes), tokenizer, artifact.config, "0")


@pytest.fixture(scope="session")
def toy() -> Checkpoint:
    """A checkpoint of the shipped shape."""
    return random_checkpoint(ModelConfig())


@pytest.fixture(scope="session")
def toy_folder(toy, tmp_path_factory) -> Path:
    """The toy checkpoint, saved."""
    folder = tmp_path_factory.mktemp("checkpoints") / "toy"
    save(toy, folder)
    return folder


@pytest.fixture(scope="session")
def lines() -> list[str]:
    """The texts that ship."""
    return [text.text for text in texts.load()]


ALL = [(name, recipe.name) for name in formats() for recipe in find_exporter(name).recipes]


@pytest.fixture(scope="session", autouse=True)
def _fewer_gate_texts():
    """Exports in this process are held to one text in eight, and the longest: the rest takes long.

    All texts are used by test_contract.py, and by whatever exports in a process of its own.
    """
    every = Reference.__init__

    def some(self, runtime, more=()):
        every(self, runtime, more)
        longest = sorted(self.shipped, key=len)[-3:]
        self.texts = [*dict.fromkeys([*self.shipped[::8], *longest]), *more]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reference, "__init__", some)
        yield


@pytest.fixture(scope="session")
def toy_reference(toy, _fewer_gate_texts):
    """The toy checkpoint's FP32 vectors of the gate's texts, made once for all its exports."""
    with open_reference(toy) as reference:
        yield reference


@pytest.fixture(scope="session")
def artifact_of(toy, toy_reference, tmp_path_factory):
    """Export the toy checkpoint once a format and recipe, when first asked for."""
    made = {}
    root = tmp_path_factory.mktemp("artifacts")

    def get(name: str, recipe: str) -> Path:
        if (name, recipe) not in made:
            out = root / f"toy-{name}-{recipe}"
            export(toy, name, recipe, out, reference=toy_reference)
            made[name, recipe] = out
        return made[name, recipe]

    return get


@pytest.fixture
def python():
    """Run a piece of Python in a process of its own and return it, finished."""

    def call(code: str, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, args)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call


@pytest.fixture
def command():
    """Run one of the commands in a process of its own and return it, finished."""

    def call(name: str, *args: object, **options) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", f"asterisk.cli.{name}", *map(str, args)],
            capture_output=True,
            timeout=600,
            check=False,
            **options,
        )

    return call


PROMPTS = {"query": "query: ", "document": "", "passage": "passage: "}


@pytest.fixture(scope="session")
def prompted_folder(toy, tmp_path_factory) -> Path:
    """The toy checkpoint with the prompts of an E5 folder, saved."""
    folder = tmp_path_factory.mktemp("prompted") / "prompted"
    save(replace(toy, name="prompted", prompts=PROMPTS), folder)
    return folder


@pytest.fixture(scope="session")
def prompted(prompted_folder, tmp_path_factory) -> Path:
    """An artifact of that."""
    out = tmp_path_factory.mktemp("artifacts") / "prompted-onnx-int8"
    export(load(prompted_folder), "onnx", "int8", out)
    return out
