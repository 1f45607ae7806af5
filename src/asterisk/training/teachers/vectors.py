"""Vectors made elsewhere: from a file, or from an OpenAI-compatible service."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
import weakref
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from asterisk.common.corpus import digest
from asterisk.common.errors import AsteriskError, EngineError, InputError, UsageError, one_line
from asterisk.common.plugins import require
from asterisk.common.terminal import printable

LONGEST_LINE = 16 << 20  # bytes
KEY = "ASTERISK_API_KEY"  # the environment variable that a key is read from
ATTEMPTS = 7
TIMEOUT = 60.0  # seconds without a byte
PATIENCE = 300.0  # seconds for a whole answer
LONGEST_WAIT = 600.0  # seconds that a service may ask us to wait
LARGEST = 64 << 20  # bytes of one answer
RETRIED = {408, 409, 425, 429}  # and every 5xx
LOCAL = {"localhost", "127.0.0.1", "::1"}
Array = npt.NDArray[np.float32]


def unit_rows(values: npt.NDArray[Any], origin: str, failure: type[AsteriskError]) -> Array:
    """Return float32 rows of length 1; ``failure`` if one is not finite or has no direction."""
    rows = np.asarray(values, "f8")
    norms = np.linalg.norm(rows, axis=1)
    wrong = np.flatnonzero(~(np.isfinite(norms) & (norms > 1e-12)))
    if len(wrong):
        raise failure(f"{origin}: vector {wrong[0]} is zero or not finite")
    return np.asarray(rows / norms[:, None], "f4")


def is_vector(value: object) -> TypeGuard[list[float]]:
    """Tell whether a JSON value is a list of numbers, not empty."""
    numbers = value if isinstance(value, list) else []
    return bool(numbers) and all(type(x) in (int, float) and abs(x) < 1e30 for x in numbers)


class NpyRows:
    """A `.npy` of floats [``texts``, D], in the order of a part of a corpus; InputError if not."""

    def __init__(self, path: Path, texts: int) -> None:
        self._path = path
        try:
            values: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError, EOFError) as failure:
            raise InputError(f"cannot read {path}: {one_line(failure)}") from None
        if not isinstance(values, np.ndarray) or values.ndim != 2:
            raise InputError(f"{path} is not one array [texts, dimensions]")
        if values.dtype.kind != "f" or not values.shape[1]:
            raise InputError(f"{path} holds {values.dtype}, not floats")
        if len(values) != texts:
            raise InputError(
                f"{path} has {len(values):,} rows for {texts:,} texts: embed what "
                "asterisk-data --print-texts prints, in its order"
            )
        self.size, self._values = int(values.shape[1]), values
        self.identity = {"kind": "npy", "sha256": sha256}

    def sentences(self, start: int, texts: Sequence[str]) -> Array:
        """See `Teacher`."""
        rows = self._values[start : start + len(texts)]
        return unit_rows(rows, f"{self._path}, from row {start}", InputError)


class JsonLines:
    """Lines ``{"text": …, "embedding": […]}`` in any order, found by their text."""

    def __init__(self, path: Path) -> None:
        self._path = path
        digests, offsets = array("Q"), array("q")  # all that is held in memory
        sha256, offset = hashlib.sha256(), 0
        self.size = 0
        try:
            with path.open("rb") as file:
                lines = iter(lambda: file.readline(LONGEST_LINE + 1), b"")
                for number, line in enumerate(lines, 1):
                    sha256.update(line)
                    if line.strip():
                        text, vector = self._parse(line, f"{path}, line {number}")
                        self.size = self.size or len(vector)
                        digests.append(digest(text))
                        offsets.append(offset)
                    offset += len(line)
        except OSError as failure:
            raise InputError(f"cannot read {path}: {failure.strerror or failure}") from None
        if not digests:
            raise InputError(f"{path} holds no line")
        order = np.argsort(np.frombuffer(digests, "u8"), kind="stable")
        self._digests = np.frombuffer(digests, "u8")[order]
        self._offsets = np.frombuffer(offsets, "i8")[order]
        self.identity = {"kind": "jsonl", "sha256": sha256.hexdigest()}

    def sentences(self, start: int, texts: Sequence[str]) -> Array:
        """See `Teacher`."""
        rows = np.empty((len(texts), self.size), "f8")
        with self._path.open("rb") as file:
            for index, text in enumerate(texts):
                rows[index] = self._find(file, text, start + index)
        return unit_rows(rows, f"{self._path}, texts from {start}", InputError)

    def _find(self, file: Any, text: str, number: int) -> list[float]:
        key = np.uint64(digest(text))
        begin, end = (np.searchsorted(self._digests, key, side) for side in ("left", "right"))
        for offset in self._offsets[begin:end].tolist():
            file.seek(offset)
            found, vector = self._parse(file.readline(LONGEST_LINE + 1), str(self._path))
            if found == text:
                return vector
        shown = text if len(text) <= 80 else f"{text[:80]}…"
        raise InputError(f"{self._path} has no vector for text {number}, {shown!r}")

    def _parse(self, line: bytes, origin: str) -> tuple[str, list[float]]:
        if len(line) > LONGEST_LINE:
            raise InputError(f"{origin}: longer than {LONGEST_LINE >> 20} MB")
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{origin}: not JSON") from None
        record = record if isinstance(record, dict) else {}
        text, vector = record.get("text"), record.get("embedding")
        if not isinstance(text, str) or not is_vector(vector):
            raise InputError(f'{origin}: not {{"text": string, "embedding": [numbers]}}')
        if self.size and len(vector) != self.size:
            raise InputError(f"{origin}: {len(vector)} dimensions, not {self.size}")
        return text, vector


class BudgetSpent(AsteriskError):
    """A budget that does not cover the next texts; finished work stays."""


@dataclass
class Budget:
    """What may be asked for in one run, in texts and in the service's tokens; None is no limit."""

    texts: int | None = None
    tokens: int | None = None
    texts_used: int = 0
    tokens_used: float = 0.0
    _bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refusal(self, texts: int, size: int) -> str | None:
        """Return the limit that so many texts and bytes more would exceed, if any."""
        if self.texts is not None and self.texts_used + texts > self.texts:
            return f"{self.texts:,} texts"
        # Where a service has counted no tokens, they are a third of the bytes.
        rate = self.tokens_used / self._bytes if self._bytes else 1 / 3
        if self.tokens is not None and self.tokens_used + rate * size > self.tokens:
            return f"{self.tokens:,} tokens"
        return None

    def spend(self, texts: int, size: int, tokens: int | None) -> None:
        """Count the cost of one answer."""
        with self._lock:
            self.texts_used += texts
            self.tokens_used += size / 3 if tokens is None else tokens
            self._bytes += size


class Endpoint:
    """The vectors of ``model``, as the service at ``base`` names it.

    A request has ``batch`` texts; ``at_once`` requests are in flight, ``per_minute`` start in a
    minute. EngineError if the service refuses, lies or stays away; BudgetSpent before a call that
    the budget does not cover.
    """

    def __init__(
        self,
        base: str,
        model: str,
        *,
        batch: int = 64,
        at_once: int = 1,
        dimensions: int | None = None,
        per_minute: int | None = None,
        budget: Budget | None = None,
        sleep: Callable[[float], object] | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._base, self._batch, self._budget = base.rstrip("/"), batch, budget or Budget()
        settings = {"model": model, "dimensions": dimensions}
        self.identity: dict[str, Any] = {"kind": "endpoint", "base": self._base, **settings}
        self._settings = {name: value for name, value in settings.items() if value is not None}
        self._stopped = threading.Event()  # so that no thread outlives a failure by minutes
        self._sleep = sleep or self._stopped.wait
        self._key = os.environ.get(KEY, "").strip()
        check_address(self._base, secret=bool(self._key))
        self._openai, tenacity = require("openai", "train"), require("tenacity", "train")
        client = _http_client(self._key, trust_env=urlsplit(self._base).hostname not in LOCAL)
        weakref.finalize(self, client.close)  # connections are not left to the collector
        # Not its own retries: they wait for two minutes at most, and silently.
        options = {"api_key": self._key or "none", "base_url": self._base, "max_retries": 0}
        self._client = self._openai.OpenAI(**options, http_client=client)
        growing = tenacity.wait_exponential_jitter(initial=1, max=60)
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda failure: self._may_pass(failure) and retry_after(failure) <= LONGEST_WAIT
            ),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=lambda state: max(growing(state), retry_after(state.outcome.exception())),
            sleep=self._sleep,
            before_sleep=lambda state: report(
                f"{self._base}: {self._reason(state.outcome.exception())}; "
                f"again in {state.next_action.sleep:.0f} s"
            ),
            reraise=True,
        )
        self._pool = ThreadPoolExecutor(at_once)
        self._interval = 60 / per_minute if per_minute else 0.0
        self._turn, self._turns = 0.0, threading.Lock()
        self._size = 0

    @property
    def size(self) -> int:
        """See `Teacher`; found out by asking once."""
        if not self._size:
            self._ask(["dimensions"])
        return self._size

    def sentences(self, start: int, texts: Sequence[str]) -> Array:  # noqa: ARG002
        """See `Teacher`."""
        count = len(texts)
        if refusal := self._budget.refusal(count, _bytes(texts)):
            raise BudgetSpent(f"the budget of {refusal} does not cover the next {count:,} texts")
        batches = [texts[i : i + self._batch] for i in range(0, count, self._batch)]
        try:
            return np.concatenate(list(self._pool.map(self._ask, batches)))
        except BaseException:
            self._stopped.set()
            raise

    def _ask(self, texts: Sequence[str]) -> Array:
        try:
            answer = json.loads(self._retrying(self._post, list(texts)))
        except self._openai.OpenAIError as failure:
            how = f"failed {ATTEMPTS} times:" if self._may_pass(failure) else "answered"
            if (wait := retry_after(failure)) > LONGEST_WAIT:
                how = f"asks to wait {wait:.0f} seconds, go on later:"
            raise EngineError(f"{self._base} {how} {self._reason(failure)}") from None
        except (ValueError, RecursionError):
            raise EngineError(f"{self._base} answered what is not JSON") from None
        answer = answer if isinstance(answer, dict) else {}
        data, usage = answer.get("data"), answer.get("usage")
        if not isinstance(data, list):
            raise EngineError(f"{self._base} answered without a list of data")
        tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
        believable = type(tokens) is int and 0 <= tokens < 1 << 40
        self._budget.spend(len(texts), _bytes(texts), tokens if believable else None)
        items = [it for it in data if isinstance(it, dict) and type(it.get("index")) is int]
        items.sort(key=lambda item: item["index"])
        if len(data) != len(texts) or [item["index"] for item in items] != [*range(len(texts))]:
            raise EngineError(f"{self._base} did not answer each of {len(texts)} texts once")
        vectors: list[Any] = [item.get("embedding") for item in items]
        if not all(map(is_vector, vectors)):
            raise EngineError(f"{self._base} answered a vector that is not a list of numbers")
        self._size = self._size or len(vectors[0])
        if any(len(vector) != self._size for vector in vectors):
            raise EngineError(f"{self._base} changed its dimensions from {self._size}")
        return unit_rows(np.array(vectors, "f8"), f"{self._base}'s answer", EngineError)

    def _post(self, texts: list[str]) -> bytes:
        """Ask once, in turn; return the answer as it is."""
        with self._turns:
            begin = max(time.monotonic(), self._turn)
            self._turn = begin + self._interval
        if self._interval:
            self._sleep(max(0.0, begin - time.monotonic()))
        if self._stopped.is_set():
            raise EngineError(f"{self._base} is not asked any more")
        create = self._client.embeddings.with_raw_response.create
        return bytes(create(input=texts, encoding_format="float", **self._settings).content)

    def _may_pass(self, failure: BaseException) -> bool:
        status = getattr(failure, "status_code", 0)
        lost = isinstance(failure, self._openai.APIConnectionError)
        return lost or status in RETRIED or status >= 500

    def _reason(self, failure: Any) -> str:
        """Return a failure's message, short and without the key."""
        message = one_line(failure.__cause__ or failure)
        if isinstance(failure, self._openai.APIStatusError):
            body = failure.body
            text = body.get("message") if isinstance(body, dict) else body
            text = text if isinstance(text, str) else failure.response.text
            message = f"{failure.status_code} {re.sub('<[^>]*>', ' ', text[:2_000])}"
        if self._key:
            message = message.replace(self._key, "***")
        return printable(message)[:300]


def check_address(base: str, *, secret: bool) -> None:
    """UsageError for an address that holds a secret, or would send one in the open."""
    try:
        parts = urlsplit(base)
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError:
        raise UsageError("the teacher's address cannot be read") from None
    if not base.isprintable():
        raise UsageError("the teacher's address holds what cannot be printed")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("the teacher's address is not http:// or https:// and a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(f"the address must hold nothing but host and path: a key goes into {KEY}")
    if secret and parts.scheme == "http" and parts.hostname not in LOCAL:
        raise UsageError(f"{KEY} is not sent over plain http: use https")


def retry_after(failure: Any) -> float:
    """Return the seconds that a failed answer's ``Retry-After`` asks for, 0 if it does not."""
    asked = failure.response.headers.get("retry-after", "") if hasattr(failure, "response") else ""
    try:
        if asked.isascii() and asked.isdigit():
            return float(asked)
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except (ValueError, IndexError, TypeError, OverflowError):
        return 0.0


def _http_client(key: str, *, trust_env: bool) -> Any:
    """Return what the official client sends by: no redirects, answers bounded in size and time."""
    import httpx2

    # Our own: the client adds what system this is, and the OPENAI_* variables.
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers |= {"Accept-Encoding": "identity", "Content-Type": "application/json"}

    class Bounded(httpx2.Client):  # type: ignore[misc]
        def send(self, request: httpx2.Request, **_: Any) -> httpx2.Response:
            own = self.build_request(request.method, request.url, content=request.content)
            end = time.monotonic() + PATIENCE
            answer, content = super().send(own, stream=True), bytearray()
            try:
                for piece in answer.iter_raw():  # as sent: what is compressed could have any size
                    content += piece
                    if len(content) > LARGEST:
                        raise EngineError(f"{own.url} answered more than {LARGEST >> 20} MB")
                    if time.monotonic() > end:
                        raise httpx2.ReadTimeout(f"no whole answer in {PATIENCE:.0f} seconds")
            finally:
                answer.close()
            asked = {"retry-after": answer.headers.get("retry-after", "").strip()}
            status = answer.status_code
            return httpx2.Response(status, headers=asked, content=bytes(content), request=request)

    return Bounded(headers=headers, timeout=TIMEOUT, trust_env=trust_env)


def _bytes(texts: Sequence[str]) -> int:
    return sum(len(text.encode("utf-8", "replace")) for text in texts)
