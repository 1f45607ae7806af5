"""The benchmark on a device, run by what was deployed there, and its JSON brought home."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
from pathlib import Path

from asterisk.artifact import open_artifact
from asterisk.bench import plan
from asterisk.bench.runner import Progress, Request, bench
from asterisk.bench.targets import Ssh
from asterisk.common.default_paths import shipped_checkpoint
from asterisk.common.errors import EngineError, OutputError, UsageError
from asterisk.common.files import replacing_file
from asterisk.common.remote.address import Address
from asterisk.deploy.connection import DeployError
from asterisk.exporters import export as exporting
from asterisk.model.checkpoint import load

RESULTS = Path("bench-results")
THREADS = (1, 2)
TIMEOUT = 180
INTERRUPTED = 130


def refuse(folder: Path) -> None:
    """Refuse an artifact that the benchmark would not measure; UsageError, one line."""
    manifest = open_artifact(folder).manifest
    checkpoint = load(shipped_checkpoint())
    if manifest.fingerprint != checkpoint.fingerprint:
        raise UsageError(f"--bench measures the shipped checkpoint, and {folder} is of another")
    known = [recipe.name for recipe in exporting.exporter(manifest.format).recipes]
    if manifest.recipe not in known:
        raise UsageError(f"--bench knows no {manifest.format} recipe {manifest.recipe!r}")


def measure(
    address: Address, prefix: str, folder: Path, out: Path | None, progress: Progress
) -> int:
    """Measure the artifact on the device, write the report and return an exit status.

    The benchmark's own ssh target, with the deployed interpreter in front, does all of it.
    The artifact is one that `refuse` lets pass; DeployError where nothing was measured.
    """
    target = out or RESULTS / f"deploy-{re.sub(r'[^A-Za-z0-9._-]', '-', address.host)}.json"
    artifact = open_artifact(folder)
    checkpoint = load(shipped_checkpoint())
    name, recipe = artifact.manifest.format, artifact.manifest.recipe
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        copied = Path(work) / f"{checkpoint.name}-{name}-{recipe}"
        shutil.copytree(folder, copied)
        there = Ssh(address.host, address.user, address.port, f"{prefix}/bin/python")
        progress(f"measure on {there}")
        report = bench(
            Request(
                runtimes=(name,),
                peers=(),
                checkpoint=shipped_checkpoint(),
                artifacts=Path(work),
                work=Path(work) / "peers",
                threads=THREADS,
                effort=plan.QUICK,
                seed=random.SystemRandom().randrange(1 << 32),
                timeout=TIMEOUT,
                targets=(there,),
                recipes={name: recipe},
            ),
            progress,
        )
    if not report.rows:
        raise DeployError(f"{address}: nothing could be measured: {'; '.join(report.failures)}")
    try:
        with replacing_file(target) as staging:
            staging.write_text(report.to_json(), "utf-8")
    except OSError as failure:
        raise OutputError(f"cannot write {target}: {failure.strerror or failure}") from None
    for line in report.failures:
        progress(f"failed: {line}")
    print(target, flush=True)
    if report.settings.get("interrupted"):
        return INTERRUPTED
    return EngineError.status if report.failures else 0
