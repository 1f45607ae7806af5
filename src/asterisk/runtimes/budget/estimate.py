"""How much memory an opened model takes, by format: an upper bound from its shape.

What is counted is what a control group is charged: anonymous memory, and each page of a file once.
Every file of the model counts as a whole, although most of its token table is seldom read: without
room for it, texts would wait for pages to be read again and again.

The constants bound what ``python -m benchmarks.budget ARTIFACT`` measured with the pinned
engines, x86-64 and glibc; it prints the bound beside what it sees, for a machine of your own. They
need not be exact: a runtime that was opened is measured, and planned again if it is over its limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asterisk.model.config import ModelConfig
from asterisk.model.gguf_shape import shape_of

MB = 1 << 20
BASE = 30 * MB  # Python, numpy and this package, where the system does not tell
WORDS = 3 * MB // 2  # the tokenizer's memory of words, once full
MARGIN = 3 * MB  # page tables, stacks, what the kernel keeps for the process
MARGIN_SHARE = 25  # and one part in so many, for a heap with holes
MAPPING = 256  # bytes the kernel keeps for one; see `asterisk.runtimes.pages.map_alone`
MOST_MAPPINGS = 20_000
FLOAT = 4


@dataclass(frozen=True, slots=True)
class Costs:
    """What an engine takes beyond its files.

    ``opening`` and ``running`` are bytes once a process, its library included: the first while a
    model is read in, the second from then on. Of a library the kernel maps more where it keeps it
    in large folios, which depends on how the file came to be cached: twice as much was seen.
    ``lane`` are bytes a session, without weights; ``hidden``, ``inner`` and ``scores`` say how many
    activations of these sizes it holds at once.
    ``copies`` tells whether a session has a packed copy of the layers of its own.
    """

    opening: int
    running: int
    lane: int
    hidden: float
    inner: float
    scores: float
    copies: bool


COSTS: Mapping[str, Costs] = {
    "onnx": Costs(19 * MB, 18 * MB, 2 * MB, 4, 1.25, 1, copies=True),
    "tflite": Costs(4 * MB, 4 * MB, 3 * MB // 2, 2, 1.25, 1, copies=True),
    "gguf": Costs(30 * MB, 12 * MB, 5 * MB // 2, 3, 2, 0, copies=False),
}


@dataclass(frozen=True, slots=True)
class Model:
    """What an estimate needs to know of an artifact; ``files`` in bytes, of what is mapped."""

    format: str
    recipe: str
    config: ModelConfig
    files: int

    @property
    def costs(self) -> Costs:
        """Those of its format."""
        return COSTS[self.format]

    @property
    def layers(self) -> int:
        """Bytes of the layers' weights as an engine packs them."""
        hidden, inner = self.config.hidden_size, self.config.intermediate_size
        weights = self.config.num_layers * (4 * hidden * hidden + 2 * hidden * inner)
        # Of int8 a few channels may be floats; what any other recipe is unpacked to, nobody knows.
        small = self.recipe.startswith(("int8", "q"))
        return weights * 5 // 4 if small else weights * FLOAT


def need(model: Model, lanes: int, longest: int, texts: int = 0) -> int:
    """Return the bytes beyond what the process already has, margin included.

    For ``lanes`` sessions and texts of at most ``longest`` tokens; ``texts`` are bytes for what is
    to be embedded and what came out.
    """
    costs = model.costs
    copies = lanes if costs.copies else 1
    mappings = MAPPING * min(MOST_MAPPINGS, lanes * model.files // 4096)
    sessions = copies * model.layers + lanes * costs.lane + mappings
    opening = costs.opening + model.files + sessions
    activations = lanes * _activations(model, longest)
    running = costs.running + model.files + sessions + activations + WORDS + texts
    at_once = max(opening, running, _logits(model, sessions + activations, longest))
    return at_once + MARGIN + at_once // MARGIN_SHARE


def _activations(model: Model, longest: int) -> int:
    costs, config = model.costs, model.config
    # Attention's scores are heads x tokens x tokens, the widest layer tokens x intermediate size.
    floats = costs.hidden * config.hidden_size + costs.inner * config.intermediate_size
    floats += costs.scores * config.num_heads * longest
    if _decoded(model):
        floats += 2 * config.vocab_size  # logits, computed and put out
    return int(FLOAT * longest * floats)


def _logits(model: Model, sessions: int, longest: int) -> int:
    """Return what is in use while llama.cpp clears logits that an encoder never fills.

    One session after the other does, before texts have brought the token table in.
    """
    if model.format != "gguf":
        return 0
    return model.costs.running + sessions + FLOAT * longest * model.config.vocab_size


def _decoded(model: Model) -> bool:
    shape = shape_of(model.config) if model.format == "gguf" else None
    return shape is not None and shape.architecture == "gpt2"
