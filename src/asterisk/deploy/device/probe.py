"""Says what a machine is, as one JSON line; standard library only.

Sent over ssh and run there, by whatever Python there is, so that even one that is far too old can
be named. Reads one JSON line ``{"prefix", "host", "port", "sudo", "unit"}`` first.
"""

import errno
import json
import os
import platform
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


def value_of(path: str, *names: str) -> str:
    """Return what stands after ``name:`` in a file of such lines; nothing where it does not."""
    for line in read(path).splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value
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
    lines = [line for line in read(path).splitlines() if line.startswith("ExecStart=")]
    words = lines[0][len("ExecStart=") :].split() if lines else []
    end = "/bin/asterisk-serve"
    if not words or not words[0].endswith(end):
        return {"unit": "", "serves": False, "unit_port": 0}
    folder = words[0][: -len(end)]
    port = words[words.index("--port") + 1 :][:1] if "--port" in words else []
    return {
        "unit": folder,
        "serves": os.path.realpath(folder) == os.path.realpath(prefix),
        "unit_port": int(port[0]) if port and port[0].isdecimal() and len(port[0]) < 6 else 0,
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
    asked = json.loads(sys.stdin.buffer.readline().decode())
    prefix = os.path.expanduser(asked["prefix"])  # noqa: PTH111
    library, version = platform.libc_ver()
    answer = {
        "system": platform.system(),
        "machine": platform.machine(),
        "bits": 8 * struct.calcsize("P"),
        "page_size": os.sysconf("SC_PAGE_SIZE"),
        "python": ".".join(map(str, sys.version_info[:2])),
        "implementation": platform.python_implementation(),
        "glibc": version if library == "glibc" else "",
        "memory": int(value_of("/proc/meminfo", "MemTotal").partition("kB")[0] or 0) * 1024,
        "dotprod": "asimddp" in value_of("/proc/cpuinfo", "Features", "flags").split(),
        "model": read("/proc/device-tree/model"),
        "prefix": prefix,
        "clock": time.time(),
        "systemd": os.path.isdir("/run/systemd/system"),  # noqa: PTH112
        "root": os.geteuid() == 0,
        "sudo": False,
        "busy": bool(asked["port"]) and busy(asked["host"], asked["port"]),
        "active": False,
        "limits": "memory" in read("/sys/fs/cgroup/cgroup.controllers").split(),
    }
    answer.update(disk(prefix))
    answer.update(served(asked["unit"], prefix))
    if asked["sudo"]:
        answer["sudo"] = output("sudo", "-n", "true") is not None
        if not answer["systemd"]:
            answer["systemd"] = output("systemctl", "is-system-running") is not None
        answer["active"] = output("systemctl", "is-active", UNIT) == "active"
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
