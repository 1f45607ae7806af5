"""The installer on the device: refusals, and that power may be lost at any step."""

from __future__ import annotations

import ast
import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asterisk.deploy import bundle as bundling
from asterisk.deploy.device import install, script, versions
from asterisk.deploy.device.manifest import identity
from deploy import fake

ALL = {"versions", "current", "previous", "bin", "report.jsonl", ".lock"}


def unpacked(folder, version="version1", **how):
    """Unpack a small bundle as tar would; return the folder with install.py."""
    it = fake.bundle(folder / f"made-{version}", version, **how)
    stream = folder / f"{version}.tar"
    with stream.open("wb") as file:
        bundling.write_parts(it, it.files, file)
    target = folder / version
    target.mkdir()
    subprocess.run(["tar", "xf", stream, "-C", target], check=True)
    return target / bundling.TOP


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Two versions that verify and one that does not."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "old": unpacked(folder, "version1"),
        "new": unpacked(folder, "version2"),
        "newer": unpacked(folder, "version3"),
        "bad": unpacked(folder, "versionx", golden=False),
        # Fails only where it has its final name.
        "late": unpacked(
            folder,
            "versionl",
            extra='case "$here" in */versions/.*) ;; *) echo late >&2; exit 6;; esac',
        ),
    }


def names(folder):
    return [path.name for path in folder.iterdir()]


def id_of(source):
    return json.loads((source / "bundle.json").read_bytes())["id"]


def run(source, prefix, *options, **environment):
    """Run the installer as a person would; return its status, JSON line and standard error."""
    done = subprocess.run(
        [sys.executable, source / "install.py", "--prefix", prefix, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert "Traceback" not in done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stderr.count("\n") == (done.returncode != 0)
    return done.returncode, json.loads(done.stdout), done.stderr


def works(prefix):
    """Return what ``bin/`` says that it runs, verified."""
    done = subprocess.run(
        [prefix / "bin" / "asterisk-verify", prefix / "current" / "artifact"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return (prefix / "current" / "artifact" / "model.bin").read_bytes()[:8].decode()


@pytest.fixture
def prefix(tmp_path):
    return tmp_path / "prefix"


def test_install_update_rollback_remove(bundles, prefix):
    old, new = id_of(bundles["old"]), id_of(bundles["new"])
    status, answer, _ = run(bundles["old"], prefix)
    assert (status, answer["ok"], answer["id"]) == (0, True, old)
    assert "cosine to FP32 mean 0.99990" in answer["line"]
    assert works(prefix) == "version1"
    assert set(names(prefix)) == ALL - {"previous"}
    status, answer, _ = run(bundles["new"], prefix)
    assert (status, answer["id"]) == (0, new)
    assert works(prefix) == "version2"
    engine = "site/engine.so"  # the same in both, and there once
    one, other = (prefix / "versions" / id / engine for id in (old, new))
    assert one.stat().st_ino == other.stat().st_ino
    status, answer, _ = run(bundles["new"], prefix, "--rollback")
    assert (status, answer["id"]) == (0, old)
    assert works(prefix) == "version1"
    run(bundles["new"], prefix, "--rollback")  # and forward again
    assert works(prefix) == "version2"
    lines = [json.loads(line) for line in (prefix / "report.jsonl").read_text().splitlines()]
    assert [(line["ok"], line["id"]) for line in lines] == [(True, i) for i in (old, new, old, new)]
    status, answer, _ = run(bundles["new"], prefix, "--remove")
    assert (status, answer["id"]) == (0, new)
    assert not prefix.exists()
    assert run(bundles["new"], prefix, "--remove")[0] == 0


def test_modes_do_not_depend_on_the_umask(bundles, prefix):
    before = os.umask(0o077)
    try:
        run(bundles["old"], prefix)
    finally:
        os.umask(before)
    for path in (prefix, *prefix.rglob("*")):
        if path.is_symlink() or path.name in (".lock", "report.jsonl"):
            continue
        executable = path.is_dir() or path.parent.name == "bin"
        assert path.stat().st_mode & 0o777 == (0o755 if executable else 0o644), path


def test_the_same_again_changes_nothing_and_verifies(bundles, prefix):
    run(bundles["old"], prefix)
    model = prefix / "current" / "artifact" / "model.bin"
    before = model.stat()
    status, answer, _ = run(bundles["old"], prefix)
    assert status == 0
    assert ": already in" in answer["line"]
    assert model.stat().st_ino == before.st_ino


def test_a_damaged_installation_is_made_whole_and_never_reused(bundles, prefix):
    run(bundles["old"], prefix)
    engine = prefix / "current" / "site" / "engine.so"
    data = bytearray(engine.read_bytes())
    data[1000] ^= 1
    engine.write_bytes(data)
    status, answer, _ = run(bundles["old"], prefix)
    assert (status, answer["ok"]) == (0, True)
    assert versions.Installation(str(prefix)).is_complete(id_of(bundles["old"]))
    assert set(names(prefix / "versions")) == {id_of(bundles["old"])}
    engine.write_bytes(data)
    run(bundles["new"], prefix)
    assert versions.Installation(str(prefix)).is_complete(id_of(bundles["new"]))


@pytest.mark.parametrize("which", ["bad", "late"])
def test_what_fails_its_verification_leaves_the_old_version(bundles, prefix, which):
    status, answer, error = run(bundles[which], prefix)
    assert (status, answer["ok"]) == (1, False)
    assert "verification failed" in error
    assert not prefix.exists()  # nor anything of a first installation
    run(bundles["old"], prefix)
    run(bundles["new"], prefix)
    status, answer, _ = run(bundles[which], prefix)
    assert status == 1
    assert works(prefix) == "version2"
    assert set(names(prefix)) == ALL
    assert set(names(prefix / "versions")) == {id_of(bundles[it]) for it in ("old", "new")}
    last = json.loads((prefix / "report.jsonl").read_text().splitlines()[-1])
    assert last == answer
    assert run(bundles["old"], prefix, "--rollback")[1]["id"] == id_of(bundles["old"])


DIES = "import os, signal; os.kill(os.getpid(), signal.{})"


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (DIES.format("SIGILL"), "an illegal instruction (SIGILL)"),
        ("import ctypes; ctypes.string_at(0)", "a segmentation fault (SIGSEGV)"),
    ],
)
def test_an_engine_that_dies_here_is_named_and_replaces_nothing(
    bundles, prefix, tmp_path, engine, reason
):
    source = unpacked(tmp_path, "versiond", engine=engine)
    answer = f"onnxruntime 1.31.1 dies of {reason} on this processor; nothing was replaced"
    run(bundles["old"], prefix)
    status, line, error = run(source, prefix)
    assert (status, line["ok"], line["line"]) == (1, False, answer)
    assert answer in error
    assert works(prefix) == "version1"
    assert names(prefix / "versions") == [id_of(bundles["old"])]


def test_one_that_was_ended_from_outside_is_not_the_processors_fault(bundles, prefix, tmp_path):
    source = unpacked(tmp_path, "versionk", engine=DIES.format("SIGKILL"))
    assert "verification failed: it was ended by SIGKILL" in run(source, prefix)[2]


def test_a_version_that_is_there_already_is_tried_before_it_is_made_current(
    bundles, prefix, tmp_path
):
    late = tmp_path / "no-longer"
    source = unpacked(tmp_path, "versiont", extra=f"[ ! -e {late} ] || kill -ILL $$")
    run(source, prefix)
    run(bundles["old"], prefix)
    late.touch()
    status, _, error = run(source, prefix)
    assert status == 1
    assert "onnxruntime 1.31.1 dies" not in error  # nothing tells whose code that was
    assert "the tflite engine dies of an illegal instruction" in error
    assert works(prefix) == "version1"


def test_keep(bundles, prefix):
    for name in ("old", "new", "newer"):
        run(bundles[name], prefix)
    ids = {name: id_of(bundles[name]) for name in ("old", "new", "newer")}
    assert set(names(prefix / "versions")) == {ids["new"], ids["newer"]}
    run(bundles["old"], prefix, "--keep", "3")
    assert set(names(prefix / "versions")) == set(ids.values())
    run(bundles["old"], prefix, "--keep", "1")
    assert set(names(prefix / "versions")) == {ids["old"]}
    assert "no earlier version" in run(bundles["old"], prefix, "--rollback")[2]


def test_undo_makes_everything_what_it_was(bundles, prefix):
    old, new, newer = (id_of(bundles[it]) for it in ("old", "new", "newer"))
    run(bundles["old"], prefix)
    run(bundles["new"], prefix)
    before = {it: (prefix / it).readlink() for it in ("current", "previous")}
    run(bundles["newer"], prefix, "--keep", "3")
    assert run(bundles["new"], prefix, "--undo", newer, "0" * 16, "-")[0] == 1
    assert works(prefix) == "version3"
    assert run(bundles["new"], prefix, "--undo", newer, new, old)[1]["id"] == new
    assert works(prefix) == "version2"
    assert {it: (prefix / it).readlink() for it in before} == before
    assert sorted(names(prefix / "versions")) == sorted([old, new])


def test_undo_of_a_first_one_leaves_nothing(bundles, prefix):
    run(bundles["old"], prefix)
    assert run(bundles["old"], prefix, "--undo", id_of(bundles["old"]), "-", "-")[0] == 0
    assert not prefix.exists()


def test_prune_removes_what_is_too_much(bundles, prefix):
    for it in ("old", "new", "newer"):
        run(bundles[it], prefix, "--keep", "3")
    assert len(names(prefix / "versions")) == 3
    assert run(bundles["old"], prefix, "--prune")[0] == 0
    assert sorted(names(prefix / "versions")) == sorted(
        map(id_of, (bundles["new"], bundles["newer"]))
    )


def test_a_reader_that_leaves_early_is_no_complaint(bundles, prefix):
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, bundles["old"] / "install.py", "--prefix", prefix, "--inventory"]
    done = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_only_what_is_missing_has_to_be_beside_the_installer(bundles, prefix, tmp_path):
    run(bundles["old"], prefix)
    done = subprocess.run(
        [sys.executable, bundles["new"] / "install.py", "--prefix", prefix, "--inventory"],
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert (answer["current"], answer["previous"]) == (id_of(bundles["old"]), None)
    part = tmp_path / "part"
    shutil.copytree(bundles["new"], part)
    files = json.loads((part / "bundle.json").read_bytes())["files"]
    known = [name for name, entry in files.items() if entry["sha256"] in answer["files"]]
    assert "site/engine.so" in known
    assert "artifact/model.bin" not in known
    for name in known:
        (part / name).unlink()
    assert run(part, prefix)[0] == 0
    assert works(prefix) == "version2"
    (part / "artifact" / "model.bin").unlink()
    assert run(part, tmp_path / "another")[2].endswith("nor installed, intact\n")
    # What is damaged is not told as being there.
    (prefix / "current" / "site" / "engine.so").write_bytes(b"")
    again = versions.Installation(str(prefix)).inventory()
    assert files["site/engine.so"]["sha256"] not in again["files"]


# --- refusals ----------------------------------------------------------------------------------


def changed(source, target, **values):
    """Copy a bundle with other words in its manifest, its id made right again."""
    shutil.copytree(source, target)
    manifest = json.loads((target / "bundle.json").read_bytes())
    manifest.update(values)
    manifest["id"] = identity(manifest)
    (target / "bundle.json").write_text(json.dumps(manifest))
    return target


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"machine": "riscv64"}, "the bundle is for riscv64"),
        ({"python": "3.99"}, "the bundle is for 3.99"),
        ({"glibc": "9.99"}, "is too old: 9.99 is needed"),
        ({"libraries": {"libnone.so.7": "libnone7"}}, "sudo apt-get install libnone7"),
        ({"schema": 2}, "schema 2, this installer reads 1"),
        ({"installed_bytes": 5}, "installed_bytes"),
    ],
)
def test_a_bundle_for_another_machine(bundles, prefix, tmp_path, values, reason):
    source = changed(bundles["old"], tmp_path / "changed", **values)
    status, answer, error = run(source, prefix)
    assert (status, answer["ok"]) == (1, False)
    assert reason in error
    assert not prefix.exists()


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ("platform.machine = lambda: 'armv7l'", "armv7l, 32-bit: a 64-bit system is needed"),
        ("struct.calcsize = lambda it: 4", "32-bit: a 64-bit system is needed"),
        ("os.sysconf = lambda it: 1 << 17", "pages of 128 KiB"),
        ("os.confstr = lambda it: None", "this is not glibc"),
        ("os.confstr = lambda it: 'glibc 2.5'", "glibc 2.5 is too old: 2.17 is needed"),
        (
            "class Full:\n  f_bavail = 5\n  f_frsize = 1000000\nos.statvfs = lambda it: Full",
            "MB are needed in",
        ),
    ],
)
def test_a_machine_that_is_none(bundles, prefix, tmp_path, patch, reason):
    script = tmp_path / "patched.py"
    script.write_text(
        f"import ctypes, os, platform, runpy, struct, sys\n{patch}\n"
        "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, script, bundles["old"] / "install.py", "--prefix", prefix],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert not prefix.exists()


def test_damaged_and_missing_files(bundles, prefix, tmp_path):
    run(bundles["new"], prefix)
    for number, (name, data) in enumerate(
        [("artifact/model.bin", b"version1"), ("artifact/model.bin", None), ("bundle.json", b"{}")]
    ):
        source = tmp_path / str(number)
        shutil.copytree(bundles["old"], source)
        (source / name).unlink()
        if data is not None:
            (source / name).write_bytes(data)
        status, _, error = run(source, prefix)
        assert status == 1
        assert name.rpartition("/")[2] in error
        assert works(prefix) == "version2"
        assert names(prefix / "versions") == [id_of(bundles["new"])]
    link = tmp_path / "link"
    shutil.copytree(bundles["old"], link)
    (link / "artifact" / "model.bin").unlink()
    (link / "artifact" / "model.bin").symlink_to(bundles["old"] / "artifact" / "model.bin")
    assert "model.bin is neither beside" in run(link, prefix)[2]


@pytest.mark.parametrize(
    "prepare",
    [
        lambda prefix, away: (prefix / "versions").symlink_to(away),
        lambda prefix, away: (prefix / "current").symlink_to(away),
        lambda prefix, away: (prefix / "bin").mkdir(),
        lambda prefix, away: (prefix / ".lock").symlink_to(away / "lock"),
        lambda prefix, away: (prefix / "report.jsonl").symlink_to(away / "report"),
        lambda prefix, away: (prefix / "thesis.odt").touch(),
    ],
)
def test_a_prefix_that_leads_elsewhere_or_holds_something_else(bundles, prefix, tmp_path, prepare):
    away = tmp_path / "away"
    away.mkdir()
    prefix.mkdir()
    prepare(prefix, away)
    before = sorted(names(prefix))
    for options in ((), ("--remove",), ("--rollback",)):
        status, _, error = run(bundles["old"], prefix, *options)
        assert status == 1
        assert str(prefix) in error
    assert names(away) == []
    assert sorted(names(prefix)) == before


def test_removal_leaves_what_is_not_ours(bundles, prefix):
    run(bundles["old"], prefix)
    (prefix / "thesis.odt").touch()
    assert run(bundles["old"], prefix, "--remove")[0] == 0
    assert names(prefix) == ["thesis.odt"]


def test_another_installer_at_work(bundles, prefix):
    run(bundles["old"], prefix)
    with versions.Installation(str(prefix)).locked():
        status, _, error = run(bundles["new"], prefix)
        assert status == 1
        assert "another installer is at work" in error
    assert works(prefix) == "version1"
    assert run(bundles["new"], prefix)[0] == 0


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write")
def test_a_prefix_that_cannot_be_written(bundles, tmp_path):
    for folder in (tmp_path, *tmp_path.parents):  # for another user to reach what is in it
        with contextlib.suppress(OSError):
            if folder.is_relative_to("/tmp/"):
                folder.chmod(folder.stat().st_mode | 0o055)
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o555)
    source = tmp_path / "source"
    shutil.copytree(bundles["old"], source)
    words = [sys.executable, source / "install.py", "--prefix", shut / "prefix"]
    if os.geteuid() == 0:
        words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *words]
        if subprocess.run([*words[:4], sys.executable, "-c", ""], check=False).returncode:
            pytest.skip("another user cannot run this Python")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be written: Permission denied" in done.stderr


# --- power and disks ---------------------------------------------------------------------------


def forked(source, prefix, *options, kill=0, fail=0, number=errno.ENOSPC):
    """Run the installer in a forked child; return how it ended and how many steps it made.

    A step is a call that changes names or files, or that syncs. Right before step ``kill`` the
    power fails: what was written and not synced is empty then. Step ``fail`` fails with ``number``.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        steps = Steps(str(prefix), kill, fail, number)
        install.__file__ = str(source / "install.py")
        status = 99
        try:
            steps.begin()
            status = install.main(["--prefix", str(prefix), *options])
        except BaseException as failure:
            os.write(writing, repr(failure).encode() + b" ")
        os.write(writing, str(steps.made).encode())
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), answer


class Steps:
    """Counts the steps of this process from now on, and ends or fails at one of them."""

    def __init__(self, prefix, kill, fail, number):
        self.prefix, self.kill, self.fail, self.number = prefix, kill, fail, number
        self.made = 0
        self.unsynced = set()
        self.aside = False

    def begin(self):
        sys.addaudithook(self.heard)
        fsync, self.aside = os.fsync, False

        def synced(descriptor):
            self.step("fsync")
            fsync(descriptor)
            self.unsynced.discard(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

        os.fsync = synced

    def heard(self, event, values):
        if self.aside:
            return
        if event == "open":
            path, _, flags = values
            if not isinstance(path, (str, bytes)) or not flags & (os.O_WRONLY | os.O_RDWR):
                return
            path = os.fsdecode(path)
            if not path.startswith(self.prefix):
                return
            self.step(event)
            self.unsynced.add(path)
        elif event in (
            *("os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir"),
            *("os.chmod", "os.truncate", "subprocess.Popen"),
        ):
            self.step(event)
            if event == "os.rename":
                old, new = (os.fsdecode(it) for it in values[:2])
                self.unsynced = {
                    new + it[len(old) :] if it == old or it.startswith(old + "/") else it
                    for it in self.unsynced
                }

    def step(self, event):
        self.made += 1
        if self.made == self.kill:
            self.aside = True
            for path in map(Path, self.unsynced):
                if path.name == "report.jsonl":
                    with path.open("ab") as file:
                        file.write(b'{"ok": tr')
                elif path.is_file() and path.stat().st_nlink == 1:
                    os.truncate(path, 0)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.made == self.fail:
            raise OSError(self.number, os.strerror(self.number))


def sampled(steps):
    """Return one step in nine of those that copy and sync files, and every later one."""
    return [step for step in range(1, steps + 1) if step % 9 == 1 or steps - step < 25]


def steps_of(source, template, folder, *options):
    prefix = copied(template, folder / "counted")
    status, answer = forked(source, prefix, *options)
    assert status == 0, answer
    return int(answer)


def copied(template, prefix):
    if template is not None:
        subprocess.run(["cp", "-a", template, prefix], check=True)
    return prefix


@pytest.fixture(scope="session")
def template(bundles, tmp_path_factory):
    prefix = tmp_path_factory.mktemp("template") / "prefix"
    assert run(bundles["old"], prefix)[0] == 0
    return prefix


def whole(prefix):
    """Return which version is current, and know that ``bin`` has all of it; None if none is."""
    installation = versions.Installation(str(prefix))
    installation.check()
    current = installation.linked("current")
    if current is not None:
        assert installation.is_complete(current)
        assert (prefix / "bin" / "asterisk-verify").is_file()
    return current


@pytest.mark.slow
def test_power_lost_at_any_step_of_an_update(bundles, template, tmp_path):
    old, new = id_of(bundles["old"]), id_of(bundles["new"])
    steps = steps_of(bundles["new"], template, tmp_path)
    assert steps > 40
    seen = []
    for step in sampled(steps):
        prefix = copied(template, tmp_path / str(step))
        status, _ = forked(bundles["new"], prefix, kill=step)
        assert status == -signal.SIGKILL
        seen.append(whole(prefix))
        assert seen[-1] in (old, new), step
        status, answer = forked(bundles["new"], prefix)
        assert status == 0, (step, answer)
        assert whole(prefix) == new
        assert set(names(prefix)) == ALL, step
        assert set(names(prefix / "versions")) == {old, new}, step
        if step % 9 == 0:
            assert forked(bundles["new"], prefix, "--rollback")[0] == 0
            assert whole(prefix) == old
    assert seen == sorted(seen, key=[old, new].index)  # there is one step between the two
    assert {old, new} == set(seen)


@pytest.mark.slow
def test_power_lost_at_any_step_of_a_first_installation(bundles, tmp_path):
    new = id_of(bundles["new"])
    for step in sampled(steps_of(bundles["new"], None, tmp_path)):
        prefix = tmp_path / str(step)
        assert forked(bundles["new"], prefix, kill=step)[0] == -signal.SIGKILL
        assert whole(prefix) in (None, new), step
        status, answer = forked(bundles["new"], prefix)
        assert status == 0, (step, answer)
        assert whole(prefix) == new
        assert set(names(prefix)) == ALL - {"previous"}, step
        assert names(prefix / "versions") == [new], step


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--rollback", "--remove", "--keep=1", "--undo"])
def test_power_lost_at_any_other_step(bundles, template, tmp_path, option):
    full = copied(template, tmp_path / "full")
    assert forked(bundles["new"], full)[0] == 0
    old, new = id_of(bundles["old"]), id_of(bundles["new"])
    words = ["--undo", new, old, "-"] if option == "--undo" else [option]
    either = dict.fromkeys(("--rollback", "--undo"), (old, new))
    for step in sampled(steps_of(bundles["new"], full, tmp_path, *words)):
        prefix = copied(full, tmp_path / str(step))
        assert forked(bundles["new"], prefix, *words, kill=step)[0] == -signal.SIGKILL
        found = whole(prefix) if prefix.exists() else None
        assert found in {**either, "--remove": (new, None)}.get(option, (new,))
        if option == "--remove":
            assert forked(bundles["new"], prefix, option)[0] == 0, step
            assert not prefix.exists(), step
        else:
            assert forked(bundles["new"], prefix)[0] == 0, step
            assert whole(prefix) == new
            assert {it for it in names(prefix / "versions") if it.startswith(".")} == set()


@pytest.mark.slow
def test_a_disk_that_fails_at_any_step(bundles, template, tmp_path):
    old, new = id_of(bundles["old"]), id_of(bundles["new"])
    for step in sampled(steps_of(bundles["new"], template, tmp_path)):
        prefix = copied(template, tmp_path / str(step))
        number = errno.ENOSPC if step % 2 else errno.EIO
        status, answer = forked(bundles["new"], prefix, fail=step, number=number)
        current = whole(prefix)
        assert current in (old, new)
        if status == 1:
            assert answer.isdigit()  # one line told, no traceback
        else:
            assert (status, current) == (0, new), (step, answer)
        assert forked(bundles["new"], prefix)[0] == 0
        assert whole(prefix) == new
        assert set(names(prefix / "versions")) == {old, new}


def test_a_full_disk_leaves_the_old_version(bundles, tmp_path):
    """A real one: a small tmpfs in a namespace of its own."""
    script = """set -e
mount -t tmpfs -o size=$1k tmpfs "$2"
prefix=$2/prefix
"$3" "$4/install.py" --prefix "$prefix" > "$6" 2>&1 || exit 50
dd if=/dev/zero of="$2/filler" bs=1k count=100000 2> /dev/null || true
rm -f "$6"
"$3" - "$5" "$prefix" > "$6" 2>&1 <<'END' || true
import os, runpy, sys
class Free: f_bavail = f_frsize = 1 << 20  # a disk that fills up after it was asked
os.statvfs = lambda it: Free
source, prefix = sys.argv[1:]
sys.argv = ["install.py", "--prefix", prefix]
runpy.run_path(source + "/install.py", run_name="__main__")
END
"$prefix/bin/asterisk-verify" "$prefix/current/artifact" || exit 51
head -c 8 "$prefix/current/artifact/model.bin"; echo
ls -A "$prefix/versions"
"""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no namespaces of one's own")
    disk, log = tmp_path / "disk", tmp_path / "log"
    disk.mkdir()
    words = [str(1200), disk, sys.executable, bundles["old"], bundles["new"], log]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    # The first installation itself is refused where less is free than it asks for.
    if done.returncode == 50:
        assert "no space" in log.read_text()
        words[0] = str(1200 + (versions.SPARE >> 10) + 200)
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, "sh", *words],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in log.read_text()
    assert "version1" in done.stdout
    assert done.stdout.splitlines()[-1] == id_of(bundles["old"])


def test_no_clock_is_asked():
    source = script("install")
    assert "import time" not in source
    assert "mtime" not in source


def test_it_can_be_parsed_by_a_python_that_is_too_old():
    ast.parse(script("install"), feature_version=(3, 8))


@pytest.mark.parametrize("name", ["install", "session"])
def test_modules_that_are_joined_share_no_name(name):
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Assign)
    body = [node for node in ast.parse(script(name)).body if isinstance(node, kinds)]
    names = [getattr(node, "name", None) or node.targets[0].id for node in body]
    assert {it for it in names if names.count(it) > 1} <= {"main"}
