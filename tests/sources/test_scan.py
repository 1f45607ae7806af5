from __future__ import annotations

import inspect
import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from asterisk.common.errors import InputError
from asterisk.sources import Options, Report, documents, read, scan
from asterisk.sources.scan import printable_path, source_name
from sources.helpers import found, written


def names(top: Path, **options: object) -> tuple[list[str], list[str]]:
    lines: list[str] = []
    report = Report(lambda line: lines.append(line.replace(f"{top}/", "")))
    files = scan([top], Options(**options), report)  # type: ignore[arg-type]
    return [str(file.path.relative_to(top)) for file in files], lines


def test_folders_in_byte_order_without_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b/z.txt", "b/a.txt", "a.txt", "B.txt", ".git/x.txt", "b/.y.txt", "ä.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert names(tmp_path) == (["B.txt", "a.txt", "b/a.txt", "b/z.txt", "ä.txt"], [])
    assert names(tmp_path, hidden=True)[0] == [
        ".git/x.txt", "B.txt", "a.txt", "b/.y.txt", "b/a.txt", "b/z.txt", "ä.txt",
    ]  # fmt: skip
    named = scan([tmp_path / ".git" / "x.txt"])  # what is named is taken
    assert [file.path.name for file in named] == ["x.txt"]


def test_globs_over_names_and_paths(tmp_path: Path) -> None:
    for name in ("a.md", "a.txt", "old/b.md", "old/deep/c.md", "new/d.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert names(tmp_path, include=("*.md",))[0] == [
        "a.md",
        "new/d.md",
        "old/b.md",
        "old/deep/c.md",
    ]
    assert names(tmp_path, include=("*.md",), exclude=("old",))[0] == ["a.md", "new/d.md"]
    assert names(tmp_path, exclude=("old/deep/*",))[0] == ["a.md", "a.txt", "new/d.md", "old/b.md"]


def test_each_file_once_however_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    one = written(tmp_path, "in/one.txt", "x")
    os.link(one, tmp_path / "hard.txt")
    (tmp_path / "soft.txt").symlink_to(one)
    assert names(tmp_path)[0] == ["hard.txt"]
    assert len(list(scan([one, tmp_path, tmp_path / "in", one]))) == 1


def test_links_to_folders(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "else").mkdir()
    written(tmp_path, "a/b/x.txt", "x")
    written(tmp_path, "else/y.txt", "y")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "a" / "side").symlink_to("../else")
    (tmp_path / "a" / "gone").symlink_to("nowhere")
    files, lines = names(tmp_path / "a")
    assert files == ["b/x.txt"]
    assert lines == [
        "b/up: a link to a folder, not followed (see --follow)",
        "gone: a link that leads nowhere",
        "self: Too many levels of symbolic links",
        "side: a link to a folder, not followed (see --follow)",
    ]
    files, lines = names(tmp_path / "a", follow=True)
    assert files == ["b/x.txt", "side/y.txt"]
    assert "b/up: leads back to a folder it is in" in lines


def test_special_files_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.txt")
    (tmp_path / "null.txt").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.txt"))
        assert names(tmp_path) == (
            [],
            [
                "fifo.txt: a FIFO, not a file",
                "null.txt: a device, not a file",
                "socket.txt: a socket, not a file",
            ],
        )


@pytest.mark.timeout(20)
def test_a_fifo_in_a_files_place_does_not_wait(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "x")
    (file,) = scan([path])
    path.unlink()
    os.mkfifo(path)
    lines: list[str] = []
    assert list(read(file, None, Report(lines.append))) == []
    assert lines == [f"{path}: not a file any more"]


def test_a_file_that_vanishes_is_named_and_the_rest_read(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        written(tmp_path, name, name)
    lines: list[str] = []
    texts = []
    for document in documents([tmp_path], report=Report(lines.append)):
        texts.append(document.text)
        (tmp_path / "b.txt").unlink(missing_ok=True)
    assert texts == ["a.txt", "c.txt"]
    assert lines == [f"{tmp_path}/b.txt: No such file or directory"]


def test_a_file_that_keeps_growing_is_read_once_consistently_or_named(tmp_path: Path) -> None:
    path = written(tmp_path, "log.jsonl", '"first"\n"second"\n')
    seen = []
    for document in documents([path]):
        seen.append(document.text)
        with path.open("a") as file:
            file.write('"later"\n')
    assert seen == ["first", "second"]
    whole = written(tmp_path, "busy.txt", "x\n" * 500_000)
    stop = threading.Event()

    def grow() -> None:
        with whole.open("a") as file:
            while not stop.is_set():
                file.write("x\n")
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        got, lines = found(whole)
    finally:
        stop.set()
        writer.join()
    assert lines == ["busy.txt: changes while it is read"] or set(got[0].text) == {"x", "\n"}


def test_a_file_that_shrinks_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", '"text"\n' * 100_000)
    lines: list[str] = []
    for _ in documents([path], report=Report(lines.append)):
        os.truncate(path, 7)
    assert lines[-1] == f"{path}: became shorter while it was read"


def test_what_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nothing: No such file"):
        list(scan([tmp_path, tmp_path / "nothing"]))
    with pytest.raises(InputError, match="null"):
        list(scan([Path("a\0b")]))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    written(tmp_path, "a.txt", "x").chmod(0)
    (tmp_path / "b").mkdir(mode=0)
    try:
        _, lines = names(tmp_path)
        assert lines == ["b: cannot list it: Permission denied"]
        assert found(tmp_path / "a.txt")[1] == ["a.txt: Permission denied"]
    finally:
        (tmp_path / "b").chmod(0o700)


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9\n\x1b[31m.txt"
    with open(odd, "wb") as file:  # noqa: PTH123
        file.write(b"found")
    (document,) = documents([tmp_path])
    assert document.text == "found"
    assert document.source == rf"{tmp_path}/caf\xe9\n\x1b[31m.txt"
    document.source.encode()


def test_different_paths_are_shown_differently() -> None:
    alike = [b"\xe9", b"\\xe9", b"\\\xe9", "é".encode(), b"e\n", b"e\\n", "\u202e".encode()]
    shown = [printable_path(os.fsdecode(name)) for name in alike]
    assert len(set(shown)) == len(alike)
    assert all(name.isprintable() for name in shown)


def test_sources_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "a.txt", "x")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    (document,) = documents([Path("../a.txt")])
    assert document.source == source_name(tmp_path / "a.txt") == f"{tmp_path}/a.txt"


def test_stamps_prove_only_what_they_can(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "one")
    (fresh,) = scan([path])
    assert fresh.stamp == ""
    assert not fresh.unchanged("")

    def later() -> float:
        return time.time_ns() + 3_000_000_000

    with pytest.MonkeyPatch.context() as patched:
        now = later()
        patched.setattr(time, "time_ns", lambda: now)
        (settled,) = scan([path])
        assert settled.unchanged(settled.stamp)
        before = path.stat().st_mtime_ns
        os.utime(path, ns=(before, before))
        (touched,) = scan([path])
        assert not touched.unchanged(settled.stamp)  # the change's time cannot be set back
        assert not next(scan([path], Options(field="x"))).unchanged(touched.stamp)
        assert next(scan([path], Options(exclude=("x",)))).unchanged(touched.stamp)


def test_a_deep_tree_meets_no_recursion_limit(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 400)
    deep.mkdir(parents=True)
    written(deep, "deep.txt", "found")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 200)
    try:
        texts = [document.text for document in documents([tmp_path])]
    finally:
        sys.setrecursionlimit(limit)
    assert texts == ["found"]
