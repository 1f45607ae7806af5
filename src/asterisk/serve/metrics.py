"""What Prometheus scrapes, in its text format.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_SMAPS = Path("/proc/self/smaps_rollup")
_STATUS = Path("/proc/self/status")


class Metrics:
    """Counts since the start. All of it belongs to the event loop's thread."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()  # path, status
        self.rejected: Counter[str] = Counter()  # why
        self.texts = 0
        self.tokens = 0
        self.truncated = 0
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def took(self, seconds: float) -> None:
        """Count a request for embeddings that was answered with vectors."""
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def render(
        self,
        *,
        queue: int,
        held: int,
        answers: int,
        connections: int,
        started: float,
        about: Mapping[str, str],
    ) -> bytes:
        """Return the page; ``queue`` is in texts, ``held`` and ``answers`` in bytes.

        ``started`` is in seconds since 1970, ``about`` what a scrape is labelled with.
        """
        lines: list[str] = []
        info = ",".join(f"{name}={_quoted(value)}" for name, value in about.items())
        _add(lines, "asterisk_info", "gauge", "What is served.", [(f"{{{info}}}", 1)])
        _add(
            lines,
            "asterisk_requests_total",
            "counter",
            "Requests answered, by path and status; 499 is a client that hung up, path none a "
            "request or connection refused before it had one.",
            (
                (f"{{path={_quoted(path)},status={_quoted(status)}}}", count)
                for (path, status), count in sorted(self.requests.items())
            ),
        )
        _add(
            lines,
            "asterisk_rejected_total",
            "counter",
            "Requests and connections refused for want of room or time.",
            (
                (f"{{reason={_quoted(reason)}}}", count)
                for reason, count in sorted(self.rejected.items())
            ),
        )
        for name, kind, help, value in (
            ("asterisk_texts_total", "counter", "Texts embedded.", self.texts),
            ("asterisk_tokens_total", "counter", "Tokens embedded.", self.tokens),
            ("asterisk_truncated_texts_total", "counter", "Texts cut.", self.truncated),
            ("asterisk_queue_texts", "gauge", "Texts waiting for a worker.", queue),
            ("asterisk_body_bytes", "gauge", "Bodies of requests not yet answered.", held),
            ("asterisk_answer_bytes", "gauge", "Answers being made or not yet read.", answers),
            ("asterisk_connections", "gauge", "Open connections.", connections),
            ("process_start_time_seconds", "gauge", "Start, since 1970.", round(started, 3)),
        ):
            _add(lines, name, kind, help, [("", value)])
        self._add_latency(lines)
        for name, help, size in (
            ("process_resident_memory_bytes", "Resident memory.", _kib(_STATUS, "VmRSS:")),
            ("asterisk_pss_bytes", "Memory, shared pages by share.", _kib(_SMAPS, "Pss:")),
        ):
            if size is not None:
                _add(lines, name, "gauge", help, [("", size * 1024)])
        return "".join(f"{line}\n" for line in lines).encode()

    def _add_latency(self, lines: list[str]) -> None:
        name = "asterisk_request_seconds"
        values: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._buckets, strict=True):
            total += count
            values.append((f'_bucket{{le="{bound}"}}', total))
        values += [("_sum", round(self._seconds, 6)), ("_count", total)]
        _add(lines, name, "histogram", "From a request's head to its vectors.", values)


def _add(
    lines: list[str], name: str, kind: str, help: str, values: Iterable[tuple[str, float]]
) -> None:
    lines += [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{labels} {value}" for labels, value in values]


def _quoted(value: str) -> str:
    value = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{value.encode(errors="replace").decode()}"'


def _kib(path: Path, field: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    return None
