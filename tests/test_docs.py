"""The pages: every link leads somewhere, and every command, module and name in them exists."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

import asterisk.cli.common
from asterisk.cli.main import GROUPS, MODULES

ROOT = Path(__file__).resolve().parents[1]
PATTERNS = ("docs/*.md", "benchmarks/results/*.md", "examples/*/README.md")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for pattern in PATTERNS for page in sorted(ROOT.glob(pattern))),
]
MOST_WORDS = 20_000  # of docs/
every = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.M | re.S)


def blocks(page, *languages):
    """Yield the code blocks of a page in these languages, without their indent."""
    for indent, language, text in BLOCK.findall(page.read_text("utf-8")):
        if language in languages:
            yield "\n".join(line.removeprefix(indent) for line in text.splitlines())


def commands(page):
    """Yield the shell commands of a page, as lists of words."""
    for text in blocks(page, "", "sh", "console"):
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s(?:\||&&|>|<)\s|;\s", line.removeprefix("$ ")):
                try:
                    words = shlex.split(part, comments=True)
                except ValueError:
                    continue
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    del words[0]
                if words:
                    yield words[:-1] if words[-1] == "&" else words


def anchors(page):
    """Return what GitHub lets one link to in a page."""
    text = BLOCK.sub("", page.read_text("utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title)) for title in titles]
    return {title.lower().replace(" ", "-") for title in plain}


@every
def test_links_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text("utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


@every
def test_commands_are_what_the_parsers_take(page, monkeypatch, capsys):
    def parse_only(parser, command, argv):
        parser.parse_intermixed_args(argv)
        return 0

    names = {f"asterisk-{name}": name for group in GROUPS.values() for name in group}
    for words in commands(page):
        name = Path(words[0]).name
        if name not in names or "…" in words or "..." in words:
            continue
        module = importlib.import_module(f"asterisk.cli.{MODULES.get(names[name], names[name])}")
        monkeypatch.setattr(asterisk.cli.common, "run", parse_only)
        monkeypatch.setattr(module, "run", parse_only, raising=False)
        arguments = [word for word in words[1:] if word != "OPTIONS"]
        with contextlib.suppress(SystemExit):
            module.main(arguments)
        assert not capsys.readouterr().err, shlex.join(words)


@every
def test_modules_targets_and_files_of_commands_exist(page):
    made = (ROOT / "Makefile").read_text("utf-8")
    tox = (ROOT / "tox.ini").read_text("utf-8")
    for words in commands(page):
        name = Path(words[0]).name
        if (
            name in ("python", "python3")
            and words[1:2] == ["-m"]
            and words[2].split(".")[0]
            in (
                "asterisk",
                "benchmarks",
            )
        ):
            assert importlib.util.find_spec(words[2]), shlex.join(words)
        elif name == "make":
            for target in words[1:]:
                assert "=" in target or re.search(rf"^{target}:", made, re.M), shlex.join(words)
        elif name in ("pytest", "python") and len(words) > 1:
            for word in words[1:]:
                if word.startswith(("tests/", "benchmarks/", "examples/")):
                    assert (ROOT / word).exists(), shlex.join(words)
        elif name == "tox" and "-e" in words:
            assert f"[testenv:{words[words.index('-e') + 1]}]" in tox, shlex.join(words)


@every
def test_python_compiles_and_its_names_exist(page):
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asterisk."):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}: {alias.name}"
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "asterisk"
            ):
                assert node.attr in asterisk.__all__, node.attr


@every
def test_code_that_is_named_exists(page):
    text = page.read_text("utf-8")
    for path in re.findall(r"`((?:src|tests|benchmarks|examples|docs)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(asterisk(?:\.\w+)+)(?:\(.*?\))?`", text):
        if name.split(".")[1] not in ("exporters", "runtimes", "peers", "json"):  # or entry points
            assert resolve(name) is not None, name


def resolve(dotted):
    """Return the module, or the name in a module, that ``dotted`` says."""
    first, *rest = dotted.split(".")
    found = importlib.import_module(first)
    for at, part in enumerate(rest):
        try:
            found = importlib.import_module(".".join([first, *rest[: at + 1]]))
        except ModuleNotFoundError:
            found = getattr(found, part)
    return found


def test_the_docs_are_short():
    words = sum(len(page.read_text("utf-8").split()) for page in ROOT.glob("docs/*.md"))
    assert words <= MOST_WORDS


def test_every_page_is_in_the_index():
    listed = (ROOT / "docs" / "README.md").read_text("utf-8")
    for page in ROOT.glob("docs/*.md"):
        assert page.name == "README.md" or f"({page.name}" in listed, page.name


def test_versions_in_the_pages_are_the_pinned_ones():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pinned = dict(
        re.match(r"([\w.-]+)==([\w.]+)", line).groups()
        for lines in extras["optional-dependencies"].values()
        for line in lines
        if re.match(r"[\w.-]+==", line) and "peers" not in line
    )
    text = (ROOT / "docs" / "integrations.md").read_text("utf-8")
    for name, version in re.findall(r"\(([a-z-]+) ([\d.]+)\)", text):
        if name in ("langchain-core", "llama-index-core"):
            assert pinned[name] == version
    assert sys.version_info >= (3, 11)
