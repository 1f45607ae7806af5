"""What Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

__all__ = ["CONTENT_TYPE", "Metrics"]

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_SMAPS = Path("/proc/self/smaps_rollup")


class Metrics:
    """Counts since the start; ``about`` labels what is served."""

    def __init__(self, about: Mapping[str, str]) -> None:
        disable_created_metrics()
        registry = self._registry = CollectorRegistry()
        labels = {name: value.encode(errors="replace").decode() for name, value in about.items()}
        Info("asterisk", "What is served.", registry=registry).info(labels)
        self.requests = Counter(
            "asterisk_requests",
            "Requests answered, by path and status; 499 is a client that hung up.",
            ("path", "status"),
            registry=registry,
        )
        self.rejected = Counter(
            "asterisk_rejected",
            "Requests and connections refused for want of room or time.",
            ("reason",),
            registry=registry,
        )

        def counter(name: str, help: str) -> Counter:
            return Counter(f"asterisk_{name}", help, registry=registry)

        self.texts = counter("texts", "Texts embedded.")
        self.tokens = counter("tokens", "Tokens embedded.")
        self.truncated = counter("truncated_texts", "Texts cut.")
        self.ignored = counter("ignored_fields", "Fields of requests that are not known here.")
        self.seconds = Histogram(
            "asterisk_request_seconds",
            "From a request's head to its vectors.",
            buckets=BUCKETS,
            registry=registry,
        )
        ProcessCollector(registry=registry)
        if _SMAPS.exists():
            self.gauge("asterisk_pss_bytes", "Memory, shared pages by share.", _pss)

    def gauge(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Add a figure that is asked for at each scrape."""
        Gauge(name, help, registry=self._registry).set_function(value)

    def render(self) -> bytes:
        """Return the page, of type `CONTENT_TYPE`."""
        page: bytes = generate_latest(self._registry)
        return page


def _pss() -> float:
    lines = _SMAPS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
