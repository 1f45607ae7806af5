"""The body of a request for embeddings, read into a value.

Source: https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from asterisk.roles import ROLES, prompt_name_of
from asterisk.serve.errors import ApiError

FIELDS = frozenset(("input", "model", "dimensions", "encoding_format", "user", "input_type"))
LANGCHAIN = "check_embedding_ctx_length=False"

Item = str | list[int]
"""A text, or the token ids of one."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: an embedding of each item, the first ``dimensions`` of it.

    ``prompt`` goes before each text, and before no list of ids.
    """

    items: list[Item]
    dimensions: int
    base64: bool
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a request is checked against."""

    models: Collection[str]
    dimensions: int  # of a whole vector
    tokens: int  # of the vocabulary
    texts: int  # in one request
    special: frozenset[int] = frozenset()  # tokens that no text has
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""

    def names(self) -> list[str]:
        """Return the names to list: a prompt's after a colon, if the model has any prompt."""
        prompts = self.prompts if any(self.prompts.values()) else {}
        return [
            name
            for model in self.models
            for name in (model, *(f"{model}:{prompt}" for prompt in prompts))
        ]


def parse(body: bytes, rules: Rules) -> Request:
    """Read a body; ApiError with the API's own status and fields where it cannot be meant."""
    values = _object(body)
    for name in values:
        if name not in FIELDS:
            raise ApiError(400, f"Unrecognized request argument supplied: {_shown(name)}")
    prompt_name, prompt = _prompt(values, rules)
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
    items = _items(values["input"], rules)
    if prompt_name is not None and prompt and not isinstance(items[0], str):
        raise _wrong("input", f"has token ids, which get no prompt: send texts for {prompt_name!r}")
    return Request(items, size, encoding == "base64", prompt)


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


def _prompt(values: dict[str, Any], rules: Rules) -> tuple[str | None, str]:
    """Return the name of the prompt that is asked for, None for the model's default, and its text.

    It is asked for by ``input_type``, or after a colon in the model's name.
    """
    given = _optional(values, "model", str, "a string")
    if given is None:
        raise ApiError(400, "You must provide a model parameter", param="model")
    kind = _optional(values, "input_type", str, "a string")
    if kind is not None and kind not in ROLES:
        there = ", ".join(map(repr, ROLES))
        raise _wrong("input_type", f"{_shown(kind)} is not possible; there are: {there}")
    by_type = None if kind is None else prompt_name_of(kind, rules.prompts)
    by_model = _prompt_after(given, rules)
    role = given.rpartition(":")[2]
    if kind is not None and given not in rules.models and by_type != by_model:
        raise _wrong("input_type", f"is {kind!r}, and the model's name asks for {_shown(role)}")
    name = by_model if kind is None else by_type
    return name, rules.default_prompt if name is None else rules.prompts[name]


def _prompt_after(given: str, rules: Rules) -> str | None:
    """Return the name of the prompt that a model's name ends with, None if it has none."""
    if given in rules.models:
        return None
    known = " or ".join(map(repr, rules.names()))
    for model in rules.models:
        role = given.removeprefix(f"{model}:")
        if role != given and role in rules.prompts:
            return role
        if role != given and role in ROLES:
            return prompt_name_of(role, rules.prompts)
    raise ApiError(
        404,
        f"The model {_shown(given)} does not exist here; it is {known}.",
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
            _check_ids(item, rules)
    return items


def _check_ids(ids: list[Any], rules: Rules) -> None:
    if not all(type(token) is int for token in ids):
        raise _wrong("input", "has token ids that are not integers")
    if min(ids) < 0 or max(ids) >= rules.tokens:
        raise _wrong(
            "input",
            f"has a token id outside 0 to {rules.tokens - 1}, so these are another tokenizer's "
            f"ids. Send texts; LangChain's OpenAIEmbeddings does with {LANGCHAIN}",
        )
    if not rules.special.isdisjoint(ids):
        raise _wrong(
            "input",
            f"has the special token {min(rules.special & set(ids))}: send a text's own ids, as "
            f"add_special_tokens=False gives them; LangChain's OpenAIEmbeddings sends texts with "
            f"{LANGCHAIN}",
        )


def _wrong(name: str, why: str) -> ApiError:
    return ApiError(400, f"'{name}' {why}.", param=name)


def _shown(name: str) -> str:
    return repr(name if len(name) <= 64 else name[:64] + "…")
