"""The API: bodies of requests read into the texts to embed, and errors as its clients know them.

Sources: https://platform.openai.com/docs/api-reference/embeddings/create and
https://platform.openai.com/docs/guides/error-codes, https://docs.mistral.ai/api (output_dtype),
https://docs.cohere.com/v1/reference/rerank, https://jina.ai/reranker and
https://huggingface.github.io/text-embeddings-inference (/embed, which has errors of its own).
"""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from asterisk.common.files import strict_json
from asterisk.common.vectors import quantize
from asterisk.model.config import ROLES, prompt_name_of
from asterisk.runtimes.runtime import OnLong, Vectors

LANGCHAIN = "LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False"
_TEXTS = "must be a string or a list of strings"
_ENTRY = 112  # bytes of a text's entry beside its numbers, its object's included
_INVALID = "invalid_request_error"
_ERRORS: Mapping[int, tuple[str, str | None, Mapping[str, str]]] = {  # type, code and headers
    401: (_INVALID, "invalid_api_key", {"www-authenticate": "Bearer"}),
    405: (_INVALID, "method_not_supported", {}),
    408: (_INVALID, "timeout", {"connection": "close"}),
    413: (_INVALID, "body_too_large", {"connection": "close"}),
    415: (_INVALID, None, {"accept-encoding": "gzip"}),
    429: ("requests", "rate_limit_exceeded", {"retry-after": "1"}),
    500: ("server_error", None, {}),
    503: ("server_error", None, {"retry-after": "1", "connection": "close"}),
}
_TEI_TYPES = {429: "overloaded", 500: "backend", 503: "unhealthy"}

Item = str | list[int]  # a text, or the token ids of one
Writer = Callable[[int, Vectors], bytes]  # of the vector at an index of the answer, float32 [d]


class ApiError(Exception):
    """A request that is answered with ``status`` and a message instead of vectors.

    ``code`` is by default that of the status.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.kind, default, self.headers = _ERRORS.get(status, (_INVALID, None, {}))
        self.code = default if code is None else code

    def response(self, path: str) -> Response:
        """Return the answer to a request for ``path``, in the shape of its API."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        fields: dict[str, object] = {"error": error}
        if path == "/embed":
            kind = _TEI_TYPES.get(self.status, "validation")
            fields = {"error": self.message, "error_type": kind}
        body = json.dumps(fields).encode() + b"\n"
        return Response(body, self.status, self.headers, "application/json")


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """Texts to embed, and how the vectors are written."""

    items: list[Item]
    dimensions: int  # the first ones of a vector
    write: Writer
    answer_size: int  # bytes that the answer takes at most
    prompt: str = ""  # before each text
    normalize: bool | None = None  # None: as the model's folder says
    on_long: OnLong | None = None  # None: as the server's option says
    field: str = "input"
    ignored: int = 0  # fields of the body that are not known

    def name_of(self, index: int) -> str:
        """Return what the body calls the item at ``index``."""
        if self.field == "documents" and index == len(self.items) - 1:
            return "query"
        return f"{self.field}[{index}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest(EncodeRequest):
    """Documents to sort by their similarity to a query, which is the last item."""

    documents: list[str]
    top_n: int
    return_documents: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """What a request is checked against."""

    models: Sequence[str]  # names that a request may give; the first is the model's own
    dimensions: int  # of a whole vector
    tokens: int  # of the vocabulary
    texts: int  # in one request
    special: frozenset[int] = frozenset()  # tokens that no text has
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    strict: bool = False  # refuse a model's name that is not one of ``models``
    token_ids: bool = False  # accept token ids, as this model's

    def names(self) -> list[str]:
        """Return the names to list: a prompt's after a colon, if the model has any prompt."""
        ends = ["", *(f":{prompt}" for prompt in self.prompts if any(self.prompts.values()))]
        return [model + end for model in self.models for end in ends]


def parse_embeddings(body: bytes, rules: Rules) -> EncodeRequest:
    """Read a request for OpenAI's embeddings; ApiError if it makes no sense."""
    strings = "model encoding_format output_dtype input_type"
    values, ignored = _object(body, "input user", strings=strings, integers="dimensions")
    prompt_name, prompt = _prompt(values, rules)
    encoding, dtype = values["encoding_format"], values["output_dtype"]
    if encoding not in (None, "float", "base64"):
        raise _wrong("encoding_format", "must be 'float' or 'base64'")
    if dtype not in (None, "float", "int8", "binary", "ubinary"):
        raise _wrong("output_dtype", "must be 'float', 'int8', 'binary' or 'ubinary'")
    size = _dimensions(values, rules)
    items = _items(values, "input", rules, prompt_name if prompt else None)
    entry = b'{"object":"embedding","index":%d,"embedding":%b}'
    write, each = _writer(entry, size, dtype or "float", encoding)
    return EncodeRequest(items, size, write, len(items) * each, prompt, ignored=ignored)


def parse_embed(body: bytes, rules: Rules) -> EncodeRequest:
    """Read a request for text-embeddings-inference's /embed; ApiError if it makes no sense."""
    strings, booleans = "truncation_direction prompt_name", "normalize truncate"
    values, ignored = _object(
        body, "inputs", strings=strings, integers="dimensions", booleans=booleans
    )
    name, truncate, normalize = (values[it] for it in ("prompt_name", "truncate", "normalize"))
    if name is not None and name not in rules.prompts and name not in ROLES:
        raise _not_possible("prompt_name", name, (*rules.prompts, *ROLES))
    if values["truncation_direction"] not in (None, "Right", "right"):
        raise _wrong("truncation_direction", "must be 'Right'")
    size = _dimensions(values, rules)
    prompt = _prompt_text(name, rules)
    items = _items(values, "inputs", rules, name if prompt else None)
    on_long: OnLong | None = None if truncate is None else "truncate" if truncate else "error"
    unit = normalize is not False
    write, each = _writer(None, size)
    return EncodeRequest(
        items, size, write, len(items) * each, prompt, unit, on_long, "inputs", ignored
    )


def parse_rerank(body: bytes, rules: Rules) -> RerankRequest:
    """Read a request as Jina's and Cohere's rerankers get it; ApiError if it makes no sense."""
    strings, booleans = "model query input_type", "return_documents"
    values, ignored = _object(
        body, "documents", strings=strings, integers="top_n", booleans=booleans
    )
    _prompt(values, rules)  # for its errors: queries and documents have their own
    query, top_n, whole = values["query"], values["top_n"], bool(values["return_documents"])
    if not query:
        raise _wrong("query", "must be a text that is not empty")
    given: Any = values.get("documents")
    listed = isinstance(given, list)
    if listed:
        given = [it.get("text") if isinstance(it, dict) else it for it in given]
    documents = _items({"documents": given}, "documents", rules)
    if not listed or not isinstance(documents[0], str):
        raise _wrong("documents", "must be a list of strings or of objects with a 'text'")
    if top_n is not None and top_n < 1:
        raise _wrong("top_n", "must be at least 1")
    prompt = _prompt_text("document", rules)
    return RerankRequest(
        items=[*(prompt + it for it in documents), _prompt_text("query", rules) + query],
        dimensions=rules.dimensions,
        write=lambda _, vector: vector.tobytes(),
        answer_size=(len(documents) + 1) * (2 * _ENTRY + 4 * rules.dimensions) + whole * len(body),
        normalize=True,
        field="documents",
        ignored=ignored,
        documents=documents,
        top_n=min(top_n or len(documents), len(documents)),
        return_documents=whole,
    )


def _object(
    body: bytes, others: str, *, strings: str, integers: str, booleans: str = ""
) -> tuple[dict[str, Any], int]:
    """Return a body's values, and how many of them have none of the names, which spaces separate.

    What is not among ``others`` has been checked, and is None if it was not given.
    """
    try:
        values = strict_json(body.decode("utf-8-sig"))
    except ValueError as failure:  # also UnicodeDecodeError, and integers of thousands of digits
        why, reason = "The body could not be parsed: it must be JSON in UTF-8.", str(failure)
        if reason.startswith("the name"):
            why = "The body gives one name two values."
        elif reason in ("NaN", "Infinity", "-Infinity"):
            why = f"The body is not JSON: {reason} is no number there."
        elif reason == "nested too deeply":
            why = "The body is not JSON: it is nested too deeply."
        raise ApiError(400, why) from None
    if not isinstance(values, dict):
        raise ApiError(400, "The body must be a JSON object.")
    kinds: dict[str, tuple[type, str]] = dict.fromkeys(strings.split(), (str, "a string"))
    kinds |= dict.fromkeys(integers.split(), (int, "an integer"))
    kinds |= dict.fromkeys(booleans.split(), (bool, "true or false"))
    for name, (kind, what) in kinds.items():
        if values.get(name) is not None and type(values[name]) is not kind:  # True is no integer
            raise _wrong(name, f"must be {what}")
    ignored = len(values.keys() - kinds.keys() - {*others.split()})
    return dict.fromkeys(kinds) | values, ignored


def _prompt(values: dict[str, Any], rules: Rules) -> tuple[str | None, str]:
    """Return the name of the requested prompt, None for the model's default one, and its text.

    A request names it in ``input_type``, or after a colon in the model's name.
    """
    given, kind = values["model"], values["input_type"]
    if given is None and rules.strict:
        raise ApiError(400, "You must provide a model parameter", param="model")
    if kind is not None and kind not in ROLES:
        raise _not_possible("input_type", kind, ROLES)
    role = _role_after(given, rules)
    name = _prompt_name(kind or role, rules)
    if kind and role and name != _prompt_name(role, rules):
        raise _wrong("input_type", f"is {kind!r}, and the model's name asks for {_shown(role)}")
    return name, rules.default_prompt if name is None else rules.prompts[name]


def _role_after(given: str | None, rules: Rules) -> str | None:
    """Return the role or prompt that a model's name ends with, None if it has none."""
    if given is None or given in rules.models:
        return None
    own = [model for model in rules.models if given.startswith(f"{model}:")]
    for model in own:
        role = given.removeprefix(f"{model}:")
        if role in rules.prompts or role in ROLES:
            return role
    if own or rules.strict:
        names = " or ".join(map(repr, rules.names()))
        message = f"The model {_shown(given)} does not exist here; it is {names}."
        raise ApiError(404, message, param="model", code="model_not_found")
    return None


def _prompt_name(role: str | None, rules: Rules) -> str | None:
    if role is None or role in rules.prompts:
        return role
    return prompt_name_of(role, rules.prompts)


def _prompt_text(role: str | None, rules: Rules) -> str:
    name = _prompt_name(role, rules)
    return rules.default_prompt if name is None else rules.prompts[name]


def _dimensions(values: dict[str, Any], rules: Rules) -> int:
    size = rules.dimensions if values["dimensions"] is None else values["dimensions"]
    if not 1 <= size <= rules.dimensions:
        raise _wrong("dimensions", f"must be 1 to {rules.dimensions}")
    return int(size)


def _items(
    values: dict[str, Any], name: str, rules: Rules, prompt_name: str | None = None
) -> list[Any]:
    if name not in values:
        raise ApiError(400, f"You must provide an '{name}' parameter.", param=name)
    given = values[name]
    if isinstance(given, str) or (isinstance(given, list) and given and type(given[0]) is int):
        given = [given]
    if not isinstance(given, list):
        raise _wrong(name, _TEXTS)
    if not given:
        raise _wrong(name, "must not be empty")
    if len(given) > rules.texts:
        raise _wrong(name, f"has {len(given)} entries; at most {rules.texts} are possible")
    kind = type(given[0])
    if kind is list and prompt_name is not None:
        raise _wrong(name, f"has token ids, which get no prompt: send texts for {prompt_name!r}")
    for item in given:
        if type(item) is not kind or kind not in (str, list):
            raise _wrong(name, _TEXTS)
        if not item:
            raise _wrong(name, "must not have an empty text")
        if kind is list and (why := _refusal(item, rules)):
            raise _wrong(name, why)
    return given


def _refusal(ids: list[Any], rules: Rules) -> str:
    """Return what is wrong with the token ids of a text, or nothing."""
    if not all(type(token) is int for token in ids):
        return _TEXTS
    if not rules.token_ids:
        why = "has token ids, by default of OpenAI's tokenizer and not of this model's. Send texts"
        return f"{why}; {LANGCHAIN}. --accept-token-ids is for ids of this model's own"
    if min(ids) < 0 or max(ids) >= rules.tokens:
        why = f"has a token id outside 0 to {rules.tokens - 1}, so these are another tokenizer's"
        return f"{why} ids. Send texts; {LANGCHAIN}"
    if special := rules.special.intersection(ids):
        why = f"has the special token {min(special)}: send a text's own ids, as"
        return f"{why} add_special_tokens=False gives them, or texts; {LANGCHAIN}"
    return ""


def _writer(
    entry: bytes | None, size: int, dtype: str = "float", encoding: str | None = None
) -> tuple[Writer, int]:
    """Return what writes an ``entry`` of a vector (None: its list alone), and its most bytes."""

    def write(index: int, vector: Vectors) -> bytes:
        numbers = quantize(vector[None], "float32" if dtype == "float" else dtype)[0]
        if encoding == "base64":
            little = numbers.astype(numbers.dtype.newbyteorder("<"), copy=False)
            text = b'"%b"' % binascii.b2a_base64(little.tobytes(), newline=False)
        else:
            # Nine digits are enough for every float32 to be read back as it was.
            form = "%.9g," if dtype == "float" else "%d,"
            text = ("[" + (form * len(numbers))[:-1] + "]").encode() % tuple(numbers.tolist())
        return (b"," if index else b"") + (text if entry is None else entry % (index, text))

    width, text = {"float": (4, 16), "int8": (1, 5)}.get(dtype, (1 / 8, 5 / 8))  # of a number
    return write, _ENTRY + math.ceil(size * (width * 4 / 3 if encoding == "base64" else text))


def _wrong(name: str, why: str) -> ApiError:
    return ApiError(400, f"'{name}' {why}.", param=name)


def _not_possible(name: str, value: str, choices: Iterable[str]) -> ApiError:
    names = ", ".join(map(repr, dict.fromkeys(choices)))
    return _wrong(name, f"{_shown(value)} is not possible; there are: {names}")


def _shown(name: str) -> str:
    return repr(name if len(name) <= 64 else name[:64] + "…")
