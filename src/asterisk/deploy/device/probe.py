"""Says what a machine is, as one JSON line; standard library only.

Sent over ssh and run there, by whatever Python there is, so that even one that is far too old can
be named. Reads one JSON line ``{"prefix", "host", "port", "sudo", "unit"}`` first.
"""

import errno
import json
import os
import platform
import re
import socket
import struct
import subprocess
import sys
import time

UNIT = "asterisk.service"


def read(path: str) -> str:
    """Return the text of a small file; nothing where it cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read(1 << 16).decode("utf-8", "replace").strip("\0 \n")
    except OSError:
        return ""


def output(*words: str) -> object:
    """Return what a program prints, or None where it is not there or fails."""
    null = subprocess.DEVNULL
    try:
        out = subprocess.check_output(words, stdin=null, stderr=null, timeout=15)
    except (OSError, subprocess.SubprocessError):
        return None
    return out.decode("utf-8", "replace").strip()


def disk(prefix: str) -> "dict[str, object]":
    """Return of the folder where ``prefix`` would be made the free bytes, and if one may write."""
    nearest = prefix
    while not os.path.lexists(nearest) and nearest != "/":
        nearest = os.path.dirname(nearest)  # noqa: PTH120
    try:
        state = os.statvfs(nearest)
    except OSError:
        return {"free": 0, "writable": False}
    writable = os.path.isdir(nearest) and os.access(nearest, os.W_OK | os.X_OK)  # noqa: PTH112
    return {"free": state.f_bavail * state.f_frsize, "writable": writable}


def served(path: str, prefix: str) -> "dict[str, object]":
    """Return from which prefix a unit serves, if that is ``prefix``, and its port; or nothing."""
    unit = re.search(r"^ExecStart=(\S*)/bin/asterisk-serve(?= |$)(.*)", read(path), re.MULTILINE)
    folder, options = unit.groups() if unit else ("", "")
    port = re.search(r" --port (\d{1,5})(?= |$)", options)
    return {
        "unit": folder,
        "serves": bool(unit) and os.path.realpath(folder) == os.path.realpath(prefix),
        "unit_port": int(port.group(1)) if port else 0,
    }


def busy(host: str, port: int) -> bool:
    """Whether something already listens on a port of this machine's address ``host``."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as it:
        it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            it.bind((host, port))
        except OSError as failure:
            return failure.errno == errno.EADDRINUSE
    return False


def main() -> None:
    """Read the question, answer it."""
    question = json.loads(sys.stdin.buffer.readline().decode())
    prefix = os.path.expanduser(question["prefix"])  # noqa: PTH111
    library, version = platform.libc_ver()
    answer = {
        "system": platform.system(),
        "machine": platform.machine(),
        "bits": 8 * struct.calcsize("P"),
        "page_size": os.sysconf("SC_PAGE_SIZE"),
        "python": ".".join(map(str, sys.version_info[:2])),
        "implementation": platform.python_implementation(),
        "glibc": version if library == "glibc" else "",
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "dotprod": "asimddp" in read("/proc/cpuinfo").split(),
        "model": read("/proc/device-tree/model"),
        "prefix": prefix,
        "clock": time.time(),
        "systemd": os.path.isdir("/run/systemd/system"),  # noqa: PTH112
        "root": os.geteuid() == 0,
        "sudo": False,
        "busy": bool(question["port"]) and busy(question["host"], question["port"]),
        "active": False,
        "limits": "memory" in read("/sys/fs/cgroup/cgroup.controllers").split(),
    }
    answer.update(disk(prefix))
    answer.update(served(question["unit"], prefix))
    if question["sudo"]:
        answer["sudo"] = output("sudo", "-n", "true") is not None
        if not answer["systemd"]:
            answer["systemd"] = output("systemctl", "is-system-running") is not None
        answer["active"] = output("systemctl", "is-active", UNIT) == "active"
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
