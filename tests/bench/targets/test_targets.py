"""Targets as text, and this machine as a target."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asterisk.bench import machine
from asterisk.bench.targets import (
    ARM,
    X86,
    Emulated,
    Local,
    Session,
    Ssh,
    TargetError,
    opened,
    parse_all,
    parse_target,
)
from asterisk.cli.bench import main
from asterisk.common import ssh as client
from asterisk.common.errors import UsageError

NUMBERS = st.lists(st.integers(1, 256), max_size=4).map(lambda some: tuple(sorted(set(some))))
WORDS = st.text("abcXYZ019._-", min_size=1, max_size=12)
HOSTS = WORDS.filter(lambda host: host[0] not in "._-") | st.sampled_from(["::1", "fe80::1:2"])
USERS = WORDS.filter(lambda user: user[0] not in "019.-") | st.just("")
PYTHONS = st.sampled_from(["python3", "python3.13", "/usr/bin/python3", "/home/a-b/v_1/bin/python"])
TARGETS = (
    st.builds(Local, NUMBERS, NUMBERS)
    | st.builds(Ssh, HOSTS, USERS, st.integers(0, 65535), PYTHONS, NUMBERS, NUMBERS)
    | st.builds(Emulated, st.sampled_from((*ARM, *X86)))
)


@given(TARGETS)
def test_a_target_comes_back_from_its_text(target):
    assert parse_target(str(target)) == target


def test_what_people_write():
    assert parse_target("local") == Local()
    assert parse_target("local:threads=1,cpus=0-2+5") == Local((1,), (0, 1, 2, 5))
    assert parse_target("ssh://pi@pi5:2222") == Ssh("pi5", "pi", 2222)
    assert parse_target("ssh://[::1]:22?python=/v/bin/python&threads=4") == Ssh(
        "::1", "", 22, "/v/bin/python", (4,)
    )
    assert parse_target("emu:a72") == parse_target("emu:cortex-a72") == Emulated("cortex-a72")
    assert parse_target("emu:haswell") == Emulated("haswell")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "locally",
        "local:",
        "local:threads=0",
        "local:threads=1,threads=2",
        "local:cpus=3-1",
        "local:cpus=0-99999",
        "local:speed=9",
        "emu:",
        "emu:pentium",
        "emu:cortex-cortex-a72",
        "ssh://",
        "ssh://-oProxyCommand=touch${IFS}x",
        "ssh://a@-oProxyCommand=x",
        "ssh://-lroot@host",
        "ssh://a b@host",
        "ssh://host;reboot",
        "ssh://host`x`",
        "ssh://host:",
        "ssh://host:0",
        "ssh://host:65536",
        "ssh://host:22x",
        "ssh://host:２２",
        "ssh://a@b@c",
        "ssh://host/path",
        "ssh://host?python=../x",
        "ssh://host?python=/a/../b",
        "ssh://host?python=/a b",
        "ssh://host?python=/a;b",
        "ssh://host?ProxyCommand=x",
        "ssh://host?",
        "ssh://[::1",
        "ssh://[fe80::1%eth0;x]x",
        "ssh://host\n-oX",
        "SSH://host",
    ],
)
def test_what_is_refused_is_one_line(text):
    with pytest.raises(UsageError) as caught:
        parse_target(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40) | st.text("-oPrxyCmand= @:;$`'\"\n?&/[]ssh", max_size=30))
@example("-oProxyCommand=id")
@example("a@-oProxyCommand=id")
def test_no_address_becomes_an_option_or_a_word_of_the_shell(text):
    try:
        target = parse_target(f"ssh://{text}")
    except UsageError as refused:
        assert "\n" not in str(refused)  # noqa: PT017
        return
    assert isinstance(target, Ssh)
    words = client.arguments(target, ["x"])
    end = words.index("--")
    assert words[end:] == ["--", target.host, "x"]
    fixed = ["ssh", "-T", *(part for option in client.OPTIONS for part in ("-o", option))]
    told = words[len(fixed) : end]
    assert words[: len(fixed)] == fixed
    assert told == [
        *(["-l", target.user] if target.user else []),
        *(["-p", str(target.port)] if target.port else []),
    ]
    for value in (target.host, target.user, target.python):
        assert not value.startswith("-")
        assert not set(value) & set(" \t\n;|&$`'\"\\<>(){}*?!~#%=,@")


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_a_remote_command_is_words_and_nothing_else(words):
    import shlex

    *_, command = client.arguments(Ssh("host"), words)
    assert shlex.split(command) == words


def test_host_keys_are_never_left_unchecked():
    told = " ".join(client.arguments(Ssh("host"), ["true"]))
    assert "BatchMode=yes" in told
    for word in ("StrictHostKeyChecking", "UserKnownHostsFile", "ProxyCommand"):
        assert word not in told


def test_a_target_is_named_once():
    with pytest.raises(UsageError, match="named twice"):
        parse_all(["emu:a53", "local", "emu:cortex-a53"])


ASKING = """
import os

class Encoder:
    def encode(self, texts):
        raise ValueError(f"on {sorted(os.sched_getaffinity(0))}")

def asking(path, threads):
    return Encoder()
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process")
def test_a_worker_runs_on_the_cpus_that_were_named(tmp_path, monkeypatch):
    from asterisk.bench.process import CellError

    (tmp_path / "asking_rows.py").write_text(ASKING, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    last = max(os.sched_getaffinity(0))
    spec = {"kind": "throughput", "opener": "asking_rows:asking", "path": ".", "modules": []}
    spec |= {"threads": 1, "first": "x"}
    before = os.sched_getaffinity(0)
    with (
        opened(parse_target(f"local:cpus={last}"), tmp_path, keep=False) as here,
        pytest.raises(CellError, match=rf"on \[{last}\]"),
    ):
        here.ask("asterisk.bench.worker", spec, 60)
    assert os.sched_getaffinity(0) == before


def test_a_cpu_that_is_not_here_is_one_line():
    with pytest.raises(TargetError, match=r"there is no CPU 250; there are: \d"):
        Session(parse_target("local:cpus=250"))


def test_a_system_that_binds_no_process_says_so(monkeypatch):
    monkeypatch.setattr(machine, "cpus", lambda: None)
    with pytest.raises(TargetError, match="cannot keep a process on chosen CPUs"):
        Session(parse_target("local:cpus=0"))
    Session(parse_target("local:threads=2"))


def test_a_wrong_target_is_refused_before_anything_is_done(capsys):
    assert main(["--target", "ssh://-oProxyCommand=x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
