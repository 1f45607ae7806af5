"""Wheels for another machine: from the index once, from the cache after that."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from asterisk.common.errors import EngineError, UsageError
from asterisk.deploy import boards, wheels
from deploy.real import wheels_of


def test_requirements_are_pinned_and_follow_the_project():
    for format in boards.FORMATS:
        asked = wheels.requirements(format)
        assert all("==" in line for line in asked), asked
        assert asked[0].startswith("numpy==")
        assert any(line.startswith("uvicorn==") for line in asked)
    with pytest.raises(UsageError, match="tflite, onnx, gguf"):
        wheels.requirements("torch")


def test_another_python_is_refused():
    with pytest.raises(UsageError, match=r"3\.11 and 3\.13, not 3\.12"):
        wheels.wheels(["numpy==2.4.6"], "3.12")


def test_without_an_index_there_is_one_line_and_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(EngineError, match="cannot be downloaded") as caught:
        wheels.wheels(["numpy==2.4.6"], "3.11")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# What they require is pinned as well, but for what only other parts of them import.
UNUSED = {
    *("flatbuffers", "protobuf", "ml-dtypes", "tqdm", "packaging", "backports-strenum"),
    "huggingface-hub",
}


@pytest.mark.parametrize("format", boards.FORMATS)
def test_what_devices_need_is_pinned_with_all_that_it_requires(format):
    asked = wheels.requirements(format, "tokenizer.json")
    names = {Requirement(line).name for line in asked}
    for name in names:
        for line in distribution(name).requires or ():
            inner = Requirement(line)
            if inner.marker is None or inner.marker.evaluate({"python_version": "3.11"}):
                assert canonicalize_name(inner.name) in names | UNUSED, name


@pytest.mark.slow
@pytest.mark.parametrize("python", wheels.PYTHONS)
def test_the_devices_wheels_and_the_second_time_without_an_index(python, monkeypatch):
    found = wheels_of("tflite", python)
    names = {path.name.split("-")[0].lower() for path in found}
    assert {"numpy", "ai_edge_litert", "uvicorn", "click", "h11"} <= names
    tag = f"cp{python.replace('.', '')}"
    for path in found:
        assert path.name.endswith(("none-any.whl", "aarch64.whl")), path.name
        assert tag in path.name or "-none-any" in path.name or "abi3" in path.name
    assert len(found) == len(wheels.requirements("tflite"))  # and nothing that these would bring
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert wheels_of("tflite", python) == found


def wheel(folder, name="toy", **files):
    """Write a small wheel with a right RECORD."""
    info = f"{name}-1.0.dist-info"
    contents = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/licenses/LICENSE": b"free",
        **files,
    }
    record = ""
    for path, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        record += f"{path},sha256={digest},{len(data)}\n"
    target = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, data in contents.items():
            archive.writestr(path, data)
        archive.writestr(f"{info}/RECORD", record)
    return target


def test_unpacking_keeps_what_runs_and_licences(tmp_path):
    kept = {"toy/__init__.py": b"", "toy/NOTICE.txt": b"", "toy/tests/LICENSE": b""}
    dropped = {"toy/tests/test_it.py": b"", "toy/it.pyi": b"", "toy/it.h": b""}
    it = wheel(tmp_path, **kept, **dropped)
    assert wheels.unpack(it, tmp_path / "site") == ("toy", "1.0")
    found = {
        path.relative_to(tmp_path / "site").as_posix()
        for path in (tmp_path / "site").rglob("*")
        if path.is_file()
    }
    info = {"toy-1.0.dist-info/METADATA", "toy-1.0.dist-info/licenses/LICENSE"}
    assert found == set(kept) | info


@pytest.mark.parametrize("name", ["../out.py", "/out.py", "a/../../out.py", "a\\..\\out.py"])
def test_a_wheel_whose_names_leave_the_folder_is_refused(tmp_path, name):
    it = wheel(tmp_path, **{name: b"x"})
    with pytest.raises(EngineError, match="a file called") as caught:
        wheels.unpack(it, tmp_path / "inner" / "site")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("out.py"))


def test_a_damaged_wheel_is_refused(tmp_path):
    it = wheel(tmp_path, **{"toy/it.py": b"print('what was released')"})
    data = it.read_bytes()
    it.write_bytes(data.replace(b"what was released", b"what was replaced"))
    with pytest.raises(EngineError, match="toy"):
        wheels.unpack(it, tmp_path / "site")
    it.write_bytes(data[: len(data) // 2])
    with pytest.raises(EngineError, match="is not a wheel: remove"):
        wheels.unpack(it, tmp_path / "again")
