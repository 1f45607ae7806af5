"""How every command begins and ends: one line on failure, and the failure's own exit status."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from asterisk.common.errors import AsteriskError, UsageError, one_line

Command = Callable[[argparse.Namespace], int | None]


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Print ``message`` and exit."""
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(UsageError.status)


def _escaped(failure: Any) -> tuple[str, int]:
    """Write what a stream has no bytes for: what was a byte of a file's name as a byte."""
    text = failure.object[failure.start : failure.end]
    with contextlib.suppress(UnicodeEncodeError):  # half of a pair is no byte
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text.encode("ascii", "backslashreplace").decode(), failure.end


codecs.register_error("asterisk.terminal", _escaped)


def run(parser: argparse.ArgumentParser, command: Command, argv: Sequence[str] | None) -> int:
    """Parse ``argv``, carry out ``command`` and return the exit status."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the caller closed it
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal cannot show has escapes
            stream.reconfigure(errors="asterisk.terminal")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)  # as an exception, so that staging files are removed
    arguments = parser.parse_intermixed_args(argv)
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


# No dataclasses: they bring `inspect` and `ast`, which every command would load.
class Sub(NamedTuple):
    """A subcommand: what it is for, its arguments, and what it does."""

    help: str
    describe: Callable[[argparse.ArgumentParser], None]
    command: Callable[[argparse.Namespace], None]


class Family(NamedTuple):
    """A command and its subcommands by name."""

    prog: str
    description: str
    subs: Mapping[str, Sub]

    def parser(self, name: str = "") -> argparse.ArgumentParser:
        """Describe the command line of a subcommand, or of them all."""
        if name:
            it = Parser(prog=f"{self.prog} {name}", description=self.subs[name].help)
            self.subs[name].describe(it)
            return it
        width = max(map(len, self.subs))
        epilog = "\n".join(f"  {name:{width}} {sub.help}" for name, sub in self.subs.items())
        it = Parser(prog=self.prog, description=self.description, epilog=epilog)
        it.formatter_class = argparse.RawDescriptionHelpFormatter
        it.add_argument("command", choices=tuple(self.subs), help="then: COMMAND --help")
        return it

    def run(self, argv: Sequence[str] | None) -> int:
        """Run the command and return its exit status."""
        # Options may stand between arguments here, which argparse's own subparsers cannot do.
        given = list(sys.argv[1:] if argv is None else argv)
        if given and given[0] in self.subs:
            return run(self.parser(given[0]), self.subs[given[0]].command, given[1:])
        return run(self.parser(), lambda _: None, given)


def record_arguments(it: argparse.ArgumentParser) -> None:
    """Add what says how `streams` finds texts in its input."""
    kind, what = argparse.BooleanOptionalAction, "input is JSON lines (default: by the file's name)"
    it.add_argument("--json", action=kind, help=what)
    it.add_argument("--field", default="text", help="where a JSON object's text is (text)")


def prompt_argument(it: argparse._ActionsContainer, what: str) -> None:
    """Add `--prompt-name`; ``what`` says when the prompt is used and which one otherwise."""
    it.add_argument("--prompt-name", metavar="NAME", help=f"the model's prompt {what}")


def format_of(out: Path | None, formats: Mapping[str, str], option: str = "--out") -> str:
    """Return the format, of those by suffix, that ``out``'s names; the first if it has none."""
    suffix = "" if out is None else out.suffix.lower()
    if suffix and suffix not in formats:
        insist = "; --format says it whatever the name" if option == "--out" else ""
        endings = f"one of {', '.join(formats)}{insist}"
        raise UsageError(f"{option} {out}: its name must end in {endings}")
    return formats[suffix] if suffix else next(iter(formats.values()))


def utf8(text: str) -> str:
    """Read an argument that is text and no path: as UTF-8 where the locale could not decode it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text).decode("utf-8", "replace")
    return text


def positive(text: str) -> int:
    """Read a count of at least one."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:10]) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def natural(text: str) -> int:
    """Read a number from 0 to 999999999."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 to 999999999")
    return int(text)


def fraction(text: str) -> float:
    """Read a number from 0 to 1."""
    if not re.fullmatch(r"[01]|[01]?\.[0-9]{1,9}", text) or float(text) > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 to 1")
    return float(text)


def words(text: str) -> tuple[str, ...]:
    """Read names with commas between."""
    names = tuple(part.strip() for part in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names with commas between")
    return names


def _abandon_stdout() -> None:
    # Or the interpreter's own flush would complain a second time.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)
