"""What a text is embedded as, a query or a document, and the prompt that a model has for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from asterisk.common.errors import UsageError

ROLES: Mapping[str, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),  # sentence-transformers' order
    "passage": ("passage", "document", "corpus"),
}


def prompt_name_of(role: str, prompts: Iterable[str]) -> str | None:
    """Return the name of the prompt for ``role``, the first that there is; None without any."""
    there = set(prompts)
    return next((name for name in ROLES[role] if name in there), None)


def check_prompt_name(name: str | None, prompts: Iterable[str]) -> None:
    """Raise UsageError for a name that is none of ``prompts``."""
    there = list(prompts)
    if name is not None and name not in there:
        told = ", ".join(map(repr, there)) or "none"
        raise UsageError(f"the model has no prompt {name!r}; there are: {told}")
