"""A machine reached by ssh: copies what is needed, runs the same worker, brings results back.

Everything there is in one private temporary folder, which is removed in the end. What another
machine answers is not trusted: sizes, types and characters are checked before anything is used.
"""

from __future__ import annotations

import ast
import io
import json
import re
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import distribution
from pathlib import Path
from typing import IO, Any

import asterisk
from asterisk.bench.plan import Row
from asterisk.bench.process import MAX_ANSWER, CellError
from asterisk.bench.results import check
from asterisk.bench.targets import OUTPUT, Session, Ssh, TargetError, check_cpus
from asterisk.common import ssh as client
from asterisk.common import terminal
from asterisk.common.errors import MissingExtra

PUSH_SECONDS = 900
SHORT_SECONDS = 60
GRACE_SECONDS = 30  # beyond a worker's own time, for the way there and back
MAX_SHORT = 1 << 16
MAX_VECTORS = 64 << 20
MAX_DIMENSIONS = 4096
OLDEST = (3, 11)
MACHINES = ("x86_64", "amd64", "aarch64", "arm64", "riscv64", "ppc64le", "s390x")
NOT_FOR_DEVICES = ("training", "exporters", "apps", "cli", "deploy", "sources", "integrations")
DISTRIBUTION = "asterisk-edge"
METADATA = ("METADATA", "entry_points.txt")
# The folder is its owner's alone. A shell that greets may print before it.
MAKE = 'umask 077 && d=$(mktemp -d "${TMPDIR:-/tmp}/asterisk-XXXXXXXXXX") && printf "\\n%s" "$d"'
UNPACK = 'umask 077 && mkdir -p -- "$1" && exec tar -x -f - -C "$1" -o'
_FOLDER = re.compile(r"/[A-Za-z0-9._/-]*/asterisk-[A-Za-z0-9]{10}")
_VERSION = re.compile(rb"asterisk-python (\d+) (\d+) (\S{1,40}) *$")
_ASK_VERSION = (
    "import platform, sys; print('asterisk-python', *sys.version_info[:2], platform.machine())"
)
_NPY = b"\x93NUMPY\x01\x00"
Samples = dict[str, list[int]]
MEASUREMENT: Mapping[str, Any] = {
    "phases": dict[str, int],
    "latency": Samples,
    "parts": dict[str, Samples],
    "passes": list[int],
    "memory": dict[str, dict[str, int | None]],
    "shared": list[str],
    "lessened": str,
    "stability": float | None,
}
STATE: Mapping[str, Any] = {
    "load": float | None,
    "governor": str,
    "frequency_khz": float | None,
    "frequencies_khz": list[float],
    "temperature_c": float | None,
    "throttled": str,
    "throttle_count": float | None,
}
NO_MEASUREMENT = "answered with something other than a measurement"


class Disconnected(CellError):
    """The connection failed, not what ran over it."""


class SshSession(Session):
    """A connection and a folder there; ``folder`` is for files on this side."""

    def __init__(self, target: Ssh, folder: Path) -> None:  # its CPUs are checked there
        self.target = target
        self.folder = folder
        self.home = ""
        self.copied = {}
        self.lost = ""
        self.extra = {"cpus": list(target.cpus)} if target.cpus else {}

    def open(self) -> None:
        """Connect, look at what is there and copy the package."""
        try:
            self._check_python()
            self._prepare()
        except CellError as failure:
            raise TargetError(f"{self.target}: {failure}") from None

    def close(self, keep: bool) -> None:
        """Remove the folder there, unless ``keep``."""
        if self.home and not keep:
            with suppress(CellError):  # where the connection is gone for good
                self.run(["rm", "-rf", "--", self.home])

    def _check_python(self) -> None:
        answer = self.run([self.target.python, "-c", _ASK_VERSION])
        found = _VERSION.search(answer.strip())
        if found is None:
            raise CellError(f"{self.target.python} there is no Python")
        if (version := (int(found[1]), int(found[2]))) < OLDEST:
            raise CellError(
                f"Python {version[0]}.{version[1]} there, and at least {OLDEST[0]}.{OLDEST[1]} is "
                "needed; name another one with ?python=/path"
            )
        system = terminal.printable(found[3].decode("ascii", "replace"))
        if system not in MACHINES:
            raise CellError(
                f"a {system} system, for which no engine exists; a 64-bit system is needed"
            )

    def push(self, name: str, write: Callable[[IO[bytes]], None]) -> None:
        """Unpack there, in the folder ``name``, the tar stream that ``write`` writes."""
        words = ["sh", "-c", UNPACK, "sh", f"{self.home}/{name}".rstrip("/")]
        with tempfile.TemporaryFile(dir=self.folder) as stream:
            write(stream)
            stream.seek(0)
            self.run(words, source=stream, timeout=PUSH_SECONDS)

    def _prepare(self) -> None:
        """Copy the package into a private folder there and compile it; check numpy and CPUs."""
        home = self.run(["sh", "-c", MAKE]).decode("utf-8", "replace").rpartition("\n")[2]
        if not _FOLDER.fullmatch(home) or "/../" in home:
            raise CellError("no temporary folder could be made there")
        self.home = home
        self.push("", write_package)
        # So that no worker has to.
        compiled = [self.target.python, "-m", "compileall", "-q", f"{home}/lib"]
        self.run(compiled, timeout=PUSH_SECONDS)
        answer = self._ask_machine(cpus=None, missing=["numpy"])
        if answer.get("missing"):
            raise CellError("numpy is not installed there; install it with: pip install numpy")
        cpus = answer.get("cpus")
        check_cpus(self.target, cpus if isinstance(cpus, list) else None)

    def ask(self, module: str, spec: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Run ``module`` there, its files brought there before and its vectors back after."""
        if self.lost:
            raise CellError(self.lost)
        try:
            remote = self._remote_spec({**spec, **self.extra}, self.home)
            answer = check_measurement(self._supervise(module, remote, timeout), spec)
            if spec.get(OUTPUT):
                self._fetch(remote[OUTPUT], spec)
        except Disconnected as failure:
            try:  # once more, so that the other cells do not wait in vain
                self.run(["true"])
            except CellError:
                self.lost = f"the connection is lost: {failure}"
            raise
        return answer

    def _supervise(self, module: str, spec: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        request = {"module": module, "spec": spec, "timeout": timeout}
        lib = f"{self.home}/lib"
        # A bundle's launcher puts its own packages before PYTHONPATH, and only the second before.
        words = ["env", f"PYTHONPATH={lib}", f"ASTERISK_PYTHONPATH={lib}"]
        out = self.run(
            [*words, self.target.python, "-P", "-m", "asterisk.bench.process"],
            data=json.dumps(request).encode() + b"\n",
            timeout=timeout + GRACE_SECONDS,
            limit=MAX_ANSWER,
        )
        try:
            answer = json.loads(out[out.find(b"{") :] or b"-")
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            shown = terminal.printable(repr(out[:40]))
            raise CellError(f"answered with {shown} instead of a JSON object")
        if "error" in answer:
            raise CellError(terminal.printable(str(answer["error"])))
        return answer

    def _copy(self, path: Path, name: str) -> str:
        self.push(name, lambda stream: write_tree(stream, path))
        return f"{name}/it"

    def _fetch(self, remote: str, spec: Mapping[str, Any]) -> None:
        staged = self.folder / "fetched.npy"
        staged.write_bytes(self.run(["cat", "--", remote], limit=MAX_VECTORS))
        texts = len(json.loads(Path(spec["texts"]).read_text("utf-8")))
        check_vectors(staged, min(spec["count"] or texts, texts))
        staged.replace(spec[OUTPUT])

    def _ask_machine(self, **questions: Any) -> dict[str, Any]:
        """Return the answers of `asterisk.bench.machine` there, their texts printable."""
        answer = self._supervise("asterisk.bench.machine", questions, SHORT_SECONDS)
        plain: dict[str, Any] = _plain(answer)
        return plain

    def describe(self, packages: Iterable[str]) -> dict[str, Any]:
        """Describe the machine there."""
        described = self._ask_machine(machine=sorted(packages)).get("machine")
        return described if isinstance(described, dict) else {}

    def state(self) -> dict[str, Any]:
        """Return its state."""
        return check_state(self._ask_machine(state=None).get("state"))

    def missing_package(self, row: Row) -> str | None:
        """Name the first package that is not installed there, and the extra that brings it."""
        missing = self._ask_machine(missing=list(row.distributions)).get("missing")
        if not isinstance(missing, list) or not missing:
            return None
        if row.peer:
            return f"{missing[0]} is not installed there"
        return str(MissingExtra(str(missing[0]), row.name))

    def weigh(self, names: Iterable[str]) -> dict[str, int] | None:
        """Weigh what is installed there."""
        value = self._ask_machine(weigh=sorted(names)).get("weigh")
        if not isinstance(value, dict) or value.keys() != {"bytes", "base"}:
            return None
        _check(value, {"bytes": int, "base": int})
        return value if min(value.values()) >= 0 else None

    def run(
        self,
        words: list[str],
        *,
        data: bytes = b"",
        source: IO[bytes] | None = None,
        timeout: float = SHORT_SECONDS,
        limit: int = MAX_SHORT,
    ) -> bytes:
        """Run a command there and return what it prints; CellError, one line, if it fails."""
        try:
            return client.run(
                self.target, words, timeout=timeout, limit=limit, data=data, source=source
            )
        except client.RemoteError as failure:
            kind = Disconnected if isinstance(failure, client.Disconnected) else CellError
            raise kind(str(failure)) from None


def write_package(stream: IO[bytes]) -> None:
    """Write as a tar stream, in ``lib``, the part of this package that devices run.

    With the entry points, by which runtimes are found, and the versions, which reports name.
    """
    root = Path(asterisk.__file__).parent
    installed = distribution(DISTRIBUTION)
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path in _files(root):
            inner = path.relative_to(root)
            if inner.parts[0] not in NOT_FOR_DEVICES:
                _add(tar, f"lib/asterisk/{inner.as_posix()}", path)
        for name in METADATA:
            data = (installed.read_text(name) or "").encode()
            entry = tarfile.TarInfo(f"lib/asterisk_edge-{installed.version}.dist-info/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def write_tree(stream: IO[bytes], path: Path) -> None:
    """Write the file ``path``, or the plain files of a folder, under ``it`` as a tar stream."""
    with tarfile.open(fileobj=stream, mode="w") as tar:
        if path.is_file():
            _add(tar, "it", path)
        for file in _files(path):
            _add(tar, f"it/{file.relative_to(path).as_posix()}", file)


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
            yield path


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    """Add a file without its owner, mode and time."""
    entry = tarfile.TarInfo(name)
    entry.size = path.stat().st_size
    with path.open("rb") as source:
        tar.addfile(entry, source)


def _plain(value: Any) -> Any:
    """Return ``value`` from JSON with every text in it printable; CellError if it is too deep."""
    try:
        return terminal.plain(value)
    except ValueError:
        raise CellError(NO_MEASUREMENT) from None


def check_measurement(answer: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer to ``spec`` whose figures can be computed with; CellError otherwise."""
    clean: dict[str, Any] = _plain(dict(answer))
    _check(clean, MEASUREMENT)
    phases, latency, parts = (clean.get(name) for name in ("phases", "latency", "parts"))
    memory = clean.get("memory", {}).values()
    samples = [*(latency or {}).values(), *([clean["passes"]] if "passes" in clean else [])]
    samples += [taken for part in (parts or {}).values() for taken in part.values()]
    sizes = [size for phase in memory for size in phase.values() if size is not None]
    sound = (
        (phases is None or phases.keys() >= {"import", "load", "first"})
        and (latency is None or latency.keys() == set(spec.get("buckets", ())))
        and all(key.isdigit() for key in parts or ())
        and all(phase.keys() >= {"pss", "private", "rss", "peak"} for phase in memory)
        and all(taken and min(taken) > 0 for taken in samples)
        and min([0, *(phases or {}).values(), *sizes]) == 0
    )
    if not sound:
        raise CellError(NO_MEASUREMENT)
    return clean


def check_vectors(path: Path, count: int) -> None:
    """Check that ``path`` is a plain .npy file of float32 [``count``, d]; CellError otherwise.

    Source: the NPY format, version 1.0. Nothing is unpickled, and no numpy is imported.
    """
    data = path.read_bytes()
    try:
        (size,) = struct.unpack_from("<H", data, len(_NPY))
        start = len(_NPY) + 2
        header = ast.literal_eval(data[start : start + size].decode("latin-1").strip())
        rows, width = header["shape"]
        layout = header["descr"], header["fortran_order"], data[: len(_NPY)]
        sound = layout == ("<f4", False, _NPY) and rows == count and 1 <= width <= MAX_DIMENSIONS
        sound = sound and len(data) == start + size + 4 * rows * width
    except (struct.error, ValueError, SyntaxError, LookupError, TypeError):
        sound = False
    except (MemoryError, RecursionError):  # from a header that is nested too deeply
        sound = False
    if not sound:
        raise CellError(f"left vectors that are no float32 array of {count} rows")


def check_state(value: Any) -> dict[str, Any]:
    """Return what `asterisk.bench.machine.state` would; CellError for anything else."""
    if not (isinstance(value, dict) and value.keys() >= STATE.keys()):
        raise CellError(NO_MEASUREMENT)
    _check(value, STATE)
    return {key: value[key] for key in STATE}


def _check(values: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    try:
        for key in values.keys() & types.keys():
            check(values[key], types[key], key)
    except ValueError:
        raise CellError(NO_MEASUREMENT) from None
