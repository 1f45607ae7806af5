"""A command of several subcommands, each with arguments of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from asterisk.cli.common import Parser, run


@dataclass(frozen=True, slots=True)
class Sub:
    """A subcommand: what it is for, its arguments, and what it does."""

    help: str
    describe: Callable[[argparse.ArgumentParser], None]
    command: Callable[[argparse.Namespace], None]


@dataclass(frozen=True, slots=True)
class Family:
    """A command and its subcommands by name."""

    prog: str
    description: str
    subs: Mapping[str, Sub]

    def parser(self, name: str = "") -> argparse.ArgumentParser:
        """Describe the command line of a subcommand, or of them all."""
        if not name:
            width = max(map(len, self.subs))
            it = Parser(
                prog=self.prog,
                description=self.description,
                epilog="\n".join(f"  {sub:{width}} {self.subs[sub].help}" for sub in self.subs),
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            it.add_argument("command", choices=tuple(self.subs), help="then: COMMAND --help")
            return it
        it = Parser(prog=f"{self.prog} {name}", description=self.subs[name].help)
        self.subs[name].describe(it)
        return it

    def run(self, argv: Sequence[str] | None) -> int:
        """Run the command and return its exit status."""
        # Options may stand between arguments here, which argparse's own subparsers cannot do.
        given = list(sys.argv[1:] if argv is None else argv)
        if given and given[0] in self.subs:
            return run(self.parser(given[0]), self.subs[given[0]].command, given[1:])
        return run(self.parser(), lambda _: None, given)
