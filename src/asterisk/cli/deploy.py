"""`asterisk-deploy`: an artifact on a Raspberry Pi, verified and ready, in one command."""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asterisk.artifact import open_artifact
from asterisk.cli.common import Parser, positive, run
from asterisk.common import terminal
from asterisk.common.errors import EngineError, UsageError
from asterisk.common.files import replacing_file, shipped_checkpoint
from asterisk.common.ssh import Address, parse
from asterisk.deploy import DeployError, boards, service
from asterisk.deploy.deploy import INSTALL_SECONDS, Request, change, deploy


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-deploy",
        description="Take an artifact to a 64-bit Raspberry Pi over the system's ssh and leave a "
        "small, verified installation there. Only what has changed is sent, and on any failure the "
        "old version stays in use.",
    )
    it.add_argument("address", metavar="ADDRESS", help="ssh://user@host or ssh://user@host:port")
    it.add_argument("artifact", metavar="ARTIFACT", nargs="?", type=Path, help="artifact folder")
    named = "what to treat it as (default: what it is)"
    it.add_argument("--board", choices=sorted(boards.BOARDS), help=named)
    folders = f"default: {boards.DEFAULT_PREFIX}; with --service {service.DEFAULT_PREFIX}"
    it.add_argument("--prefix", help=f"folder there ({folders})")
    it.add_argument("--dry-run", action="store_true", help="look, and say what would be sent")
    it.add_argument("--rollback", action="store_true", help="go back to the version before")
    it.add_argument("--remove", action="store_true", help="take everything away again")
    seconds = "seconds for sending and installing (default: %(default)s)"
    it.add_argument("--timeout", type=positive, default=INSTALL_SECONDS, help=seconds)
    unit = it.add_argument_group("the server, as a service of systemd")
    root = "install and start it; needs sudo without a password"
    unit.add_argument("--service", action="store_true", help=root)
    unit.add_argument("--host", help="address it listens on (default: 127.0.0.1)")
    unit.add_argument("--port", type=positive, help="port (default: 8080)")
    what = "file on the device with its bearer token"
    unit.add_argument("--token-file", metavar="PATH", help=what)
    bench = it.add_argument_group("measuring")
    bench.add_argument("--bench", action="store_true", help="run asterisk-bench there afterwards")
    out = "default: bench-results/deploy-HOST.json"
    bench.add_argument("--out", type=Path, metavar="JSON", help=out)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _deploy, argv)


def _deploy(arguments: argparse.Namespace) -> int:
    request = _request(arguments)
    if arguments.rollback or arguments.remove:
        print(change(request, "rollback" if arguments.rollback else "remove", terminal.report))
        return 0
    if arguments.bench:
        _refuse_unmeasured(arguments.artifact)
    line, prefix = deploy(request, arguments.artifact, terminal.report, dry_run=arguments.dry_run)
    print(line, flush=True)
    if arguments.bench and not arguments.dry_run:
        return _measure(request.address, prefix, arguments.artifact, arguments.out)
    return 0


def _request(arguments: argparse.Namespace) -> Request:
    other = arguments.rollback or arguments.remove
    if arguments.rollback and arguments.remove:
        raise UsageError("--rollback or --remove, not both")
    if other and (arguments.artifact or arguments.bench or arguments.dry_run):
        raise UsageError("--rollback and --remove take no artifact, --bench or --dry-run")
    if not other and arguments.artifact is None:
        raise UsageError("which ARTIFACT?")
    if arguments.out is not None and not arguments.bench:
        raise UsageError("--out needs --bench")
    options = {"host": arguments.host, "port": arguments.port, "token": arguments.token_file}
    given = {name: value for name, value in options.items() if value is not None}
    if given and not arguments.service:
        raise UsageError("--host, --port and --token-file need --service")
    default = service.DEFAULT_PREFIX if arguments.service else boards.DEFAULT_PREFIX
    prefix = boards.check_prefix(default if arguments.prefix is None else arguments.prefix)
    if arguments.service:
        service.check_service_prefix(prefix)
    board = boards.BOARDS[arguments.board] if arguments.board else None
    unit = service.Service(**given) if arguments.service else None
    return Request(parse(arguments.address), prefix, board, unit, arguments.timeout)


def _refuse_unmeasured(folder: Path) -> None:
    """Refuse an artifact that the benchmark would not measure; UsageError, one line."""
    from asterisk.exporters.export import find_exporter
    from asterisk.model.checkpoint import load

    manifest = open_artifact(folder).manifest
    if manifest.fingerprint != load(shipped_checkpoint()).fingerprint:
        raise UsageError(f"--bench measures the shipped checkpoint, and {folder} is of another")
    if manifest.recipe not in [recipe.name for recipe in find_exporter(manifest.format).recipes]:
        raise UsageError(f"--bench knows no {manifest.format} recipe {manifest.recipe!r}")


def _measure(address: Address, prefix: str, folder: Path, out: Path | None) -> int:
    """Measure the artifact by what was deployed, write the report and return an exit status."""
    from asterisk.bench import plan, runner
    from asterisk.bench.targets import Ssh
    from asterisk.model.checkpoint import load

    host = re.sub(r"[^A-Za-z0-9._-]", "-", address.host)
    target = out or Path("bench-results", f"deploy-{host}.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    manifest, checkpoint = open_artifact(folder).manifest, shipped_checkpoint()
    board = Ssh(address.host, address.user, address.port, f"{prefix}/bin/python")
    with tempfile.TemporaryDirectory() as work:
        name = f"{load(checkpoint).name}-{manifest.format}-{manifest.recipe}"
        shutil.copytree(folder, Path(work, name))
        terminal.report(f"measure on {board}")
        folders = (checkpoint, Path(work), Path(work, "peers"))
        seed = random.SystemRandom().randrange(1 << 32)
        how: dict[str, Any] = {"seed": seed, "timeout": 180, "targets": (board,)}
        how["recipes"] = {manifest.format: manifest.recipe}
        request = runner.Request((manifest.format,), (), *folders, (1, 2), plan.QUICK, **how)
        report = runner.bench(request, terminal.report)
    if not report.rows:
        raise DeployError(f"{address}: nothing could be measured: {'; '.join(report.failures)}")
    with replacing_file(target) as staging:
        staging.write_text(report.to_json(), "utf-8")
    for line in report.failures:
        terminal.report(f"failed: {line}")
    print(target, flush=True)
    if report.settings.get("interrupted"):
        return 130
    return EngineError.status if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
