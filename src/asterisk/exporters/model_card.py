"""The README.md of a hub folder: its owner's card, and how each loader opens what lies beside it.

The pieces of code are meant to be pasted. They open the folder that they are run in; the tests run
them as they stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asterisk import __version__
from asterisk.common import plugins
from asterisk.common.errors import ArtifactError, MissingExtra, one_line
from asterisk.model.checkpoint import Checkpoint

CARD = "README.md"
BEGIN, END = "<!-- asterisk-export -->", "<!-- /asterisk-export -->"
TEXTS = '["A first text.", "A second one."]'
_EARLIER = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END) + r"\n*", re.DOTALL)
_TAGS = ("sentence-transformers", "feature-extraction", "sentence-similarity")
_OF_FORMATS = {".onnx": ("onnx", "transformers.js"), ".gguf": ("gguf",), ".tflite": ("tflite",)}
_POOLINGS = {
    "mean": "the mean of the tokens' vectors",
    "cls": "the first token's vector",
    "max": "the largest value of the tokens' vectors in each dimension",
    "mean_sqrt_len_tokens": "the sum of the tokens' vectors by the root of their number",
}


def write_owners(folder: Path, checkpoint: Checkpoint) -> None:
    """Write what the owner of ``checkpoint`` says into ``folder``, where `write` completes it.

    ArtifactError where their card begins with what is not YAML: a hub would refuse it.
    """
    body = _EARLIER.sub("", checkpoint.card).rstrip() or f"# {checkpoint.name}"
    path = folder / CARD
    path.write_text(f"{body}\n", "utf-8")
    try:
        plugins.require("huggingface_hub", "export").metadata_load(path)
    except MissingExtra:
        raise
    except Exception as failure:
        raise ArtifactError(
            f"{checkpoint.folder}/{CARD} begins with what is no YAML: {one_line(failure)[:200]}"
        ) from None


def write(
    folder: Path,
    checkpoint: Checkpoint,
    figures: Mapping[str, Mapping[str, float]],
    sizes: Mapping[str, int],
    refused: Mapping[str, Exception],
) -> None:
    """Complete the card of ``checkpoint`` in ``folder``.

    ``figures`` are the gate's by file, ``sizes`` those files' in bytes; ``refused`` says by name
    why a file is not there.
    """
    hub = plugins.require("huggingface_hub", "export")
    path = folder / CARD
    section = "\n\n".join(_section(checkpoint, figures, sizes, refused))
    with path.open("a", encoding="utf-8") as card:
        card.write(f"\n{BEGIN}\n{section}\n{END}\n")
    metadata = hub.metadata_load(path) or {}
    hub.metadata_save(path, _completed(metadata, checkpoint, figures))


def _completed(
    metadata: Mapping[str, Any], checkpoint: Checkpoint, files: Mapping[str, object]
) -> dict[str, Any]:
    """Return the owner's metadata and what they do not say."""
    tags = metadata.get("tags") or []
    tags = [tags] if isinstance(tags, str) else list(tags)
    kinds = [tag for end, some in _OF_FORMATS.items() for tag in some if _have(files, end)]
    completed = dict(metadata)
    completed.setdefault("library_name", "sentence-transformers")
    completed.setdefault("pipeline_tag", "sentence-similarity")
    completed["tags"] = list(dict.fromkeys([*tags, *_TAGS, *kinds]))
    if checkpoint.source and "base_model" not in metadata:
        completed["base_model"] = checkpoint.source.partition("@")[0]
        completed["base_model_relation"] = "quantized"
    return completed


def _have(files: Mapping[str, object], end: str) -> str:
    """Return the last of ``files`` that ends so, the int8 one of two; empty without one."""
    return ([""] + [name for name in files if name.endswith(end)])[-1]


def _section(
    checkpoint: Checkpoint,
    figures: Mapping[str, Mapping[str, float]],
    sizes: Mapping[str, int],
    refused: Mapping[str, Exception],
) -> list[str]:
    """Return the paragraphs about this folder."""
    some = next(iter(figures.values()))
    source = f" from {checkpoint.source}" if checkpoint.source else ""
    paragraphs = [
        "## Files for other engines",
        f"Made by asterisk-edge {__version__}{source}. Each was run in its own engine over "
        f"{some['texts']:,.0f} texts and compared with PyTorch in FP32: the cosine of a text's two "
        "vectors, and how many of its ten nearest neighbours they have in common.",
        "\n".join(
            [
                "| file | MB | cosine, mean | minimum | overlap@10 |",
                "|---|--:|--:|--:|--:|",
                *(
                    f"| `{name}` | {sizes[name] / 1e6:.1f} | {found['cosine_mean']:.5f} "
                    f"| {found['cosine_min']:.5f} | {found['overlap_at_10']:.3f} |"
                    for name, found in figures.items()
                ),
            ]
        ),
    ]
    if refused:
        paragraphs.append(
            "\n".join(["Not here:", "", *(f"- {reason}" for reason in refused.values())])
        )
    paragraphs += [_about(checkpoint), "## How to open them", _how_to_open(checkpoint)]
    if onnx := _have(figures, ".onnx"):
        paragraphs += [_sentence_transformers(onnx), _fastembed(checkpoint, onnx)]
        paragraphs.append(_transformers_js(checkpoint))
    if gguf := _have(figures, ".gguf"):
        paragraphs.append(_llama_cpp(checkpoint, gguf))
    if tflite := _have(figures, ".tflite"):
        paragraphs.append(_litert(checkpoint, tflite))
    return paragraphs


def _about(checkpoint: Checkpoint) -> str:
    """Say what makes a vector of a text, which a loader must do or be told."""
    config = checkpoint.config
    dense = "".join(
        f", a linear map to {one.out_features} dimensions"
        + ("" if one.activation == "identity" else f" and {one.activation}")
        for one in config.dense
    )
    unit = ", made unit length" if config.normalize else ""
    lines = [
        f"- A vector is {_POOLINGS[config.pooling]}{dense}{unit}: "
        f"{config.embedding_size} dimensions.",
        f"- A text has at most {config.max_seq_length} tokens, special ones included. What is "
        "longer is cut; transformers.js then drops the special token at its end as well, and "
        "llama-server refuses it.",
    ]
    if config.dense or config.pooling != "mean":
        lost = "drops the linear maps, and " if config.dense else ""
        lines.append(
            "- The ONNX files put out `last_hidden_state` as well. A loader that pools it by "
            f"itself {lost}has to be told the pooling: fastembed without `output_name`, "
            "transformers.js' `pipeline`. `sentence_embedding` is the whole model's vector."
        )
    prompts = {name: text for name, text in checkpoint.prompts.items() if text}
    if prompts:
        listed = ", ".join(f"{_code(text)} ({name})" for name, text in prompts.items())
        default = checkpoint.default_prompt_name
        always = f"; {_code(checkpoint.prompts[default])} unless told otherwise" if default else ""
        lines.append(
            f"- The model was trained with a prompt before each text: {listed}. "
            "sentence-transformers puts it there (`encode_query`, `encode_document`, "
            f"`prompt_name`{always}); everywhere else, put it there yourself."
        )
    tokens = checkpoint.tokenizer.tokens
    names = [_code(tokens[i]) for i in sorted(set(checkpoint.tokenizer.special.values()))]
    if names:
        lines.append(
            f"- A special token's name in a text ({', '.join(names)}) is plain text in "
            "sentence-transformers and transformers. The other loaders take it for the token."
        )
    return "\n".join(lines)


def _code(text: str) -> str:
    """Return ``text`` as Markdown's code, which has no backtick and no line break."""
    return f"`{json.dumps(text, ensure_ascii=False)[1:-1].replace('`', chr(39))}`"


def _how_to_open(checkpoint: Checkpoint) -> str:
    return f"""The code below runs in this folder. From the hub, fetch it first:
`hf download ORGANISATION/MODEL --local-dir .`. sentence-transformers and transformers.js also take
the repository's name where `"."` or `"{checkpoint.name}"` stands.

### sentence-transformers

In PyTorch (`pip install sentence-transformers`):

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(".")
vectors = model.encode({TEXTS})  # [2, {checkpoint.config.embedding_size}]
```"""


def _sentence_transformers(onnx: str) -> str:
    return f"""In ONNX Runtime (`pip install "sentence-transformers[onnx]"`):

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(".", backend="onnx", model_kwargs={{"file_name": "{onnx}"}})
vectors = model.encode({TEXTS})
```"""


def _fastembed(checkpoint: Checkpoint, onnx: str) -> str:
    return f"""### fastembed

`pip install fastembed`. With the repository's name as `hf` and without `specific_model_path`, it
fetches the model itself.

```python
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

TextEmbedding.add_custom_model(
    "{checkpoint.name}",
    pooling=PoolingType.DISABLED,
    normalization=False,
    sources=ModelSource(hf="{checkpoint.name}"),
    dim={checkpoint.config.embedding_size},
    model_file="{onnx}",
    output_name="sentence_embedding",
)
model = TextEmbedding("{checkpoint.name}", specific_model_path=".")
vectors = list(model.embed({TEXTS}))
```"""


def _transformers_js(checkpoint: Checkpoint) -> str:
    """Use the pipeline where it does all that the model does."""
    config, name = checkpoint.config, checkpoint.name
    if config.dense or config.pooling not in ("mean", "cls"):
        code = f"""import {{ AutoModel, AutoTokenizer }} from "@huggingface/transformers";

const tokenizer = await AutoTokenizer.from_pretrained("{name}");
const model = await AutoModel.from_pretrained("{name}", {{ dtype: "q8" }});
const inputs = tokenizer({TEXTS}, {{ padding: true, truncation: true }});
const vectors = (await model(inputs)).sentence_embedding.tolist();"""
    else:
        unit = "true" if config.normalize else "false"
        code = f"""import {{ pipeline }} from "@huggingface/transformers";

const extractor = await pipeline("feature-extraction", "{name}", {{ dtype: "q8" }});
const options = {{ pooling: "{config.pooling}", normalize: {unit} }};
const vectors = (await extractor({TEXTS}, options)).tolist();"""
    return f"""### transformers.js

`"q8"` is `onnx/model_quantized.onnx`, `"fp32"` is `onnx/model.onnx`.

```js
{code}
```"""


def _llama_cpp(checkpoint: Checkpoint, gguf: str) -> str:
    most = checkpoint.config.max_seq_length
    sizes = f"--ctx-size {most} --batch-size {most} --ubatch-size {most}"
    differs = ""
    if checkpoint.tokenizer.kind == "wordpiece":
        differs = (
            " Where this model strips accents, llama.cpp's tokenizer strips other marks as well, "
            'such as vowel signs of Hindi: send token ids (`{"input": [[101, 102]]}`) for those.'
        )
    return f"""### llama.cpp

The file says which pooling it takes.{differs}

```sh
llama-server --model {gguf} --embedding --parallel 1 {sizes}
```

```python
import json
from urllib.request import Request, urlopen

body = json.dumps({{"input": {TEXTS}}}).encode()
kind = {{"Content-Type": "application/json"}}
with urlopen(Request("http://127.0.0.1:8080/v1/embeddings", body, kind)) as answer:
    vectors = [row["embedding"] for row in json.load(answer)["data"]]
```"""


def _litert(checkpoint: Checkpoint, tflite: str) -> str:
    config = checkpoint.config
    unit = "\nvectors /= np.linalg.norm(vectors, axis=1, keepdims=True)" if config.normalize else ""
    return f"""### LiteRT

One text at a time, at its exact length (`pip install ai-edge-litert tokenizers`):

```python
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({config.max_seq_length})
run = Interpreter("{tflite}").get_signature_runner()
ids = [np.array([tokenizer.encode(text).ids], np.int32) for text in {TEXTS}]
vectors = np.concatenate([run(input_ids=some)["sentence_embedding"] for some in ids]){unit}
```"""
