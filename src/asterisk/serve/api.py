"""The body of a request for embeddings, read into a value.

Source: https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from asterisk.serve.errors import ApiError

FIELDS = frozenset(("input", "model", "dimensions", "encoding_format", "user"))
LANGCHAIN = "check_embedding_ctx_length=False"

Item = str | list[int]
"""A text, or the token ids of one."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: an embedding of each item, the first ``dimensions`` of it."""

    items: list[Item]
    dimensions: int
    base64: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """What a request is checked against."""

    models: Collection[str]
    dimensions: int  # of a whole vector
    tokens: int  # ids below are tokens that a text can have
    texts: int  # in one request


def parse(body: bytes, rules: Rules) -> Request:
    """Read a body; ApiError with the API's own status and fields where it cannot be meant."""
    values = _object(body)
    for name in values:
        if name not in FIELDS:
            raise ApiError(400, f"Unrecognized request argument supplied: {_shown(name)}")
    _model(values, rules)
    _optional(values, "user", str, "a string")
    size = _optional(values, "dimensions", int, "an integer")
    if size is None:
        size = rules.dimensions
    elif not 1 <= size <= rules.dimensions:
        raise _wrong("dimensions", f"must be 1 to {rules.dimensions}")
    encoding = _optional(values, "encoding_format", str, "a string")
    if encoding not in (None, "float", "base64"):
        raise _wrong("encoding_format", "must be 'float' or 'base64'")
    if "input" not in values:
        raise ApiError(400, "You must provide an 'input' parameter.", param="input")
    return Request(_items(values["input"], rules), size, encoding == "base64")


def _object(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(
            body.decode(), object_pairs_hook=_unambiguous, parse_constant=_no_constant
        )
    except RecursionError:
        raise ApiError(400, "The body is not JSON: it is nested too deeply.") from None
    except ValueError:  # also UnicodeDecodeError, and integers of thousands of digits
        raise ApiError(400, "The body could not be parsed: it must be JSON in UTF-8.") from None
    if not isinstance(values, dict):
        raise ApiError(400, "The body must be a JSON object.")
    return values


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ApiError(400, "The body gives one name two values.")
    return values


def _no_constant(name: str) -> None:
    raise ApiError(400, f"The body is not JSON: {name} is no number there.")


def _model(values: dict[str, Any], rules: Rules) -> None:
    model = _optional(values, "model", str, "a string")
    if model is None:
        raise ApiError(400, "You must provide a model parameter", param="model")
    if model not in rules.models:
        known = " or ".join(repr(name) for name in rules.models)
        raise ApiError(
            404,
            f"The model {_shown(model)} does not exist here; it is {known}.",
            param="model",
            code="model_not_found",
        )


def _optional(values: dict[str, Any], name: str, kind: type, what: str) -> Any:
    value = values.get(name)
    if value is not None and type(value) is not kind:  # True is no integer here
        raise _wrong(name, f"must be {what}")
    return value


def _items(given: Any, rules: Rules) -> list[Item]:
    if isinstance(given, str):
        items: list[Any] = [given]
    elif not isinstance(given, list):
        raise _wrong("input", "must be a string, a list of strings or token ids")
    elif not given:
        raise _wrong("input", "must not be empty")
    elif type(given[0]) is int:
        items = [given]
    else:
        items = given
    if len(items) > rules.texts:
        raise _wrong("input", f"has {len(items)} entries; at most {rules.texts} are possible")
    kind = type(items[0])
    for item in items:
        if type(item) is not kind or kind not in (str, list):
            raise _wrong("input", "must be a string, a list of strings or token ids")
        if not item:
            raise _wrong("input", "must not have an empty text")
        if kind is list:
            _check_ids(item, rules.tokens)
    return items


def _check_ids(ids: list[Any], tokens: int) -> None:
    if not all(type(token) is int for token in ids):
        raise _wrong("input", "has token ids that are not integers")
    if min(ids) < 0 or max(ids) >= tokens:
        raise _wrong(
            "input",
            f"has a token id outside 0 to {tokens - 1}, so these are another tokenizer's ids. "
            f"Send texts; LangChain's OpenAIEmbeddings does with {LANGCHAIN}",
        )


def _wrong(name: str, why: str) -> ApiError:
    return ApiError(400, f"'{name}' {why}.", param=name)


def _shown(name: str) -> str:
    return repr(name if len(name) <= 64 else name[:64] + "…")
