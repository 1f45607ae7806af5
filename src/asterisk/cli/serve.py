"""`asterisk-serve`: an artifact behind OpenAI's embeddings API."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.apps.serve.limits import Limits, limits_for, reserve, with_reserve
from asterisk.cli.common import Parser, positive, run
from asterisk.common import plugins
from asterisk.common.terminal import report
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
        prog="asterisk-serve", description="Serve an artifact through OpenAI's embeddings API."
    )
    it.add_argument("artifact", type=Path, help="artifact or checkpoint folder")
    it.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    it.add_argument("--port", type=_port, default=8080, help="0: any that is free (8080)")
    it.add_argument("--socket", type=Path, help="Unix socket to listen on instead, for this user")
    it.add_argument("--threads", type=positive, default=1, help="texts embedded at once")
    add_option(it)
    it.add_argument("--token-file", type=Path, help="private file with the bearer token to ask for")
    name = "name that requests may give, beside the artifact's own; may be repeated"
    it.add_argument("--model-name", action="append", default=[], help=name)
    strict = "refuse a model's name that is none of these"
    it.add_argument("--strict", action="store_true", help=strict)
    ids = "take lists of numbers for ids of this model's tokenizer"
    it.add_argument("--accept-token-ids", action="store_true", help=ids)
    origin = "web page that may ask, as https://example.org, or *; may be repeated"
    it.add_argument(
        "--cors-origin", action="append", default=[], type=_origin, metavar="ORIGIN", help=origin
    )
    on_long = "truncate a text that is too long, and count it, or refuse it as OpenAI does"
    it.add_argument("--on-long", choices=("truncate", "error"), default="truncate", help=on_long)
    default = Limits()
    for option, (field, what) in BOUNDS.items():
        help = f"{what} ({getattr(default, field):g})"
        it.add_argument(f"--{option}", dest=field, type=positive, help=help)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _serve, argv)


def _serve(arguments: argparse.Namespace) -> int:
    for module in ("uvicorn", "h11", "starlette", "prometheus_client"):
        plugins.require(module, "serve")
    from asterisk.apps.serve import server  # before the engine: its memory counts, too

    token = server.read_token(arguments.token_file) if arguments.token_file else None
    with (
        server.unix_socket(arguments.socket)
        if arguments.socket
        else server.bind_tcp(arguments.host, arguments.port)
    ) as listener:
        runtime, limits = _load(arguments)
        url = address = listener.getsockname()
        if not arguments.socket:
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            url = f"http://{host}:{address[1]}"
            if not token and not host.startswith(("127.", "[::1")):
                report(f"asterisk-serve: warning: anyone who reaches {url} may use it: no token")
        report(f"asterisk-serve: {runtime.name} ({runtime.format}) on {url}")
        return server.serve(
            runtime,
            listener,
            limits,
            models=tuple(dict.fromkeys((runtime.name, *arguments.model_name))),
            threads=runtime.budget.threads if runtime.budget else arguments.threads,
            on_long=arguments.on_long,
            token=token,
            cors_origins=arguments.cors_origin,
            strict=arguments.strict,
            token_ids=arguments.accept_token_ids,
        )


def _load(arguments: argparse.Namespace) -> tuple[Runtime, Limits]:
    """Return the runtime, and the bounds that follow from memory or from options."""
    import asterisk
    from asterisk.common import process_memory
    from asterisk.runtimes.memory_budget import LimitTooLow, format_size, parse

    folder, threads, asked = arguments.artifact, arguments.threads, arguments.max_memory
    if asked is None:
        return asterisk.load(folder, threads=threads), _limits(arguments, None)
    total = min(asked, process_memory.limit() or asked)
    size = reserve(total)
    try:
        runtime = asterisk.load(folder, threads=threads, max_memory=max(total - size, 1))
    except LimitTooLow as failure:
        needed = parse(format_size(with_reserve(failure.least)))
        raise failure.with_reserved(reserve(needed), needed, total, total < asked) from None
    if runtime.budget:
        size = max(total - runtime.budget.need, size)
        if runtime.budget.message:
            report(f"asterisk-serve: {runtime.budget.message}")
    return runtime, _limits(arguments, size)


def _limits(arguments: argparse.Namespace, size: int | None) -> Limits:
    limits = limits_for(size)
    options = {field: getattr(arguments, field) for field, _ in BOUNDS.values()}
    given = {field: value for field, value in options.items() if value is not None}
    given.setdefault("queue", max(limits.queue, given.get("texts", 0)))
    given.setdefault("bodies", max(limits.bodies, given.get("body", 0)))
    return replace(limits, **given)


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
