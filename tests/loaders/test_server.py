"""`asterisk-serve` asked by OpenAI's client for JavaScript, and by a page in Chromium.

`set_up_browser.py` installs both.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from apps.serve.conftest import NAME, running

import asterisk
from asterisk.common.vectors import to_int8

HERE = Path(__file__).parent
TEXTS = ["a text", "another, with 👍 in it", "na\u00efve"]
FETCH = """async ([url, headers, input]) => {
  const body = JSON.stringify({ model: "any", input, output_dtype: "int8" });
  const answer = await fetch(url, { method: "POST", headers, body });
  return [answer.status, await answer.json()];
}"""


@pytest.fixture(scope="module")
def artifact(artifact_of):
    for module in ("uvicorn", "starlette", "prometheus_client", "ai_edge_litert"):
        pytest.importorskip(module)
    return artifact_of("tflite", "int8")


def test_openai_for_javascript(artifact):
    if not (shutil.which("node") and (HERE / "node_modules" / "openai").is_dir()):
        pytest.skip("no client: python tests/loaders/set_up_browser.py")
    with running(artifact) as server, asterisk.load(artifact) as runtime:
        asked = ["node", str(HERE / "embed.mjs"), f"{server.url}/v1", NAME, *TEXTS]
        done = subprocess.run(asked, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        got = json.loads(done.stdout)
        expected = runtime.encode(TEXTS)
        assert np.float32(got["vectors"]).tobytes() == expected.tobytes()
        short = runtime.encode(TEXTS[0], dim=8)
        assert np.float32(got["short"]).tobytes() == short.tobytes()
        assert got["models"] == [NAME]
        assert got["usage"]["total_tokens"] == sum(len(runtime.tokenize(it)) for it in TEXTS)
        assert (got["refused"]["status"], got["refused"]["param"]) == (400, "input")


def test_a_page_that_may_ask(artifact, site, page, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret")
    token.chmod(0o600)
    folder, address = site
    (folder / "index.html").write_text('<!doctype html><link rel="icon" href="data:,">')
    page.goto(address)
    options = ("--token-file", token, "--cors-origin", address)
    with running(artifact, *options) as server, asterisk.load(artifact) as runtime:
        url = f"{server.url}/v1/embeddings"
        headers = {"Authorization": "Bearer s3cret", "Content-Type": "application/json"}
        status, body = page.evaluate(FETCH, [url, headers, TEXTS])
        assert status == 200
        expected = to_int8(runtime.encode(TEXTS))
        assert [entry["embedding"] for entry in body["data"]] == expected.tolist()
        status, body = page.evaluate(FETCH, [url, {"Authorization": "Bearer no"}, TEXTS])
        assert (status, body["error"]["code"]) == (401, "invalid_api_key")
        status, body = page.evaluate(FETCH, [url, headers, ""])
        assert (status, body["error"]["param"]) == (400, "input")
    with running(artifact) as server:  # which allows no page
        said = "() => fetch(url).catch((error) => String(error))".replace("url", repr(server.url))
        assert "Failed to fetch" in page.evaluate(said)
