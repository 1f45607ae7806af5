"""Vectors from an OpenAI-compatible service: ``POST {base}/embeddings``."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from asterisk.errors import EngineError, UsageError, one_line
from asterisk.plugins import require
from asterisk.teachers.blackbox import BudgetSpent, unit_rows
from asterisk.teachers.throttle import LONGEST_ASKED, Budget, Pace, back_off, retry_after
from asterisk.teachers.vector_files import is_vector

KEY = "ASTERISK_API_KEY"  # the environment variable that a key is read from
ATTEMPTS = 7
TIMEOUT = 60.0  # seconds without a byte
PATIENCE = 300.0  # seconds for a whole answer
LARGEST = 64 << 20  # bytes of one answer
AGAIN = {408, 409, 425, 429}  # and every 5xx
NEAR = {"localhost", "127.0.0.1", "::1"}
Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Asking:
    """How a service is asked: ``batch`` texts a request, ``at_once`` requests in flight.

    ``dimensions`` asks models that can for shorter vectors.
    """

    model: str
    batch: int = 64
    at_once: int = 1
    dimensions: int | None = None


class Endpoint:
    """A service's vectors; its answers are believed only after every check.

    A key comes from the environment variable `KEY` alone and is shown to nobody else. EngineError
    where the service refuses, lies or stays away; BudgetSpent before a call to `sentences` that
    the budget does not cover whole.
    """

    def __init__(
        self,
        base: str,
        asking: Asking,
        *,
        budget: Budget | None = None,
        pace: Pace | None = None,
        sleep: Callable[[float], object] | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._base, self._asking = base.rstrip("/"), asking
        self._budget, self._pace = budget or Budget(), pace or Pace()
        self._stopped = threading.Event()  # so that no thread outlives a failure by minutes
        self._sleep, self._tell = sleep or self._stopped.wait, tell
        self._key = os.environ.get(KEY, "").strip()
        check_address(self._base, secret=bool(self._key))
        self._httpx: Any = require("httpx", "train")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = self._httpx.Client(
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=TIMEOUT,
            follow_redirects=False,
            trust_env=urlsplit(self._base).hostname not in NEAR,
        )
        self._pool = ThreadPoolExecutor(asking.at_once)
        weakref.finalize(self, self._client.close)  # connections are not left to the collector
        self._size = 0

    @property
    def size(self) -> int:
        """How many dimensions there are; found out by asking once."""
        if not self._size:
            self._ask(["dimensions"])
        return self._size

    @property
    def identity(self) -> dict[str, Any]:
        """What the vectors depend on, as far as a service says."""
        return {
            "kind": "endpoint",
            "base": self._base,
            "model": self._asking.model,
            "dimensions": self._asking.dimensions,
        }

    def sentences(self, start: int, texts: Sequence[str]) -> Array:  # noqa: ARG002
        """Return the vectors of texts, float32 [n, size], L2-normalised."""
        refusal = self._budget.refusal(len(texts), _bytes(texts))
        if refusal:
            raise BudgetSpent(
                f"the budget of {refusal} does not cover the next {len(texts):,} texts"
            )
        step = self._asking.batch
        batches = [texts[i : i + step] for i in range(0, len(texts), step)]
        try:
            return np.concatenate(list(self._pool.map(self._ask, batches)))
        except BaseException:
            self._stopped.set()
            raise

    def _ask(self, texts: Sequence[str]) -> Array:
        body: dict[str, Any] = {
            "model": self._asking.model,
            "input": list(texts),
            "encoding_format": "float",
        }
        if self._asking.dimensions is not None:
            body["dimensions"] = self._asking.dimensions
        told = self._answer(json.dumps(body).encode())
        usage = told.get("usage")
        tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
        believable = type(tokens) is int and 0 <= tokens < 1 << 40
        self._budget.spend(len(texts), _bytes(texts), tokens if believable else None)
        return self._vectors(told, len(texts))

    def _answer(self, body: bytes) -> dict[str, Any]:
        """Return the service's answer, asking again where that may help."""
        for attempt in range(ATTEMPTS):
            self._pace.wait()
            if self._stopped.is_set():
                raise EngineError(f"{self._base} is not asked any more")
            asked, why = None, ""
            try:
                status, headers, content = self._post(body)
            except self._httpx.TransportError as failure:
                why = one_line(failure)
            except (self._httpx.HTTPError, self._httpx.InvalidURL) as failure:
                raise EngineError(f"{self._base}: {self._clean(one_line(failure))}") from None
            else:
                if status == 200:
                    return self._parsed(content)
                why = f"{status} {_message(content)}".strip()
                asked = retry_after(headers)
                if not (status in AGAIN or status >= 500):
                    raise EngineError(f"{self._base} answered {self._clean(why)}")
            if asked is not None and asked > LONGEST_ASKED:
                raise EngineError(f"{self._base} asks to wait {asked:.0f} seconds: go on later")
            if attempt + 1 < ATTEMPTS:
                wait = back_off(attempt, asked)
                self._tell(f"{self._base}: {self._clean(why)}; again in {wait:.0f} s")
                self._sleep(wait)
        raise EngineError(f"{self._base} failed {ATTEMPTS} times: {self._clean(why)}")

    def _post(self, body: bytes) -> tuple[int, Any, bytes]:
        headers = {"Content-Type": "application/json"}
        url = f"{self._base}/embeddings"
        end = time.monotonic() + PATIENCE
        with self._client.stream("POST", url, content=body, headers=headers) as answer:
            content = bytearray()
            for piece in answer.iter_raw():
                content += piece
                if len(content) > LARGEST:
                    raise EngineError(f"{self._base} answered more than {LARGEST >> 20} MB")
                if time.monotonic() > end:
                    raise self._httpx.ReadTimeout(f"no whole answer in {PATIENCE:.0f} seconds")
            return answer.status_code, answer.headers, bytes(content)

    def _parsed(self, content: bytes) -> dict[str, Any]:
        try:
            told = json.loads(content)
        except (ValueError, RecursionError):
            raise EngineError(f"{self._base} answered what is not JSON") from None
        if not isinstance(told, dict) or not isinstance(told.get("data"), list):
            raise EngineError(f"{self._base} answered without a list of data")
        return told

    def _vectors(self, told: dict[str, Any], count: int) -> Array:
        data = [item for item in told["data"] if isinstance(item, dict)]
        by_index = {item.get("index"): item.get("embedding") for item in data if _has_index(item)}
        if len(told["data"]) != count or set(by_index) != set(range(count)):
            raise EngineError(f"{self._base} did not answer each of {count} texts once")
        vectors = [one for index in range(count) if is_vector(one := by_index[index])]
        if len(vectors) < count:
            raise EngineError(f"{self._base} answered a vector that is not a list of numbers")
        self._size = self._size or len(vectors[0])
        if any(len(vector) != self._size for vector in vectors):
            raise EngineError(f"{self._base} changed its dimensions from {self._size}")
        return unit_rows(np.array(vectors, "f8"), f"{self._base}'s answer", EngineError)

    def _clean(self, said: str) -> str:
        """Return what a service said, printable, short and without the key."""
        told = said.replace(self._key, "***") if self._key else said
        printable = "".join(c if c.isprintable() else " " for c in told)
        return " ".join(printable.split())[:300]


def check_address(base: str, *, secret: bool) -> None:
    """UsageError for an address that holds a secret, or would send one in the open."""
    try:
        parts = urlsplit(base)
        _ = parts.port
    except ValueError:
        raise UsageError("the teacher's address cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("the teacher's address is not http:// or https:// and a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(f"the address must hold nothing but host and path: a key goes into {KEY}")
    if secret and parts.scheme == "http" and parts.hostname not in NEAR:
        raise UsageError(f"{KEY} is not sent over plain http: use https")


def _has_index(item: dict[str, Any]) -> bool:
    return type(item.get("index")) is int


def _bytes(texts: Sequence[str]) -> int:
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def _message(content: bytes) -> str:
    """Return what an OpenAI-like error says, or the first of any other text."""
    try:
        told = json.loads(content)
        error = told.get("error", told) if isinstance(told, dict) else told
        return str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, RecursionError):
        return re.sub(r"<[^>]*>", " ", content[:2_000].decode("utf-8", "replace"))
