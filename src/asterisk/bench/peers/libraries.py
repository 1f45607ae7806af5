"""Peers that are whole libraries: sentence-transformers, fastembed and model2vec.

- sentence-transformers in float32, ``threads`` within an operator; and with ``backend="onnx"`` in
  int8, by the library's own export and its configuration for the processor.
- fastembed in float32, given the checkpoint's weights; pooling and unit length are its own.
- a model2vec static model of all-MiniLM-L6-v2, by the library's own recipe: the mean state of each
  word piece between [CLS] and [SEP], 256 principal components, weighted for frequency by rank
  (SIF), stored as float16. It is distilled here, because the library's code for it does not go with
  the version of `transformers` that this project is pinned to.
"""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.bench.peers import MINILM, REFERENCE
from asterisk.bench.peers.onnx import COMPARED, MODEL, TOKENIZER, default_prompt, quiet, trace
from asterisk.common.plugins import require

QUANTIZED = "onnx/model_quantized.onnx"
FASTEMBED = "checkpoint"  # the model's name there
FASTEMBED_BATCH = 32  # its default, 256, is slower where lengths are mixed and takes 3 GB
SHAPE = "fastembed.json"  # the pooling and the number of dimensions
COMPONENTS = 256
SIF = 1e-4
UNUSED = re.compile(r"\[unused\d+\]|\[CLS\]|\[SEP\]|\[MASK\]")
START, END, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
MAX_PIECES = 512  # word pieces of a text, model2vec's default
DISTIL_BATCH = 256
Array = npt.NDArray[np.float32]


def copy_checkpoint(folder: Path, checkpoint: Path) -> None:
    """Copy the files of the model in ``checkpoint``, for sentence-transformers."""
    from asterisk.bench.prepare import model_files

    require("sentence_transformers", "peers")
    for source in model_files(checkpoint):
        target = folder / source.relative_to(checkpoint)
        target.parent.mkdir(exist_ok=True)
        copyfile(source, target)


class SentenceTransformersEncoder:
    """Text to vectors by ``SentenceTransformer.encode``; ``options`` are the constructor's."""

    def __init__(self, folder: Path, threads: int, **options: Any) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.torch = torch
        options.setdefault("model_kwargs", {"dtype": torch.float32})
        self.model: Any = SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, **options
        )
        self.prompt = self.model.prompts.get(self.model.default_prompt_name) or ""

    def tokenize(self, text: str) -> Any:
        """Return the features of one text."""
        return self.model.preprocess([self.prompt + text])

    def embed_ids(self, features: Any) -> Any:
        """Return the vector of one text, float32 [d]."""
        with self.torch.inference_mode():
            # The modules add to the mapping they are given.
            return self.model(dict(features))["sentence_embedding"][0].numpy()

    def encode(self, texts: str | Sequence[str]) -> Any:
        """Embed one text, float32 [d], or n of them, float32 [n, d], L2-normalised."""
        given = texts if isinstance(texts, str) else list(texts)
        return self.model.encode(given, show_progress_bar=False, normalize_embeddings=True)

    def padding(self, texts: Sequence[str]) -> float:
        """Return the share of padding among the tokens that ``texts`` are computed with.

        Counted in the attention masks that reach the encoder.
        """
        counts: list[tuple[int, int]] = []

        def count(_: Any, given: tuple[Any, ...]) -> None:
            mask = given[0]["attention_mask"]
            counts.append((int(mask.sum()), mask.numel()))

        hook = self.model[0].register_forward_pre_hook(count)
        try:
            self.encode(texts)
        finally:
            hook.remove()
        return 1 - sum(real for real, _ in counts) / sum(computed for _, computed in counts)


def prepare_onnx(folder: Path, checkpoint: Path) -> None:
    """Export and quantise the model in the folder ``checkpoint``."""
    from asterisk.bench import machine

    library = require("sentence_transformers", "peers")
    require("optimum.onnxruntime", "peers")
    with tempfile.TemporaryDirectory() as scratch, quiet():
        source = Path(scratch) / "model"
        source.mkdir()
        copy_checkpoint(source, checkpoint)
        _add_token_type(source)
        export = {"provider": "CPUExecutionProvider", "export": True}
        model = library.SentenceTransformer(
            str(source), backend="onnx", device="cpu", local_files_only=True, model_kwargs=export
        )
        flags = {"avx512_vnni": "avx512_vnni", "avx512f": "avx512"}.items()
        processor = next(
            (name for flag, name in flags if flag in machine.processor()["isa"]), "avx2"
        )
        if platform.machine() in ("aarch64", "arm64"):
            processor = "arm64"
        library.export_dynamic_quantized_onnx_model(model, processor, scratch)
        (made,) = Path(scratch).glob("onnx/*.onnx")
        (folder / QUANTIZED).parent.mkdir()
        copyfile(made, folder / QUANTIZED)
    # The encoder's weights are in the file; those of maps after the pooling are not.
    copy_checkpoint(folder, checkpoint)
    for weights in (*folder.glob("*.safetensors*"), *folder.glob("*.bin")):
        weights.unlink()


def _add_token_type(folder: Path) -> None:
    """Give a BERT with one token type a second, or optimum's export fails."""
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    if config.get("model_type") != "bert" or config.get("type_vocab_size") != 1:
        return
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    (name,) = (name for name in weights if name.endswith("token_type_embeddings.weight"))
    weights[name] = weights[name].repeat(2, 1)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    path.write_text(json.dumps(config | {"type_vocab_size": 2}), "utf-8")


def open_onnx(folder: Path, threads: int) -> SentenceTransformersEncoder:
    """Open what `prepare_onnx` wrote."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    model = {"provider": "CPUExecutionProvider", "file_name": QUANTIZED, "session_options": options}
    return SentenceTransformersEncoder(folder, threads, backend="onnx", model_kwargs=model)


def prepare_fastembed(folder: Path, checkpoint: Path) -> None:
    """Write the folder that fastembed reads; UsageError for a model that it cannot hold."""
    from asterisk.common.errors import UsageError
    from asterisk.model.checkpoint import load

    require("fastembed", "peers")
    source = load(checkpoint)
    config, tokenizer = source.config, source.tokenizer
    if config.dense or config.pooling not in ("mean", "cls"):
        raise UsageError("fastembed pools by the mean or by the first token, and has no Dense")
    trace(checkpoint, folder / MODEL, pooled=False)
    (folder / TOKENIZER).write_text(tokenizer.to_json(), "utf-8")
    pad = tokenizer.special.get("pad", 0)
    named = {f"{name}_token": tokenizer.tokens[token] for name, token in tokenizer.special.items()}
    settings = tokenizer.settings(config.max_seq_length)
    shape = {"pooling": config.pooling, "dim": config.embedding_size}
    files = {
        "config.json": {"pad_token_id": pad},
        "special_tokens_map.json": named,
        "tokenizer_config.json": {"pad_token": tokenizer.tokens[pad], **settings},
        SHAPE: {**shape, "prompt": default_prompt(source)},
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values), "utf-8")


class FastembedEncoder:
    """Text to vectors by ``TextEmbedding.embed``, padded; ``threads`` are of its session."""

    def __init__(self, folder: Path, threads: int) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        shape = json.loads((folder / SHAPE).read_text("utf-8"))
        if FASTEMBED not in (model["model"] for model in TextEmbedding.list_supported_models()):
            TextEmbedding.add_custom_model(
                model=FASTEMBED,
                pooling=PoolingType(shape["pooling"].upper()),
                normalization=True,
                sources=ModelSource(url="file:local"),
                dim=shape["dim"],
                model_file=MODEL,
            )
        self.prompt, self.pooling = shape["prompt"], shape["pooling"]
        self.library = TextEmbedding(
            FASTEMBED,
            specific_model_path=str(folder),
            local_files_only=True,
            threads=threads,
            providers=["CPUExecutionProvider"],
        )
        self.model: Any = self.library.model

    def tokenize(self, text: str) -> Any:
        """Return what the model's own tokenizer makes of one text."""
        return self.model.tokenize([self.prompt + text])[0]

    def embed_ids(self, encoded: Any) -> Any:
        """Return the vector of one text, float32 [d], by the model's own session."""
        given = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask}
        states = self.model.model.run(
            None, {name: np.array([some], np.int64) for name, some in given.items()}
        )[0][0]
        return states[0] if self.pooling == "cls" else states.mean(0)

    def encode(self, texts: str | Sequence[str]) -> Any:
        """Embed one text, float32 [d], or n of them, float32 [n, d], L2-normalised."""
        if isinstance(texts, str):
            return next(iter(self.library.embed([self.prompt + texts])))
        given = [self.prompt + text for text in texts]
        return np.stack(list(self.library.embed(given, batch_size=FASTEMBED_BATCH)))

    def padding(self, texts: Sequence[str]) -> float:
        """Return the share of padding among the tokens that ``texts`` are computed with."""
        batches = (
            self.model.tokenize(list(texts[at : at + FASTEMBED_BATCH]))
            for at in range(0, len(texts), FASTEMBED_BATCH)
        )
        masks = [one.attention_mask for batch in batches for one in batch]
        return 1 - sum(map(sum, masks)) / sum(map(len, masks))


def prepare_model2vec(folder: Path, checkpoint: Path) -> None:  # noqa: ARG001 - has its own model
    """Distil the model, write it as model2vec does, and its own FP32 vectors of the first texts."""
    model2vec = require("model2vec", "peers")
    from tokenizers import Tokenizer

    from asterisk.training.teachers import teacher

    source = teacher.find(MINILM)
    file = json.loads((source / TOKENIZER).read_text("utf-8"))
    vocabulary: dict[str, int] = file["model"]["vocab"]
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    tokens = [token for token in ordered if not UNUSED.fullmatch(token)]
    vectors = distil(source, vocabulary, tokens)
    # A tokenizer with these tokens only, which adds nothing to a text.
    ids = {token: number for number, token in enumerate(tokens)}
    added = [one for one in file["added_tokens"] if one["content"] in ids]
    file["added_tokens"] = [{**one, "id": ids[one["content"]]} for one in added]
    file["model"]["vocab"] = ids
    file |= dict.fromkeys(("post_processor", "padding", "truncation"))
    tokenizer = Tokenizer.from_str(json.dumps(file))
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": True}
    model = model2vec.StaticModel(
        vectors.astype(np.float16), tokenizer, config, normalize=True, base_model_name=MINILM
    )
    model.save_pretrained(str(folder))
    np.save(folder / REFERENCE, _reference(tokenizer, vectors))


def distil(source: Path, vocabulary: dict[str, int], tokens: Sequence[str]) -> Array:
    """Return the static vector of each of ``tokens``, float32 [n, `COMPONENTS`]."""
    import torch
    from transformers import BertModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    frame = vocabulary[START], vocabulary[END]
    ids = torch.tensor([[frame[0], vocabulary[token], frame[1]] for token in tokens])
    model: Any = BertModel.from_pretrained(source, dtype=torch.float32).eval()
    with torch.inference_mode():
        parts = (ids[start : start + DISTIL_BATCH] for start in range(0, len(ids), DISTIL_BATCH))
        states = torch.cat([model(part).last_hidden_state.mean(1) for part in parts])
    ranks = 1 / np.arange(2, len(tokens) + 2)
    weights = SIF / (SIF + ranks / ranks.sum())
    centred = states.numpy() - states.numpy().mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    components = centred @ directions[:, ::-1][:, :COMPONENTS]
    return np.asarray(components * weights[:, None], np.float32)


def _reference(tokenizer: Any, vectors: Array) -> Array:
    """Return the FP32 vectors of the first texts, without model2vec, [n, `COMPONENTS`]."""
    from asterisk.common import texts

    unknown = tokenizer.token_to_id(UNKNOWN)
    means = []
    for text in texts.load()[:COMPARED]:
        ids = tokenizer.encode(text.text, add_special_tokens=False).ids[:MAX_PIECES]
        mean = vectors[[token for token in ids if token != unknown]].mean(0)
        means.append(mean / np.linalg.norm(mean))
    return np.stack(means)


class Model2vecEncoder:
    """Text to vectors by ``StaticModel.encode``, which uses one thread below 10,000 texts."""

    def __init__(self, folder: Path, threads: int) -> None:  # noqa: ARG002 - of no use to it
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        from model2vec import StaticModel

        self.model = StaticModel.from_pretrained(str(folder))

    def encode(self, texts: str | Sequence[str]) -> Any:
        """Embed one text, float32 [d], or n of them, float32 [n, d], L2-normalised."""
        given = texts if isinstance(texts, str) else list(texts)
        return self.model.encode(given).astype(np.float32)
