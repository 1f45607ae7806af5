"""A machine reached by ssh: copies what is needed, runs the same worker, brings results back.

Everything there is in one private temporary folder, which is removed in the end. What comes back is
bounded and checked before it is used (`asterisk.bench.targets.checks`).
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from asterisk.bench.plan import Row
from asterisk.bench.spawn import LONGEST_ANSWER, CellError
from asterisk.bench.targets import checks, payload
from asterisk.bench.targets.parse import Ssh
from asterisk.bench.targets.session import INPUTS, OUTPUT, TargetError, check_cpus
from asterisk.common import ssh as client
from asterisk.common.errors import MissingExtra
from asterisk.common.terminal import excerpt as printable

PUSH_SECONDS = 900
SHORT_SECONDS = 60
GRACE_SECONDS = 30  # beyond a worker's own time, for the way there and back
SMALL = 1 << 16
LARGEST_VECTORS = 64 << 20
OLDEST = (3, 11)
MACHINES = ("x86_64", "amd64", "aarch64", "arm64", "riscv64", "ppc64le", "s390x")
# The folder is its owner's alone. A shell that greets may print before it.
MAKE = 'umask 077 && d=$(mktemp -d "${TMPDIR:-/tmp}/asterisk-XXXXXXXXXX") && printf "\\n%s" "$d"'
UNPACK = 'umask 077 && mkdir -p -- "$1" && exec tar -x -f - -C "$1" -o'
_FOLDER = re.compile(r"/[A-Za-z0-9._/-]*/asterisk-[A-Za-z0-9]{10}")
_VERSION = re.compile(rb"asterisk-python (\d+) (\d+) (\S{1,40}) *$")
_ASK_VERSION = (
    "import platform, sys; print('asterisk-python', *sys.version_info[:2], platform.machine())"
)
TARGET = "asterisk.bench.targets"


class Disconnected(CellError):
    """The connection, not what ran over it, failed."""


@contextmanager
def connected(target: Ssh, folder: Path, keep: bool) -> Iterator[SshSession]:
    """Connect, look at what is there and copy the package; clean up in the end unless ``keep``."""
    session = SshSession(target, folder)
    try:
        session.check_python()
        session.make_folder()
        session.push("", payload.package)
        session.prepare()
        yield session
    except Disconnected as failure:
        raise TargetError(f"{target}: {failure}") from None
    except CellError as failure:
        raise TargetError(f"{target}: {failure}") from None
    finally:
        if session.home and not keep:
            session.remove()


class SshSession:
    """A connection and a folder there; ``folder`` is for files on this side."""

    timed = True

    def __init__(self, target: Ssh, folder: Path) -> None:
        self.target = target
        self.folder = folder
        self.home = ""
        self.pushed: dict[str, str] = {}
        self.lost = ""
        self.extra = {"cpus": list(target.cpus)} if target.cpus else {}

    def check_python(self) -> None:
        """Refuse a target without a Python that can run this, TargetError."""
        told = self._run([self.target.python, "-c", _ASK_VERSION])
        found = _VERSION.search(told.strip())
        if found is None:
            raise TargetError(f"{self.target}: {self.target.python} there is no Python")
        version = int(found[1]), int(found[2])
        if version < OLDEST:
            raise TargetError(
                f"{self.target}: Python {version[0]}.{version[1]} there, and at least "
                f"{OLDEST[0]}.{OLDEST[1]} is needed; name another one with ?python=/path"
            )
        machine = printable(found[3].decode("ascii", "replace"))
        if machine not in MACHINES:
            raise TargetError(
                f"{self.target}: a {machine} system, for which no engine exists; "
                "a 64-bit system is needed"
            )

    def make_folder(self) -> None:
        """Make the private folder there."""
        told = self._run(["sh", "-c", MAKE]).decode("utf-8", "replace")
        home = told.rpartition("\n")[2]
        if not _FOLDER.fullmatch(home) or "/../" in home:
            raise TargetError(f"{self.target}: no temporary folder could be made there")
        self.home = home

    def push(self, name: str, write: Callable[[IO[bytes]], None]) -> None:
        """Unpack there, in the folder ``name``, the tar stream that ``write`` writes."""
        words = ["sh", "-c", UNPACK, "sh", f"{self.home}/{name}".rstrip("/")]
        with tempfile.TemporaryFile(dir=self.folder) as stream:
            write(stream)
            stream.seek(0)
            self._run(words, source=stream, timeout=PUSH_SECONDS)

    def prepare(self) -> None:
        """Compile the package there, so that no worker is the first; look for numpy and CPUs."""
        compiled = [self.target.python, "-m", "compileall", "-q", f"{self.home}/lib"]
        self._run(compiled, timeout=PUSH_SECONDS)
        told = self._probe({"machine": [], "missing": ["numpy"]})
        if told.get("missing"):
            raise TargetError(
                f"{self.target}: numpy is not installed there; install it with: pip install numpy"
            )
        cpus = told.get("cpus")
        check_cpus(self.target, cpus if isinstance(cpus, list) else None)

    def remove(self) -> None:
        """Remove the folder there; silent where the connection is gone for good."""
        try:
            self._run(["rm", "-rf", "--", self.home])
        except CellError:
            return

    def ask(self, module: str, spec: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Run ``module`` there, its files brought there before and its vectors back after."""
        if self.lost:
            raise CellError(self.lost)
        try:
            return self._ask(module, spec, timeout)
        except Disconnected as failure:
            self._reach_again(str(failure))
            raise

    def _ask(self, module: str, spec: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        there = {**spec, **self.extra}
        for key in INPUTS:
            if spec.get(key):
                there[key] = self._bring(Path(spec[key]))
        output = spec.get(OUTPUT)
        if output:
            there[OUTPUT] = f"{self.home}/{OUTPUT}.npy"
        answer = self._keep(module, there, timeout)
        answer = checks.measurement(answer, spec)
        if output:
            self._fetch(there[OUTPUT], Path(output), spec)
        return answer

    def _keep(self, module: str, spec: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        asked = json.dumps({"module": module, "spec": spec, "timeout": timeout}).encode() + b"\n"
        lib = f"{self.home}/lib"
        # A bundle's launcher puts its own packages before PYTHONPATH, and only the second before.
        words = ["env", f"PYTHONPATH={lib}", f"ASTERISK_PYTHONPATH={lib}"]
        words += [self.target.python, "-P", "-m"]
        out = self._run(
            [*words, f"{TARGET}.keeper"],
            data=asked,
            timeout=timeout + GRACE_SECONDS,
            limit=LONGEST_ANSWER,
        )
        try:
            answer = json.loads(out[out.find(b"{") :] or b"-")
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            shown = printable(repr(out[:40]))
            raise CellError(f"answered with {shown} instead of a JSON object")
        if "error" in answer:
            raise CellError(printable(str(answer["error"])))
        return answer

    def _bring(self, path: Path) -> str:
        local = str(path)
        if local not in self.pushed:
            name = f"in{len(self.pushed)}"
            self.push(name, lambda stream: payload.tree(stream, path, "it"))
            self.pushed[local] = f"{self.home}/{name}/it"
        return self.pushed[local]

    def _fetch(self, there: str, here: Path, spec: Mapping[str, Any]) -> None:
        staged = self.folder / "fetched.npy"
        staged.write_bytes(self._run(["cat", "--", there], limit=LARGEST_VECTORS))
        known = len(json.loads(Path(spec["texts"]).read_text("utf-8")))
        checks.vectors(staged, min(spec["count"] or known, known))
        staged.replace(here)

    def _reach_again(self, told: str) -> None:
        """Give the machine one more chance, so that the other cells do not wait for it in vain."""
        try:
            self._run(["true"])
        except CellError:
            self.lost = f"the connection is lost: {told}"

    def _probe(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = checks.plain(self._keep(f"{TARGET}.probe", asked, SHORT_SECONDS))
        return told

    def describe(self, packages: Iterable[str]) -> dict[str, Any]:
        """Describe the machine there."""
        told = self._probe({"machine": sorted(packages)}).get("machine")
        return told if isinstance(told, dict) else {}

    def state(self) -> dict[str, Any]:
        """Return its state."""
        return checks.state(self._probe({"state": True}).get("state"))

    def takes(self, row: Row) -> bool:  # noqa: ARG002
        """Take everything; what is not installed there is told."""
        return True

    def lacks(self, row: Row) -> str | None:
        """Name the first package that is not installed there, and the extra that brings it."""
        missing = self._probe({"missing": list(row.distributions)}).get("missing")
        if not isinstance(missing, list) or not missing:
            return None
        if row.peer:
            return f"{missing[0]} is not installed there"
        return str(MissingExtra(str(missing[0]), row.name))

    def weigh(self, names: Iterable[str]) -> dict[str, int] | None:
        """Weigh what is installed there."""
        return checks.weight(self._probe({"weigh": sorted(names)}).get("weigh"))

    def _run(
        self,
        words: list[str],
        *,
        data: bytes = b"",
        source: IO[bytes] | None = None,
        timeout: float = SHORT_SECONDS,
        limit: int = SMALL,
    ) -> bytes:
        try:
            return client.run(
                self.target, words, timeout=timeout, limit=limit, data=data, source=source
            )
        except client.Disconnected as failure:
            raise Disconnected(str(failure)) from None
        except client.RemoteError as failure:
            raise CellError(str(failure)) from None
