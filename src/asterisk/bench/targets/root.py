"""The emulated machines' files: ``python -m asterisk.bench.targets.root`` makes them once.

A Debian arm64 root with Python, this project's engines for AArch64 and a qemu that is new enough
(Bookworm's own, 7.2, crashes in two of the engines). Nothing is emulated for it, no maintainer
script runs and nothing is installed: packages are downloaded under a private apt configuration and
unpacked. It is kept outside the clone, named after a digest of everything it is made of.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import requires
from pathlib import Path

from asterisk.bench.targets.session import Unavailable
from asterisk.common.errors import EngineError
from asterisk.common.terminal import report as tell

SUITE, BACKPORTS = "bookworm", "bookworm-backports"
PACKAGES = ("python3", "libstdc++6", "libgomp1")
PYTHON = "3.11"  # the suite's
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
ABIS = ("cp311", "abi3", "none")
EXTRAS = ("onnx", "tflite", "gguf")
NUMPY = "numpy==2.4.6"
EMULATORS = ("qemu-aarch64", "qemu-x86_64")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = "ASTERISK_DEBIAN_MIRROR"
NEEDED = ("apt-get", "dpkg-deb", "tar")
MOUNTS = ("proc", "sys", "dev", "tmp", "work")
EDITION = 1  # to be raised when this module makes something else of the same names
HOW = "make it with: python -m asterisk.bench.targets.root"
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+==[0-9.]+); extra == [\"'](\w+)[\"']")


def wheels() -> list[str]:
    """Return the pinned requirements of the engines, numpy among them."""
    found = {}
    for line in requires("asterisk-edge") or ():
        match = _REQUIREMENT.fullmatch(line.strip())
        if match and match[2] in EXTRAS:
            found[match[2]] = match[1]
    return [NUMPY, *(found[extra] for extra in EXTRAS)]


def cache() -> Path:
    """Return the folder outside the clone where everything downloaded is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "asterisk"


def place() -> Path:
    """Return where the files are, or would be: named after all they are made of."""
    made_of = [EDITION, SUITE, BACKPORTS, PACKAGES, PLATFORMS, ABIS, wheels(), EMULATORS]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    return cache() / f"emulation-{digest[:12]}"


def find() -> Path:
    """Return the files' folder; Unavailable where it has not been made."""
    folder = place()
    if not (folder / "made.json").is_file():
        raise Unavailable(f"no emulated machine here yet; {HOW}")
    return folder


def make() -> Path:
    """Make the folder if it is not there; EngineError, one line, where that cannot be done."""
    return kept(place(), _fill)


def kept(folder: Path, fill: Callable[[Path], dict[str, str]]) -> Path:
    """Return ``folder``, made once by ``fill``, which puts all into a folder and tells versions."""
    if (folder / "made.json").is_file():
        return folder
    for tool in NEEDED:
        if shutil.which(tool) is None:
            raise EngineError(f"{tool} is needed for an emulated machine and is not here")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".emulation-", dir=folder.parent))
    try:
        versions = fill(staging)
        (staging / "made.json").write_text(json.dumps(versions, indent=1) + "\n", "utf-8")
        staging.chmod(0o755)
        try:
            staging.rename(folder)
        except OSError:
            if not (folder / "made.json").is_file():  # another process was not first
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _fill(staging: Path) -> dict[str, str]:
    work = staging / "work"
    work.mkdir()
    tell("emulation: Debian's packages for arm64")
    apt = Apt(work / "arm64", "arm64", SUITE)
    debs = apt.download(PACKAGES)
    root = staging / "root"
    root.mkdir()
    for deb in debs:
        unpack(deb, root)
    for name in MOUNTS:
        (root / name).mkdir(exist_ok=True)
    tell("emulation: qemu")
    qemu = emulators(work, staging, EMULATORS)
    tell("emulation: the engines' wheels for AArch64")
    _wheels(work / "wheels", root / "site")
    shutil.rmtree(work)
    return versions((*debs, qemu))


def emulators(work: Path, folder: Path, names: Sequence[str]) -> Path:
    """Put qemu's programs ``names`` into ``folder``; return the package they are from."""
    (qemu,) = Apt(work / "host", _architecture(), BACKPORTS).fetch("qemu-user")
    unpack(qemu, work / "qemu", *(f"./usr/bin/{name}" for name in names))
    for name in names:
        shutil.move(work / "qemu" / "usr" / "bin" / name, folder / name)
    return qemu


def versions(debs: Iterable[Path]) -> dict[str, str]:
    """Return the packages' versions, which their files' names have."""
    return {deb.name.partition("_")[0]: deb.name.split("_")[1] for deb in debs}


class Apt:
    """A private apt: its own lists and an empty status, so that nothing counts as installed."""

    def __init__(self, folder: Path, architecture: str, suite: str) -> None:
        for name in ("lists/partial", "archives/partial", "etc"):
            (folder / name).mkdir(parents=True)
        self.folder = folder
        self.suite = suite
        (folder / "status").touch()
        source = f"[signed-by={KEYRING}] {mirror()} {suite} main\n"
        (folder / "sources.list").write_text(f"deb {source}", "utf-8")
        settings = {
            "Dir::State": f"{folder}/",
            "Dir::State::lists": f"{folder}/lists",
            "Dir::State::status": f"{folder}/status",
            "Dir::Cache": f"{folder}/",
            "Dir::Cache::archives": f"{folder}/archives",
            "Dir::Etc::sourcelist": f"{folder}/sources.list",
            "Dir::Etc::sourceparts": "-",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        lines = (f'{key} "{value}";\n' for key, value in settings.items())
        (folder / "apt.conf").write_text("".join(lines), "utf-8")
        self.run("update")

    def run(self, *arguments: str) -> None:
        """Run apt-get in its folder."""
        call(
            ["apt-get", "-qq", *arguments],
            cwd=self.folder / "archives",
            env={**os.environ, "APT_CONFIG": str(self.folder / "apt.conf")},
        )

    def download(self, names: Sequence[str]) -> list[Path]:
        """Return the files of ``names`` and of all they depend on."""
        self.run("install", "--yes", "--download-only", *names)
        return sorted((self.folder / "archives").glob("*.deb"))

    def fetch(self, *names: str) -> list[Path]:
        """Return the files of ``names`` alone, of this suite."""
        self.run("download", *(f"{name}/{self.suite}" for name in names))
        return sorted((self.folder / "archives").glob("*.deb"))


def mirror() -> str:
    """Return Debian's mirror: that of `MIRROR`, or the one this machine's apt uses."""
    told = os.environ.get(MIRROR)
    if told:
        return told
    listed = call(["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)"])
    for line in listed.splitlines():
        if line.startswith("Debian Debian "):
            return line.split()[2]
    raise EngineError(f"this system's apt has no Debian mirror: name one in {MIRROR}")


def unpack(deb: Path, folder: Path, *members: str) -> None:
    """Unpack the files of a package, or only ``members``, without running anything of it."""
    folder.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as source:
        # A link that is there already, such as bin -> usr/bin, is followed.
        extract = ["tar", "-x", "--no-same-owner", "--keep-directory-symlink"]
        call([*extract, "-C", str(folder), *members], stdin=source.stdout)
    if source.returncode:
        raise EngineError(f"{deb.name} could not be unpacked")


def _wheels(folder: Path, site: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON]
    command += [part for name in PLATFORMS for part in ("--platform", name)]
    command += [part for name in ABIS for part in ("--abi", name)]
    call([*command, "--dest", str(folder), *wheels()])
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)


def _architecture() -> str:
    return call(["dpkg", "--print-architecture"]).strip()


def call(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: object = None,
) -> str:
    """Run a tool and return what it prints; EngineError with its last line if it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdin=stdin,  # type: ignore[call-overload]
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it failed"])[-1][:300]
        raise EngineError(f"{Path(command[0]).name}: {last}")
    told: str = done.stdout
    return told


def tell_where(name: str, make: Callable[[], Path]) -> int:
    """Print the folder that ``make`` returns, or in one line why there is none; return a status."""
    try:
        print(make())
    except EngineError as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        return failure.status
    return 0


if __name__ == "__main__":
    sys.exit(tell_where("emulation", make))
