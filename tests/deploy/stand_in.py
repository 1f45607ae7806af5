"""A stand-in for a Raspberry Pi: arm64 userland under qemu, in namespaces of its own.

A board is one process that waits in a user and mount namespace where everything is mounted and qemu
is registered; its sessions join that namespace, become an ordinary user in another one and land in
the root that `benchmarks.board_root` made. When the board ends, all of it is gone: the
machine itself has no mount and no registered format of it. The processor is emulated, the kernel,
the page size and all times are this machine's.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

MODEL = "Raspberry Pi 4 Model B Rev 1.5"
SECONDS = 900  # more than any session may take
ELF = rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
# /proc is a folder of links into the real one, since a device tree cannot be mounted into that.
BOOT = """set -e
root=$1 home=$2 size=$3 registration=$4 model=$5
mount --bind "$root" "$root"
cd "$root"
mount -o remount,bind,ro "$root"
mount --rbind /proc .proc
mount -t binfmt_misc binfmt_misc .proc/sys/fs/binfmt_misc
cat "$registration" > .proc/sys/fs/binfmt_misc/register
mount -t tmpfs -o mode=0755 tmpfs proc
for entry in .proc/*; do ln -s "../$entry" "proc/${entry#.proc/}"; done
mkdir proc/device-tree
printf '%s\\0' "$model" > proc/device-tree/model
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs tmp
if [ -n "$size" ]; then mount -t tmpfs -o "mode=0755,size=$size" tmpfs home/pi
else mount --bind "$home" home/pi; fi
echo ready
exec cat
"""
SESSION = """#!/bin/sh
exec timeout --kill-after=5 {seconds} \\
  nsenter --user --mount --preserve-credentials --target {pid} -- \\
  env -i PATH="$PATH" QEMU_CPU={cpu} HOME=/home/pi USER=pi LOGNAME=pi SHELL=/bin/sh LANG=C.UTF-8 \\
  unshare --user --map-user=1000 --map-group=1000 --root={root} --wd=/home/pi -- \\
  /bin/sh -c 'PATH=/usr/local/bin:/usr/bin:/bin; export PATH; eval "$1"' sh \\
  "${{SSH_ORIGINAL_COMMAND:-exec sh}}"
"""
NEEDED = ("unshare", "nsenter", "mount", "timeout")


class Unfit(Exception):
    """This machine does not let a board start; the message is one line."""


class Board:
    """A running stand-in; ``session`` is a program that runs ``$SSH_ORIGINAL_COMMAND`` in it."""

    def __init__(
        self, made: Path, folder: Path, cpu: str, *, size: str = "", model: str = MODEL
    ) -> None:
        """Start it: ``made`` has the root and qemu; with ``size`` its home is no larger than that.

        ``folder`` is its own. Raises Unfit where the machine does not let it start.
        """
        for tool in NEEDED:
            if shutil.which(tool) is None:
                raise Unfit(f"{tool} is needed and is not here")
        home = folder / "home"
        home.mkdir(parents=True)
        registration = folder / "registration"
        path = os.fsencode(made / "qemu-aarch64")
        registration.write_bytes(b":asterisk-pi:M::" + ELF + b":" + MASK + b":" + path + b":F")
        root = str(made / "root")
        boot = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", BOOT, "sh", root]
        boot += [str(home), size, str(registration), model]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(boot, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            _, message = self.process.communicate()
            raise Unfit((message.strip().splitlines() or ["no answer"])[-1][:200])
        self.namespace = self._namespace(Path("/proc", str(self.process.pid)))
        # As this machine sees it, also where it is no folder of this machine.
        self.home = Path(f"/proc/{self.process.pid}/root{root}/home/pi")
        self.session = folder / "session"
        text = SESSION.format(
            seconds=SECONDS, pid=self.process.pid, cpu=cpu, root=shlex.quote(root)
        )
        self.session.write_text(text, "utf-8")
        self.session.chmod(0o755)

    @staticmethod
    def _namespace(process: Path) -> Path:
        return (process / "ns" / "mnt").readlink()

    def processes(self) -> list[int]:
        """Return the ids of the sessions' processes."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self._namespace(entry) == self.namespace:
                    found.append(int(entry.name))
        return [pid for pid in found if pid != self.process.pid]

    def kill(self) -> None:
        """End every session at once, as a power cut does."""
        while left := self.processes():
            # Stopped first, so that none of them sees another one end and cleans up after it.
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)

    def stop(self) -> None:
        """End it and all that runs in it."""
        self.kill()
        self.process.communicate()
