"""Have one peer write its files, in a process of its own: converters of others may crash or hang.

``python -m asterisk.bench.peers.build``: a JSON object on stdin, one JSON line back. It runs under
the interpreter that the peer is measured with.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from asterisk.bench import installed, peers
from asterisk.bench.answer import answer
from asterisk.bench.peers.session import REFERENCE
from asterisk.bench.plan import Row
from asterisk.common import texts
from asterisk.common.errors import AsteriskError, one_line
from asterisk.common.files import replacing_folder


def build(name: str, work: Path, checkpoint: Path, fingerprint: str) -> Row:
    """Return the row of a peer, whose files are in a folder under ``work``, made if need be.

    ``fingerprint`` is that of the model in the folder ``checkpoint``.
    """
    peer = peers.find(name)
    known: Row = peer.ROW
    folder = work / _edition(name, peer, "" if known.model else fingerprint)
    if not folder.is_dir():
        with replacing_folder(folder, lambda _: False) as staging:
            peer.prepare(staging, checkpoint)
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }
    reference = folder / REFERENCE
    return replace(
        known,
        name=name,
        peer=True,
        path=str(folder),
        size=sum(files.values()) - files.get(reference.name, 0),
        reference=str(reference) if reference.name in files else "",
        compared=len(np.load(reference)) if reference.name in files else 0,
        installed=installed.weigh(known.distributions),
        versions={package: version(package) for package in known.distributions},
    )


def _edition(name: str, peer: Any, fingerprint: str) -> str:
    """Name the folder of what ``peer`` prepares: other code, engine or model, another name."""
    here = Path(peer.__file__)
    sources = sorted(here.parent.glob("*.py")) if peer.__package__ else [here]
    digest = hashlib.sha256(fingerprint.encode())
    for source in sources:
        digest.update(source.read_bytes())
    for needed in sorted({"onnxruntime", "torch", "transformers", *peer.ROW.distributions}):
        try:
            digest.update(f"{needed} {version(needed)}".encode())
        except PackageNotFoundError:
            continue
    for text in texts.load():
        digest.update(text.text.encode())
    return f"{name}-{digest.hexdigest()[:12]}"


def _attempt(spec: Mapping[str, str]) -> dict[str, Any]:
    try:
        row = build(spec["name"], Path(spec["work"]), Path(spec["checkpoint"]), spec["fingerprint"])
    except AsteriskError as failure:
        return {"error": one_line(failure)}
    except Exception as failure:  # converters of others raise what they like
        return {"error": f"{type(failure).__name__}: {one_line(failure)}"}
    return {"row": asdict(row)}


def main() -> int:
    """Read what to build, build it, answer; nothing is fetched."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    spec = json.load(sys.stdin)
    answer(lambda: _attempt(spec))
    return 0


if __name__ == "__main__":
    sys.exit(main())
