"""A small bundle for this machine: the installer and the way to a device take it for real."""

from __future__ import annotations

import hashlib
import platform
import random
import sys
from pathlib import Path

from asterisk.deploy.bundle import Bundle
from asterisk.deploy.device import manifest as bundle_json

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
ENGINE = 1 << 20  # bytes
VERIFY = """#!/bin/sh
# Really compares: the model has to be the one that the golden file names.
here=$(cd -- "$(dirname -- "$0")/.." && pwd -P)
wanted=$(cat "$1/golden.txt") && found=$(sha256sum < "$1/model.bin") || exit 5
{extra}
if [ "$wanted  -" != "$found" ]; then
  echo "$1: cosine to FP32 is 0.10000, below 0.9" >&2
  exit 6
fi
echo "$1: files intact, 3 golden texts, cosine to FP32 mean 0.99990 min 0.99910"
"""
PYTHON_LAUNCHER = f'#!/bin/sh\nexec {sys.executable} -P "$@"\n'
SERVE = f"""#!{sys.executable} -I
import http.server, json, os, pathlib, sys

artifact = pathlib.Path(sys.argv[1])
port = int(sys.argv[sys.argv.index("--port") + 1])
version = (artifact / "model.bin").read_bytes()[:8].decode()
if version == "unserved":
    sys.exit("asterisk-serve: it does not start")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        data = json.dumps({{"status": "ok", "version": version}}).encode()
        self.send_response(200 if self.path == "/health" and version != "unwell00" else 503)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


IMPORT = f'PYTHONPATH="$here/site" exec {sys.executable} -P -c "import onnxruntime"'


def bundle(
    folder: Path,
    version: str = "version1",
    *,
    extra: str = "",
    golden: bool = True,
    engine: str = "",
):
    """Make a bundle in ``folder``; another ``version``, eight letters, is another model only.

    ``extra`` goes into its verification; without ``golden`` that fails. ``engine`` is the source of
    the module that it imports instead, if it is to die.
    """
    folder.mkdir(parents=True)
    extra = IMPORT if engine else extra
    model = version.encode() + b"\n" * 1000
    digest = hashlib.sha256(model if golden else b"another").hexdigest()
    contents = {
        "artifact/model.bin": model,
        "artifact/golden.txt": digest.encode(),
        "site/engine.so": random.Random(1).randbytes(ENGINE),
        "site/onnxruntime/__init__.py": engine.encode(),
        "bin/asterisk-verify": VERIFY.format(extra=extra).encode(),
        "bin/asterisk-serve": SERVE.encode(),
        "bin/python": PYTHON_LAUNCHER.encode(),
    }
    files, described = {}, {}
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(data)
        files[name] = path
        described[name] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "executable": name.startswith("bin/"),
        }
    manifest = {
        "schema": bundle_json.SCHEMA,
        "name": "toy",
        "version": "0.1.0",
        "board": "pi4",
        "python": PYTHON,
        "machine": platform.machine(),
        "glibc": "2.17",
        "page_size": 65536,
        "libraries": {},
        "format": "tflite",
        "recipe": "int8",
        "threads": 2,
        "max_memory": 64 << 20,
        "packages": {"numpy": "2.0", "onnxruntime": "1.31.1"},
        "installed_bytes": sum(map(len, contents.values())),
        "files": described,
    }
    manifest["id"] = bundle_json.identity(manifest)
    return Bundle(bundle_json.check_manifest(manifest), files)
