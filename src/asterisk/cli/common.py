"""How every command ends: one line on failure, and the failure's own exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from asterisk.errors import AsteriskError

Command = Callable[[argparse.Namespace], int | None]


def run(parser: argparse.ArgumentParser, command: Command, argv: Sequence[str] | None) -> int:
    """Parse ``argv``, carry out ``command`` and return the exit status."""
    arguments = parser.parse_args(argv)
    try:
        status = command(arguments) or 0
        sys.stdout.flush()
    except AsteriskError as failure:
        print(f"{parser.prog}: {one_line(failure)}", file=sys.stderr)
        return failure.status
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _abandon_stdout()
        return 141
    except OSError as failure:
        what = f"{failure.filename}: " if failure.filename else ""
        print(f"{parser.prog}: {what}{failure.strerror or failure}", file=sys.stderr)
        _abandon_stdout()
        return 7
    return status


def _abandon_stdout() -> None:
    """Leave nothing for the interpreter's own flush to complain about a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_line(failure: BaseException) -> str:
    """Return the message of ``failure`` without line breaks."""
    return " ".join(str(failure).split()) or type(failure).__name__


def positive(text: str) -> int:
    """Read a count of at least one."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:10]) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)
