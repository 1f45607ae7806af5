"""`asterisk-deploy`: an artifact on a Raspberry Pi, verified and ready, in one command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from asterisk.cli.common import Parser, positive, run
from asterisk.common.errors import UsageError
from asterisk.common.ssh import parse
from asterisk.common.terminal import report as tell
from asterisk.deploy import boards, prefix
from asterisk.deploy.deploy import INSTALL_SECONDS, Request, deploy, go_back, remove
from asterisk.deploy.service import Service


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
    it.add_argument(
        "--board", choices=sorted(boards.BOARDS), help="what to treat it as (default: what it is)"
    )
    it.add_argument(
        "--prefix",
        help=f"folder there (default: {prefix.DEFAULT}; with --service {prefix.SERVICE})",
    )
    it.add_argument("--dry-run", action="store_true", help="look, and say what would be sent")
    it.add_argument("--rollback", action="store_true", help="go back to the version before")
    it.add_argument("--remove", action="store_true", help="take everything away again")
    it.add_argument(
        "--timeout",
        type=positive,
        default=INSTALL_SECONDS,
        help="seconds for sending and installing (default: %(default)s)",
    )
    service = it.add_argument_group("the server, as a service of systemd")
    service.add_argument(
        "--service", action="store_true", help="install and start it; needs sudo without a password"
    )
    service.add_argument("--host", help="address it listens on (default: 127.0.0.1)")
    service.add_argument("--port", type=positive, help="port (default: 8080)")
    service.add_argument(
        "--token-file", metavar="PATH", help="file on the device with its bearer token"
    )
    bench = it.add_argument_group("measuring")
    bench.add_argument("--bench", action="store_true", help="run asterisk-bench there afterwards")
    bench.add_argument(
        "--out", type=Path, metavar="JSON", help="default: bench-results/deploy-HOST.json"
    )
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _deploy, argv)


def _deploy(arguments: argparse.Namespace) -> int:
    request = _request(arguments)
    if arguments.rollback or arguments.remove:
        action = go_back if arguments.rollback else remove
        print(action(request, tell))
        return 0
    if arguments.bench:
        from asterisk.deploy import measure  # the whole benchmark with it

        measure.refuse(arguments.artifact)
    done = deploy(request, arguments.artifact, tell, dry_run=arguments.dry_run)
    print(done.line, flush=True)
    if arguments.bench and not arguments.dry_run:
        return measure.measure(
            request.address, done.prefix, arguments.artifact, arguments.out, tell
        )
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
    told = {
        "host": arguments.host,
        "port": arguments.port,
        "token": arguments.token_file,
    }
    given = {name: value for name, value in told.items() if value is not None}
    if given and not arguments.service:
        raise UsageError("--host, --port and --token-file need --service")
    default = prefix.SERVICE if arguments.service else prefix.DEFAULT
    folder = prefix.check(arguments.prefix if arguments.prefix is not None else default)
    if arguments.service:
        prefix.check_service(folder)
    return Request(
        parse(arguments.address),
        folder,
        boards.board(arguments.board) if arguments.board else None,
        Service(**given) if arguments.service else None,
        arguments.timeout,
    )


if __name__ == "__main__":
    sys.exit(main())
