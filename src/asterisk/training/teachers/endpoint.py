"""Vectors from an OpenAI-compatible service, through the official client."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import EngineError, UsageError, one_line
from asterisk.common.plugins import require
from asterisk.training.teachers.blackbox import BudgetSpent, unit_rows
from asterisk.training.teachers.vector_files import is_vector

KEY = "ASTERISK_API_KEY"  # the environment variable that a key is read from
ATTEMPTS = 7
TIMEOUT = 60.0  # seconds without a byte
PATIENCE = 300.0  # seconds for a whole answer
LONGEST_ASKED = 600.0  # seconds that a service may ask us to wait
LARGEST = 64 << 20  # bytes of one answer
AGAIN = {408, 409, 425, 429}  # and every 5xx
NEAR = {"localhost", "127.0.0.1", "::1"}
Array = npt.NDArray[np.float32]


@dataclass
class Budget:
    """What may be asked for in one run, in texts and in the service's tokens; None is no end.

    Tokens are what the service says it counted; before it has said anything, and for services that
    do not, a third of the bytes.
    """

    texts: int | None = None
    tokens: int | None = None
    texts_used: int = 0
    tokens_used: float = 0.0
    _bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refusal(self, texts: int, size: int) -> str | None:
        """Return what forbids asking for ``texts`` more of ``size`` bytes, None if nothing does."""
        if self.texts is not None and self.texts_used + texts > self.texts:
            return f"{self.texts:,} texts"
        rate = self.tokens_used / self._bytes if self._bytes else 1 / 3
        if self.tokens is not None and self.tokens_used + rate * size > self.tokens:
            return f"{self.tokens:,} tokens"
        return None

    def spend(self, texts: int, size: int, tokens: int | None) -> None:
        """Note what one answer cost."""
        with self._lock:
            self.texts_used += texts
            self.tokens_used += size / 3 if tokens is None else tokens
            self._bytes += size


class Endpoint:
    """The vectors of the model that a service at ``base`` knows as ``model``.

    ``batch`` texts go into a request, ``at_once`` requests are in flight, ``per_minute`` start in a
    minute; ``dimensions`` asks models that can for shorter vectors. A key comes from the
    environment variable `KEY` alone and is shown to nobody else. EngineError where the service
    refuses, lies or stays away; BudgetSpent before a call to `sentences` that the budget does not
    cover whole.
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
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._base, self._model, self._dimensions = base.rstrip("/"), model, dimensions
        self._batch, self._budget = batch, budget or Budget()
        self._stopped = threading.Event()  # so that no thread outlives a failure by minutes
        self._sleep = sleep or self._stopped.wait
        self._key = os.environ.get(KEY, "").strip()
        check_address(self._base, secret=bool(self._key))
        self._openai, tenacity = require("openai", "train"), require("tenacity", "train")
        client = _http_client(self._key, trust_env=urlsplit(self._base).hostname not in NEAR)
        weakref.finalize(self, client.close)  # connections are not left to the collector
        self._client = self._openai.OpenAI(
            api_key=self._key or "none",
            base_url=self._base,
            max_retries=0,  # its own wait for two minutes at most, and silently
            http_client=client,
        )
        growing = tenacity.wait_exponential_jitter(initial=1, max=60)
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda failure: self._may_pass(failure) and retry_after(failure) <= LONGEST_ASKED
            ),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=lambda state: max(growing(state), retry_after(state.outcome.exception())),
            sleep=self._sleep,
            before_sleep=lambda state: tell(
                f"{self._base}: {self._said(state.outcome.exception())}; "
                f"again in {state.next_action.sleep:.0f} s"
            ),
            reraise=True,
        )
        self._pool = ThreadPoolExecutor(at_once)
        self._apart = 60 / per_minute if per_minute else 0.0
        self._turn, self._turns = 0.0, threading.Lock()
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
        asked = {"kind": "endpoint", "base": self._base, "model": self._model}
        return {**asked, "dimensions": self._dimensions}

    def sentences(self, start: int, texts: Sequence[str]) -> Array:  # noqa: ARG002
        """Return the vectors of texts, float32 [n, size], L2-normalised."""
        refusal = self._budget.refusal(len(texts), _bytes(texts))
        if refusal:
            raise BudgetSpent(
                f"the budget of {refusal} does not cover the next {len(texts):,} texts"
            )
        batches = [texts[i : i + self._batch] for i in range(0, len(texts), self._batch)]
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
            if (asked := retry_after(failure)) > LONGEST_ASKED:
                how = f"asks to wait {asked:.0f} seconds, go on later:"
            raise EngineError(f"{self._base} {how} {self._said(failure)}") from None
        except (ValueError, RecursionError):
            raise EngineError(f"{self._base} answered what is not JSON") from None
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list):
            raise EngineError(f"{self._base} answered without a list of data")
        usage = answer.get("usage")
        tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
        believable = type(tokens) is int and 0 <= tokens < 1 << 40
        self._budget.spend(len(texts), _bytes(texts), tokens if believable else None)
        items = [it for it in data if isinstance(it, dict) and type(it.get("index")) is int]
        by_index = {item["index"]: item.get("embedding") for item in items}
        if len(data) != len(texts) or set(by_index) != set(range(len(texts))):
            raise EngineError(f"{self._base} did not answer each of {len(texts)} texts once")
        vectors: list[Any] = [by_index[index] for index in range(len(texts))]
        if not all(map(is_vector, vectors)):
            raise EngineError(f"{self._base} answered a vector that is not a list of numbers")
        self._size = self._size or len(vectors[0])
        if any(len(vector) != self._size for vector in vectors):
            raise EngineError(f"{self._base} changed its dimensions from {self._size}")
        return unit_rows(np.array(vectors, "f8"), f"{self._base}'s answer", EngineError)

    def _post(self, texts: list[str]) -> bytes:
        """Ask once, when its turn comes; return the answer as it is: the client checks nothing."""
        with self._turns:
            begin = max(time.monotonic(), self._turn)
            self._turn = begin + self._apart
        if self._apart:
            self._sleep(max(0.0, begin - time.monotonic()))
        if self._stopped.is_set():
            raise EngineError(f"{self._base} is not asked any more")
        more = {} if self._dimensions is None else {"dimensions": self._dimensions}
        create = self._client.embeddings.with_raw_response.create
        answer = create(model=self._model, input=texts, encoding_format="float", **more)
        return bytes(answer.content)

    def _may_pass(self, failure: BaseException) -> bool:
        status = getattr(failure, "status_code", 0)
        lost = isinstance(failure, self._openai.APIConnectionError)
        return lost or status in AGAIN or status >= 500

    def _said(self, failure: Any) -> str:
        """Return what a failure tells, printable, short and without the key."""
        said = one_line(failure.__cause__ or failure)
        if isinstance(failure, self._openai.APIStatusError):
            body = failure.body
            message = body.get("message") if isinstance(body, dict) else body
            text = message if isinstance(message, str) else failure.response.text
            said = f"{failure.status_code} {re.sub('<[^>]*>', ' ', text[:2_000])}"
        message = said.replace(self._key, "***") if self._key else said
        return " ".join("".join(c if c.isprintable() else " " for c in message).split())[:300]


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
    if secret and parts.scheme == "http" and parts.hostname not in NEAR:
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
    """Return what the official client sends by: no redirects, answers bounded in size and time.

    Headers are our own: the client adds what system this is, and what stands in OPENAI_* variables.
    """
    import httpx2

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
