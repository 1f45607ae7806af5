"""Bundles: real ones of each format within their limits, and manifests that lie."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sshd import running

from asterisk.artifact import open_artifact
from asterisk.bench.targets import Ssh, opened
from asterisk.cli import bundle as command
from asterisk.common.errors import ArtifactError, OutputError, UsageError
from asterisk.deploy import boards, bundle, libraries, wheels
from asterisk.deploy.device.manifest import (
    KEYS,
    Refusal,
    check_manifest,
    identity,
    parse_manifest,
)
from deploy import fake
from deploy.real import bundle_of, libgomp, wheels_of

FAST = 0  # of xz: an archive that is small enough so is smaller yet as it is shipped


@pytest.fixture(scope="session")
def exported(artifact_of, tmp_path_factory):
    """Artifacts of a checkpoint of the shipped shape, one a format."""
    out = tmp_path_factory.mktemp("artifacts")
    for format, recipe in (("tflite", "int8"), ("onnx", "int8"), ("gguf", "q8_0")):
        source = artifact_of(format, recipe)
        shutil.copytree(source, out / f"{format}-{recipe}", copy_function=os.link)
    return out


def real(exported, format):
    """Return the format's bundle for a Pi 4; skip where its wheels cannot be had."""
    wheels_of(format, "3.11")
    if format == "gguf":
        libgomp()
    (folder,) = exported.glob(f"{format}-*")
    return bundle_of(folder)


@pytest.mark.slow
@pytest.mark.parametrize("format", bundle.LIMITS)
def test_a_real_bundle(exported, tmp_path, monkeypatch, capsys, format):
    it = real(exported, format)
    if format != "tflite":  # which is collected a second time, and is the same
        monkeypatch.setattr(bundle, "collect", lambda *_: it)
    monkeypatch.setattr(bundle.write, "__defaults__", (FAST,))
    words = [str(exported), "--target", "pi4", "--format", format, "--out", str(tmp_path / "out")]
    assert command.main(words) == 0
    message = capsys.readouterr().out
    assert message.count("\n") == 1
    (target,) = (tmp_path / "out").iterdir()
    assert target.stat().st_size < bundle.LIMITS[format]
    recipe, size = it.manifest["recipe"], it.manifest["installed_bytes"]
    engine = wheels.required_by(format)[0].replace("==", " ")
    for part in (
        *(str(target), f"{target.stat().st_size / 1e6:.1f} MB", "Python 3.11", "threads 4"),
        *(
            f"installed {size / 1e6:.1f} MB",
            engine,
            f"{format} {recipe} (of 3; ",
        ),
    ):
        assert part in message
    if format == "tflite":
        is_unpacked_as_it_was_made(target, tmp_path, it)
    root, files = it.scratch.folder, it.files
    assert sum(files[name].stat().st_size for name in it.files) == size
    commands = ("embed", "verify", "search", "dedup", "demo", "serve", "bench")
    names = {f"asterisk-{name}" for name in commands} | {"python"}
    assert {path.name for path in (root / "bin").iterdir()} == names
    for part in ("tests", "f2py", "training", "exporters", "torch", "__pycache__", "quantization"):
        assert not [name for name in files if part in name.split("/")], part
    distributions = {name.split("/")[1] for name in files if ".dist-info/" in name}
    folders = {"onnxruntime": "onnxruntime"}  # in the package itself
    for name in distributions:
        place = folders.get(name.split("-")[0], name)
        licences = [path for path in files if path.startswith(f"site/{place}/")]
        assert any("LICEN" in path.upper() for path in licences), name
    natives = libraries.read_all(root)
    assert len(natives) > 5
    for found in natives.values():
        assert (found.machine, found.alignment >= 16384) == (libraries.AARCH64, True)
        assert found.versions.get("GLIBC", ()) <= (2, 36)
    assert (libraries.LIBGOMP in natives) == (format == "gguf")
    assert (f"lib/{libraries.LIBGOMP_LICENCE}" in files) == (format == "gguf")


def is_unpacked_as_it_was_made(target, folder, it):
    subprocess.run(["tar", "xf", target, "-C", folder], check=True)
    root = folder / bundle.TOP
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    assert set(files) == set(it.files) | {"install.py", "bundle.json"}
    assert parse_manifest(files["bundle.json"].read_bytes()) == it.manifest
    for name, entry in it.manifest["files"].items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == entry["sha256"]
        assert bool(files[name].stat().st_mode & 0o100) == entry["executable"]


def test_a_board_with_little_memory_is_told_so(artifact_of, monkeypatch):
    monkeypatch.setattr(wheels, "wheels", lambda *_: [])
    artifact = open_artifact(artifact_of("tflite", "int8"))
    it = bundle.collect(artifact, boards.BOARDS["zero2w"], "3.11")
    assert (it.manifest["threads"], it.manifest["max_memory"]) == (2, 128 << 20)
    for name in ("embed", "serve"):
        words = it.files[f"bin/asterisk-{name}"].read_text().splitlines()[-1]
        assert "--threads 2" in words
        assert f"--max-memory {128 << 20}" in words


@pytest.mark.slow
def test_the_package_in_it_runs_alone(exported, tmp_path):
    """On this machine's own numpy and engine: all of this project's own modules are there."""
    it = real(exported, "tflite")
    files = [name for name in it.files if name.startswith(("site/asterisk", "artifact/", "bin/"))]
    with (tmp_path / "it.tar").open("wb") as stream:
        bundle.write_parts(it, files, stream)
    subprocess.run(["tar", "xf", tmp_path / "it.tar", "-C", tmp_path], check=True)
    root = tmp_path / bundle.TOP
    helps = [[name, "--help"] for name in ("bench", "serve", "search", "dedup", "demo")]
    for words in (["verify", root / "artifact"], *helps):
        done = subprocess.run(
            [root / "bin" / f"asterisk-{words[0]}", *words[1:]],
            capture_output=True,
            text=True,
            check=False,
            env={"ASTERISK_PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [root / "bin" / "python", "-c", "import asterisk; print(asterisk.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        env={"ASTERISK_PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "PYTHONPATH": ""},
    )
    assert where.stdout.startswith(str(root))


@pytest.mark.parametrize("name", bundle.LAUNCHERS)
def test_a_launcher_gives_its_command_the_boards_options(name):
    options = import_module(f"asterisk.cli.{name}").parser().format_help()
    known = tuple(it for it in ("--threads", "--max-memory") if it in options)
    assert bundle.LAUNCHERS[name] == (() if name == "bench" else known)


def test_its_own_packages_come_first_and_the_benchmarks_before_them(tmp_path):
    root = tmp_path / "bundle"
    root.mkdir()
    bundle.write_launchers(root / "bin", "3.11", boards.BOARDS["pi4"])
    for name in ("bundle/site", "user", "pushed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "found.py").write_text(f"print({name!r})\n")
    (tmp_path / "user" / "alone.py").write_text("")
    settings = {"PYTHONPATH": str(tmp_path / "user"), "ASTERISK_PYTHON": sys.executable}

    def run(code, **more):
        words = [root / "bin" / "python", "-c", code]
        environment = {**settings, "PATH": "/usr/bin:/bin", **more}
        return subprocess.run(words, capture_output=True, text=True, check=True, env=environment)

    assert run("import found, alone").stdout == "bundle/site\n"
    assert run("import found", ASTERISK_PYTHONPATH=str(tmp_path / "pushed")).stdout == "pushed\n"


@pytest.mark.sshd
def test_the_benchmark_brings_its_own_package_to_a_bundle(tmp_path, monkeypatch):
    root = tmp_path / "bundle"
    package = root / "site" / "asterisk"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the one in the bundle')\n")
    bundle.write_launchers(root / "bin", "3.11", boards.BOARDS["pi4"])
    with running(tmp_path / "sshd", monkeypatch) as server:
        server.stop()
        server.start(environment={"PATH": os.environ["PATH"], "ASTERISK_PYTHON": sys.executable})
        there = Ssh("board", python=str(root / "bin" / "python"))
        with opened(there, tmp_path, keep=False) as session:
            assert session.describe(["numpy"])


# --- the archive -------------------------------------------------------------------------------


def test_the_same_bundle_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        bundle.write(fake.bundle(tmp_path / name), tmp_path / f"{name}.tar.xz")
    one, two = (tmp_path / f"{name}.tar.xz" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    with tarfile.open(one) as tar:
        members = tar.getmembers()
    assert [it.name for it in members[:2]] == [
        f"{bundle.TOP}/install.py",
        f"{bundle.TOP}/bundle.json",
    ]
    assert {(it.uid, it.gid, it.uname, it.mtime) for it in members} == {
        (0, 0, "", bundle.OLDEST_TIME)
    }
    assert all(it.isreg() for it in members)


def test_a_bundle_over_its_limit_leaves_nothing(tmp_path, monkeypatch):
    it = fake.bundle(tmp_path / "made")  # a megabyte of noise in it
    out = tmp_path / "out"
    monkeypatch.setitem(bundle.LIMITS, "tflite", 1_000_000)
    with pytest.raises(OutputError, match=r"1\.1 MB, over the 1 MB of a tflite bundle"):
        bundle.write(it, out / "it.tar.xz")
    assert list(out.iterdir()) == []


def test_a_file_that_changed_meanwhile_is_noticed(tmp_path):
    it = fake.bundle(tmp_path / "made")
    path = it.files["artifact/model.bin"]
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(ArtifactError, match=r"artifact/model\.bin has changed"):
        bundle.write(it, tmp_path / "it.tar.xz")
    assert not (tmp_path / "it.tar.xz").exists()


def test_only_what_is_named_travels(tmp_path):
    it = fake.bundle(tmp_path / "made")
    stream = io.BytesIO()
    bundle.write_parts(it, ["bin/python"], stream)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        names = tar.getnames()
    assert names == [f"{bundle.TOP}/{name}" for name in ("install.py", "bundle.json", "bin/python")]


# --- what is picked ----------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_picked(exported, artifact_of, toy_folder, tmp_path, monkeypatch):
    zero, five = boards.BOARDS["zero2w"], boards.BOARDS["pi5"]
    with bundle.choose_artifact(exported, five) as pick:
        assert (pick.artifact.manifest.format, pick.note) == ("tflite", "")
        assert "of 3; dotprod" in pick.why
    with bundle.choose_artifact(exported, five, "onnx") as pick:
        assert pick.artifact.manifest.format == "onnx"
    with bundle.choose_artifact(exported / "tflite-int8", five) as pick:
        assert (pick.why, pick.note) == ("as given", "")
    with bundle.choose_artifact(exported / "tflite-int8", zero) as pick:
        assert "int8-emb4 would suit a Raspberry Pi Zero 2 W better" in pick.note
        assert "\n" not in pick.note
    with (
        pytest.raises(UsageError, match="is tflite, not onnx"),
        bundle.choose_artifact(exported / "tflite-int8", five, "onnx"),
    ):
        pass
    with (
        pytest.raises(ArtifactError, match="is no artifact"),
        bundle.choose_artifact(tmp_path, five),
    ):
        pass

    def export(checkpoint, format, recipe, folder, progress):
        shutil.copytree(artifact_of(format, recipe), folder)
        return open_artifact(folder)

    monkeypatch.setattr("asterisk.exporters.export.export", export)
    with bundle.choose_artifact(toy_folder, zero) as pick:
        it = pick.artifact.manifest
        assert (it.format, it.recipe) == ("tflite", "int8-emb4")
        folder = pick.artifact.folder
        assert folder.is_dir()
    assert not folder.exists()


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    for words, status in (
        ([str(tmp_path), "--target", "pi4"], 5),
        ([str(tmp_path / "none"), "--target", "pi4"], 5),
        ([str(tmp_path), "--target", "pi4", "--format", "onxn"], 2),
    ):
        assert command.main([*words, *out]) == status
        message = capsys.readouterr()
        assert message.err.count("\n") == 1
    for words in ([str(tmp_path)], [str(tmp_path), "--target", "pi6"]):
        with pytest.raises(SystemExit):
            command.main([*words, *out])
    assert not (tmp_path / "out").exists()


# --- manifests that lie ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return fake.bundle(tmp_path_factory.mktemp("manifest") / "made").manifest


def refused(data):
    """Know that ``data`` is refused in one line, and return it."""
    with pytest.raises(Refusal) as device:
        parse_manifest(data)
    assert "\n" not in str(device.value)
    return str(device.value)


def test_a_right_manifest_is_read(manifest):
    data = json.dumps(manifest).encode()
    assert parse_manifest(data) == manifest


BAD_PATHS = (
    *("../site/x", "/etc/passwd", "site/../../x", "site//x", "site/./x", "site/", "site", ""),
    *("etc/passwd", "site/a\0b", "site/a\nb", "site\\x", "site/" + "x" * 600, "~/x", "site/é"),
    *("bundle.json", "install.py", "site/bin/../x", "artifact/model.bin/x", "bin"),
)


@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
def test_a_path_that_is_not_plain_is_refused(manifest, path):
    entry = {"sha256": "0" * 64, "size": 0, "executable": False}
    it = {**manifest, "files": {**manifest["files"], path: entry}}
    it["id"] = identity(it)
    assert "bundle.json" in refused(json.dumps(it).encode())


@settings(max_examples=80, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(["..", ".", "", "site", "bin", "x", "a\0", "a/b", "\u202e", " "]),
        min_size=1,
        max_size=5,
    )
)
def test_no_path_leaves_the_folder(manifest, parts):
    path = "/".join(parts)
    entry = {"sha256": "0" * 64, "size": 0, "executable": False}
    it = {**manifest, "files": {**manifest["files"], path: entry}}
    it["id"] = identity(it)
    try:
        check_manifest(it)
    except Refusal:
        return
    assert parts[0] in ("site", "bin")
    assert not {"..", ".", "", " ", "a\0", "\u202e"} & set(parts)
    assert Path("/p", path).resolve().is_relative_to("/p")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(key=st.sampled_from(sorted(KEYS)), value=JSON, sign=st.booleans())
def test_another_value_is_refused_or_harmless(manifest, key, value, sign):
    it = {**manifest, key: value}
    if sign and key != "id":
        it["id"] = identity(it)
    data = json.dumps(it).encode()
    try:
        found = parse_manifest(data)
    except Refusal:
        refused(data)
    else:
        assert set(found["files"]) == set(manifest["files"])
        assert sign or found == manifest


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.pop("threads"),
        lambda it: it.update(more=1),
        lambda it: it.update(schema=2),
        lambda it: it.update(schema=True),
        lambda it: it.update(threads=0),
        lambda it: it.update(max_memory=5),
        lambda it: it["files"]["bin/python"].update(size=1 << 60),
        lambda it: it["files"]["bin/python"].update(size=-1),
        lambda it: it["files"]["bin/python"].update(sha256="0" * 63),
        lambda it: it["files"]["bin/python"].update(executable=1),
        lambda it: it["files"].pop("bin/asterisk-verify"),
        lambda it: it["files"].clear(),
        lambda it: it.update(installed_bytes=1),
    ],
)
def test_other_lies(manifest, change):
    it = json.loads(json.dumps(manifest))
    change(it)
    it["id"] = identity(it)
    refused(json.dumps(it).encode())


def test_texts_that_are_no_manifest(manifest):
    data = json.dumps(manifest, indent=1).encode()
    twice = data.replace(b'"board"', b'"board": "pi3",\n "board"', 1)
    for text in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"schema": NaN}', twice, data[:-9]):
        refused(text)
    assert "id" in refused(data.replace(b'"threads": 2', b'"threads": 3'))
