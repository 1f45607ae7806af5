"""A checkpoint under sentence-transformers with ``backend="onnx"``, in int8.

The file is the library's own: exported through optimum, quantised by its function
``export_dynamic_quantized_onnx_model`` with the configuration that its pages name for the
processor. ``threads`` are ONNX Runtime's within an operator.
"""

from __future__ import annotations

import json
import platform
import tempfile
from pathlib import Path
from shutil import copyfile
from typing import Any

from asterisk.bench.peers import sentence_transformers
from asterisk.bench.plan import Row

FILE = "onnx/model_quantized.onnx"

ROW = Row(
    name="sentence-transformers-onnx",
    title="sentence-transformers, ONNX Runtime",
    recipe="int8",
    opener="asterisk.bench.peers.sentence_transformers_onnx:open",
    path="",
    modules=("torch", "sentence_transformers", "optimum.onnxruntime"),
    distributions=("sentence-transformers", "optimum-onnx", "onnxruntime"),
    size=0,
    peer=True,
)


def prepare(folder: Path, checkpoint: Path) -> None:
    """Export and quantise the model in the folder ``checkpoint``."""
    from asterisk.bench.peers.quiet import quiet
    from asterisk.common.plugins import require

    library = require("sentence_transformers", "peers")
    require("optimum.onnxruntime", "peers")
    with tempfile.TemporaryDirectory() as scratch, quiet():
        source = Path(scratch) / "model"
        source.mkdir()
        sentence_transformers.copy(source, checkpoint)
        add_token_type(source)
        model = library.SentenceTransformer(
            str(source),
            backend="onnx",
            device="cpu",
            local_files_only=True,
            model_kwargs={"provider": "CPUExecutionProvider", "export": True},
        )
        library.export_dynamic_quantized_onnx_model(model, configuration(), scratch)
        (made,) = Path(scratch).glob("onnx/*.onnx")
        (folder / FILE).parent.mkdir()
        copyfile(made, folder / FILE)
    # The encoder's weights are in the file; those of maps after the pooling are not.
    sentence_transformers.copy(folder, checkpoint)
    for weights in (*folder.glob("*.safetensors*"), *folder.glob("*.bin")):
        weights.unlink()


def add_token_type(folder: Path) -> None:
    """Give a BERT with one token type a second, which no text has.

    optimum's export fails without it: its example inputs have both.
    """
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


def configuration() -> str:
    """Return the name of the library's configuration for this machine's processor."""
    from asterisk.bench.processor import describe

    if platform.machine() in ("aarch64", "arm64"):
        return "arm64"
    flags = describe(Path("/")).get("isa", [])
    known = {"avx512_vnni": "avx512_vnni", "avx512f": "avx512"}
    return next((name for flag, name in known.items() if flag in flags), "avx2")


def open(folder: Path, threads: int) -> Any:
    """Open what `prepare` wrote."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return sentence_transformers.Encoder(
        folder,
        threads,
        backend="onnx",
        model_kwargs={
            "provider": "CPUExecutionProvider",
            "file_name": FILE,
            "session_options": options,
        },
    )
