"""An export that is killed, runs out of disk or is not alone leaves one whole artifact."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import random_checkpoint

import asterisk
from asterisk.artifact import open_artifact
from asterisk.common import errors, files
from asterisk.common.files import replacing_file, replacing_folder
from asterisk.exporters.export import export
from asterisk.runtimes.load import verify
from hardening.conftest import HERE, SMALL

MODES = ("kill", "full", "half", "large")


@pytest.mark.parametrize("mode", [*MODES, "first-kill", "first-full", "plain-kill"])
def test_stopped_at_every_step(child, tmp_path, mode):
    told = child("steps_child.py", tmp_path / "target", mode, "stub")
    assert told["old"] + told["new"] + told["aside"] == told["steps"]
    assert bool(told["aside"]) == (mode == "plain-kill")
    assert told["old"] >= 8
    assert told["new"] >= 1
    if mode.endswith(("kill", "full")):
        assert told["steps"] > 30
    for message in told["messages"]:
        assert message.startswith("cannot write /artifact: ")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["kill", "large"])
def test_stopped_at_every_step_of_a_real_export(child, tmp_path, mode):
    told = child("steps_child.py", tmp_path / "target", mode, "real", timeout=590)
    assert told["old"] + told["new"] == told["steps"]
    assert told["old"] >= 8


DISK = """
import os, subprocess, sys
from pathlib import Path
disk, source, checkpoint, size = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
out = Path(disk, "small-tflite-int8")
subprocess.run(["cp", "-r", source, out], check=True)
from asterisk.cli.export import main
from asterisk.runtimes.load import verify
status = main([checkpoint, "--format", "tflite", "--out", disk])
verify(out)
print(status, os.listdir(disk))
"""


def can_mount() -> bool:
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return not subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not can_mount(), reason="cannot mount a small disk")
def test_on_a_disk_that_is_full(small, small_artifact, tmp_path):
    """A real one, of a size at which there is room for the old artifact and for part of the new."""
    from asterisk.model.checkpoint import save

    source = small_artifact("tflite")
    save(small, tmp_path / "checkpoints" / "small")
    (tmp_path / "disk").mkdir()
    used = sum(-(-path.stat().st_size // 4096) * 4 for path in source.iterdir())  # kB
    given = [tmp_path / "disk", source, tmp_path / "checkpoints" / "small"]
    seen = set()
    # Where the model, or only the manifest, no longer fits.
    for size in (used + 100, used * 2 - 16, used * 2 + 64):
        done = subprocess.run(
            ["unshare", "-rm", sys.executable, "-c", DISK, *given, str(size)],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        status, _, listed = done.stdout.splitlines()[-1].partition(" ")
        assert listed == "['small-tflite-int8']"
        if status == "7":
            lines = [line for line in done.stderr.splitlines() if line.startswith("asterisk-")]
            assert len(lines) == 1
            assert "cannot write" in lines[0]
        seen.add(status)
    assert seen == {"0", "7"}


def test_a_full_standard_output_is_one_line_and_a_status(small_artifact):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "asterisk.cli.verify", small_artifact("tflite")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 7
    assert done.stderr == "asterisk-verify: No space left on device\n"


def other_checkpoint(seed: int):
    checkpoint = random_checkpoint(SMALL, "small")
    tensors = dict(checkpoint.tensors)
    tensors["embeddings.LayerNorm.bias"] = np.full(32, seed / 8, np.float32)
    return type(checkpoint)(checkpoint.name, checkpoint.config, tensors)


EXPORT = """
import sys
sys.path.insert(0, sys.argv[1])
from hardening.test_export import other_checkpoint
from asterisk.exporters.export import export
from asterisk.common.errors import AsteriskError
from pathlib import Path
try:
    export(other_checkpoint(int(sys.argv[3])), "tflite", "int8", Path(sys.argv[2]))
except AsteriskError as failure:
    sys.exit(str(failure))
"""


@pytest.mark.slow
def test_exports_at_once_and_readers_meanwhile(small, tmp_path):
    """Two exports of one name, while others load and verify what is there."""
    out = tmp_path / "artifact"
    export(small, "tflite", "int8", out)
    prints = {small.fingerprint, *(other_checkpoint(seed).fingerprint for seed in (1, 2))}
    assert len(prints) == 3
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", EXPORT, HERE.parent, out, str(seed)], stderr=subprocess.PIPE
        )
        for seed in (1, 2)
    ]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        with asterisk.load(out) as runtime:
            assert runtime.fingerprint in prints
        verify(out)
        reads += 1
    for writer in writers:
        said = writer.communicate()[1].decode()
        assert writer.returncode == 0, said
    assert reads > 1
    assert open_artifact(out).manifest.fingerprint in prints - {small.fingerprint}
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_what_is_replaced_while_it_is_read_is_read_again(small_artifact, tmp_path, monkeypatch):
    """The folder changes between the manifest and the files: no error, and no mixture."""
    import shutil

    from asterisk import artifact

    out = tmp_path / "artifact"
    shutil.copytree(small_artifact("tflite"), out)
    other = small_artifact("onnx")
    seen = []

    def swapping(path):
        seen.append(path)
        if len(seen) == 2:
            with replacing_folder(out, lambda _: True) as fresh:
                shutil.copytree(other, fresh, dirs_exist_ok=True)
        return hashed(path)

    hashed = artifact.sha256
    monkeypatch.setattr(artifact, "sha256", swapping)
    assert open_artifact(out).manifest.format == "onnx"
    with asterisk.load(out) as runtime:
        assert runtime.format == "onnx"


def test_what_is_replaced_for_ever_is_given_up(small_artifact, tmp_path, monkeypatch):
    import shutil

    from asterisk import artifact

    out = tmp_path / "artifact"
    shutil.copytree(small_artifact("tflite"), out)

    def swapping(path):
        if path.name == "golden.json":
            (out / "beside").touch()
            (out / "beside").unlink()
        return hashed(path)

    hashed = artifact.sha256
    monkeypatch.setattr(artifact, "sha256", swapping)
    with pytest.raises(errors.ArtifactError, match="replaced again and again"):
        asterisk.load(out)


def leftover(target: Path, suffix: str = ".new", random: str = "abcd1234") -> Path:
    return target.with_name(f".{target.name}.{random}{suffix}")


def test_only_what_nobody_is_writing_is_tidied(tmp_path):
    target = tmp_path / "it"
    dead = leftover(target)
    dead.mkdir()
    (dead / "half").write_text("written")
    others = [leftover(tmp_path / "its"), leftover(tmp_path / "it.abcd1234"), tmp_path / ".it.mine"]
    others += [tmp_path / ".it.abcd1234.newer", tmp_path / ".it.ABCD1234.new"]
    for other in others:
        other.mkdir()
    with replacing_folder(target, lambda _: True) as one:
        assert not dead.exists()
        with replacing_folder(target, lambda _: True) as two:
            assert one.exists()  # its writer lives
            (two / "which").write_text("two")
        (one / "which").write_text("one")
    assert (target / "which").read_text() == "one"
    assert set(tmp_path.iterdir()) == {target, *others}


def test_a_link_that_looks_like_a_leftover_is_not_followed(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    leftover(tmp_path / "it").symlink_to(tmp_path / "precious")
    os.mkfifo(leftover(tmp_path / "it", random="fifo1234"))
    with replacing_folder(tmp_path / "it", lambda _: True):
        pass
    assert (tmp_path / "precious" / "file").read_text() == "kept"


def test_what_a_killed_writer_put_aside_is_put_back(tmp_path):
    """Only where two names cannot be exchanged is there a moment without the artifact."""
    target = tmp_path / "it"
    old = leftover(target, ".old")
    old.mkdir()
    (old / "which").write_text("old")

    def fail():
        with replacing_folder(target, lambda _: True):
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert (target / "which").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_without_locks_nothing_is_tidied_and_writing_works(tmp_path, monkeypatch):
    """As on a network file system that has none."""
    leftover(tmp_path / "it").mkdir()

    def none(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files, "_lock", none)
    with replacing_folder(tmp_path / "it", lambda _: True) as fresh:
        (fresh / "a").write_text("1")
    with replacing_file(tmp_path / "file") as path:
        path.write_text("2")
    assert (tmp_path / "it" / "a").read_text() == "1"
    assert leftover(tmp_path / "it").exists()


def test_writers_of_one_file_in_many_threads(tmp_path):
    """Whoever is last wins; nobody's half is seen, and nothing is left."""
    failures = []

    def write(number: int) -> None:
        try:
            for _ in range(20):
                with replacing_file(tmp_path / "it") as path:
                    path.write_text(str(number) * 5_000)
                assert len(set((tmp_path / "it").read_text())) == 1
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [path.name for path in tmp_path.iterdir()] == ["it"]
