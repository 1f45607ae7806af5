"""The stand-in for a Raspberry Pi is what a deployment takes it for, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from deploy.conftest import pi

PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
CHILD = (
    "import subprocess; print(subprocess.run(['uname', '-m'], capture_output=True).stdout, "
    "'asimddp' in open('/proc/cpuinfo').read())"
)
pytestmark = [pytest.mark.sshd, pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(600)]


def test_it_is_a_64_bit_board_with_the_release_s_python(any_pi):
    board, release = any_pi
    done = board.ssh("uname -m; id -un; pwd; python3 -V; tr -d '\\0' < /proc/device-tree/model")
    assert done.stdout.decode().splitlines() == [
        *("aarch64", "pi", "/home/pi"),
        f"Python {done.stdout.decode().splitlines()[3].split()[1]}",
        "Raspberry Pi 4 Model B Rev 1.5",
    ]
    assert done.stdout.decode().splitlines()[3].startswith(f"Python {PYTHON[release]}.")
    assert done.returncode == 0


def test_a_process_that_its_python_starts_is_emulated_too(any_pi):
    board, _ = any_pi
    done = board.ssh(f'python3 -c "{CHILD}"')
    assert done.stdout.decode().split() == ["b'aarch64\\n'", "False"], done.stderr


def test_it_has_no_engine_no_numpy_and_no_openmp(any_pi):
    board, _ = any_pi
    for name in ("numpy", "onnxruntime", "pip", "ensurepip"):
        assert b"No module named" in board.ssh(f"python3 -m {name}").stderr
    assert board.ssh("find /usr/lib -name 'libgomp*'").stdout == b""


def test_statuses_and_streams_pass_through(any_pi):
    board, _ = any_pi
    assert board.ssh("exit 7").returncode == 7
    data = os.urandom(30 << 20)
    done = board.ssh("cat > stream && sha256sum < stream && rm stream", input=data)
    assert done.stdout.decode().split()[0] == hashlib.sha256(data).hexdigest()
    done = board.ssh("printf out; printf err >&2")
    assert (done.stdout, done.stderr) == (b"out", b"err")


def test_its_home_stays_between_sessions_and_its_system_cannot_be_written(any_pi):
    board, _ = any_pi
    assert board.ssh("mkdir -p ~/kept && echo here > ~/kept/file").returncode == 0
    assert board.ssh("cat ~/kept/file").stdout == b"here\n"
    assert (board.home / "kept" / "file").read_bytes() == b"here\n"
    for path in ("/usr/bin/x", "/etc/x", "/x"):
        assert board.ssh(f"touch {path}").returncode


def test_a_tar_is_pushed(any_pi, tmp_path):
    board, _ = any_pi
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "large").write_bytes(os.urandom(1 << 20))
    packed = subprocess.run(
        ["tar", "-c", "-C", tmp_path, "folder"], capture_output=True, check=True
    )
    done = board.ssh("mkdir -p pushed && tar -x -C pushed -f -", input=packed.stdout)
    assert done.returncode == 0, done.stderr
    there = board.home / "pushed" / "folder" / "large"
    assert there.read_bytes() == (tmp_path / "folder" / "large").read_bytes()


def test_a_full_disk_is_a_full_disk(tmp_path):
    with pi(tmp_path, "bookworm", "cortex-a72", size="4m") as board:
        assert b"No space left on device" in board.ssh("cat > x", input=bytes(5 << 20)).stderr
        assert board.ssh("rm x; printf less > x; cat x").stdout == b"less"


def test_another_processor_has_other_instructions(tmp_path):
    with pi(tmp_path, "bookworm", "cortex-a76") as board:
        assert b"asimddp" in board.ssh("cat /proc/cpuinfo").stdout


def test_nothing_is_left_mounted_registered_or_running(tmp_path):
    mounts = Path("/proc/self/mounts").read_bytes()
    with pi(tmp_path, "bookworm", "cortex-a72") as board:
        left = subprocess.Popen(
            ["ssh", "-F", str(board.server.config), "-T", "board", "sleep 300"],
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not board.board.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert board.board.processes()
        assert Path("/proc/self/mounts").read_bytes() == mounts
        holder = board.board.process.pid
    left.wait(30)
    assert board.board.processes() == []
    assert not Path(f"/proc/{holder}").exists()
    assert Path("/proc/self/mounts").read_bytes() == mounts
    assert not Path("/proc/sys/fs/binfmt_misc/asterisk-pi").exists()
