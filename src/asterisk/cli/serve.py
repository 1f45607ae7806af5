"""`asterisk-serve`: an artifact behind OpenAI's embeddings API."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.apps.serve.limits import Limits, limits_for, reserve, with_reserve
from asterisk.apps.serve.listen import bind_tcp, bind_unix, identity_of, is_local, remove
from asterisk.apps.serve.token import read_token
from asterisk.cli.common import Parser, positive, run
from asterisk.common import plugins
from asterisk.common.terminal import report as tell
from asterisk.runtimes.memory_budget import add_option

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import Runtime

BOUNDS = {
    "max-body": ("body", "bytes of a request's body"),
    "max-texts": ("texts", "texts in one request"),
    "max-queue": ("queue", "texts that may wait"),
    "max-connections": ("connections", "connections at once"),
    "timeout-arrival": ("arrival", "seconds in which a request has to arrive"),
    "timeout-answer": ("answer", "seconds in which its vectors have to be there"),
    "timeout-stop": ("grace", "seconds for what is under way when the server stops"),
}


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-serve",
        description="Serve an artifact through OpenAI's embeddings API.",
    )
    it.add_argument("artifact", type=Path, help="artifact or checkpoint folder")
    it.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    it.add_argument("--port", type=_port, default=8080, help="0: any that is free (8080)")
    it.add_argument("--socket", type=Path, help="Unix socket to listen on instead, for this user")
    it.add_argument("--threads", type=positive, default=1, help="texts embedded at once")
    add_option(it)
    it.add_argument("--token-file", type=Path, help="private file with the bearer token to ask for")
    it.add_argument(
        "--model-name",
        action="append",
        help="name that requests may give, beside the artifact's own; may be repeated",
    )
    it.add_argument(
        "--strict", action="store_true", help="refuse a model's name that is none of these"
    )
    it.add_argument(
        "--accept-token-ids",
        action="store_true",
        help="take lists of numbers for ids of this model's tokenizer",
    )
    it.add_argument(
        "--cors-origin",
        action="append",
        type=_origin,
        metavar="ORIGIN",
        help="web page that may ask, as https://example.org, or *; may be repeated",
    )
    it.add_argument(
        "--on-long",
        choices=("truncate", "error"),
        default="truncate",
        help="cut a text that is too long, and count it, or refuse it as OpenAI does",
    )
    usual = Limits()
    for name, (field, what) in BOUNDS.items():
        help = f"{what} ({getattr(usual, field):g})"
        it.add_argument(f"--{name}", dest=field, type=positive, help=help)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _serve, argv)


def _serve(arguments: argparse.Namespace) -> int:
    for module in ("uvicorn", "h11", "starlette", "prometheus_client"):
        plugins.require(module, "serve")
    token = read_token(arguments.token_file) if arguments.token_file else None
    listener = (
        bind_unix(arguments.socket)
        if arguments.socket
        else bind_tcp(arguments.host, arguments.port)
    )
    identity = identity_of(arguments.socket) if arguments.socket else None
    try:
        with listener:
            import asterisk.apps.serve.run as server  # before the engine: its memory counts, too
            from asterisk.apps.serve.app import Served

            runtime, room = _load(arguments)
            own = _name(arguments.artifact)
            served = Served(
                models=tuple(dict.fromkeys((own, *(arguments.model_name or ())))),
                format=runtime.format,
                fingerprint=runtime.fingerprint,
                created=int(time.time()),
                token=token,
                cors_origins=tuple(arguments.cors_origin or ()),
                strict=arguments.strict,
                token_ids=arguments.accept_token_ids,
            )
            where = _address(listener)
            if not (token or arguments.socket or is_local(listener.getsockname()[0])):
                tell(f"asterisk-serve: warning: anyone who reaches {where} may use it: no token")
            tell(f"asterisk-serve: {own} ({runtime.format}) on {where}")
            return server.serve(
                runtime,
                listener,
                served,
                _limits(arguments, room),
                threads=runtime.budget.threads if runtime.budget else arguments.threads,
                on_long=arguments.on_long,
            )
    finally:
        if arguments.socket:
            remove(arguments.socket, identity)


def _load(arguments: argparse.Namespace) -> tuple[Runtime, int | None]:
    """Return the runtime and the bytes that requests may take, None where nobody counts them."""
    import asterisk

    if arguments.max_memory is None:
        return asterisk.load(arguments.artifact, threads=arguments.threads), None
    from asterisk.common import process_memory as group
    from asterisk.runtimes.memory_budget import LimitTooLow as TooLittle
    from asterisk.runtimes.memory_budget import format_size as told
    from asterisk.runtimes.memory_budget import parse

    most = min(arguments.max_memory, group.limit() or arguments.max_memory)
    kept = reserve(most)
    try:
        runtime = asterisk.load(
            arguments.artifact, threads=arguments.threads, max_memory=max(most - kept, 1)
        )
    except TooLittle as failure:
        total = parse(told(with_reserve(failure.least)))
        grouped = most < arguments.max_memory
        raise failure.beside(reserve(total), total, most, grouped) from None
    budget = runtime.budget
    if budget is None:
        return runtime, kept
    if budget.told:
        tell(f"asterisk-serve: {budget.told}")
    return runtime, max(most - budget.need, kept)


def _limits(arguments: argparse.Namespace, room: int | None) -> Limits:
    """Return the bounds that follow from memory, with those that were asked for in their place."""
    limits = limits_for(room)
    asked = {
        field: value
        for field, _ in BOUNDS.values()
        if (value := getattr(arguments, field)) is not None
    }
    asked.setdefault("queue", max(limits.queue, asked.get("texts", 0)))
    asked.setdefault("bodies", max(limits.bodies, asked.get("body", 0)))
    return replace(limits, **asked)


def _name(folder: Path) -> str:
    """Return the model's name; the artifact has been checked, a checkpoint has its folder's."""
    from asterisk.artifact import MANIFEST, is_artifact

    if not is_artifact(folder):
        return folder.resolve().name
    return str(json.loads((folder / MANIFEST).read_text("utf-8"))["name"])


def _address(listener: object) -> str:
    name = listener.getsockname()  # type: ignore[attr-defined]
    if isinstance(name, str):
        return name
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:6]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _origin(text: str) -> str:
    if text not in ("*", "null") and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an origin, as https://example.org")
    return text


if __name__ == "__main__":
    sys.exit(main())
