"""Another process's memory and CPU time, measured while it works."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

_INTERVAL = 0.25  # seconds


@dataclass
class ProcessMonitor:
    """A process's memory in bytes, each the highest seen, and the CPU seconds it took meanwhile.

    USS are the pages that no other process has, PSS counts a shared page by its share, and RSS in
    full. Alone on a device a process has the pages to itself that it shares here, so its PSS there
    lies between PSS and RSS here. Source: proc_pid_smaps_rollup(5), proc_pid_stat(5).
    """

    pid: int
    uss: int = 0
    pss: int = 0
    rss: int = 0
    cpu: float = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        begin = self._cpu()
        while True:
            fields = self._memory()
            self.rss = max(self.rss, fields["Rss"])
            self.pss = max(self.pss, fields["Pss"])
            self.uss = max(self.uss, fields["Private_Clean"] + fields["Private_Dirty"])
            self.cpu = self._cpu() - begin
            await asyncio.sleep(_INTERVAL)

    def _memory(self) -> dict[str, int]:
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]
        fields = (line.partition(":") for line in lines)
        return {name: int(rest.split()[0]) << 10 for name, _, rest in fields}

    def _cpu(self) -> float:
        after_name = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    def summary(self, answers: int) -> str:
        """Return one line; CPU time by the number of ``answers``."""
        sizes = (("USS", self.uss), ("PSS", self.pss), ("RSS", self.rss))
        line = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes)
        each = self.cpu / max(answers, 1) * 1e3
        return f"server: {line}, CPU {self.cpu:.2f} s, {each:.2f} ms a request"
