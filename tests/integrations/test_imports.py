"""Each module imports its own library and none of the others; without it, one line says so."""

from __future__ import annotations

import pytest

LIBRARIES = {
    "sentence_transformers": None,
    "langchain": "langchain_core",
    "llama_index": "llama_index",
    "sklearn": "sklearn",
}
ADVICE = {
    "langchain": "langchain-core",
    "llama_index": "llama-index-core",
    "sklearn": "scikit-learn",
}
ENGINES = {"torch", "onnxruntime", "ai_edge_litert", "xllamacpp", "sentence_transformers"}


@pytest.mark.parametrize("module", LIBRARIES)
def test_only_its_own_library(module, python):
    own = LIBRARIES[module]
    if own:
        pytest.importorskip(own)
    code = f"""
import sys, asterisk.integrations.{module}
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    others = {library for library in LIBRARIES.values() if library and library != own}
    assert own is None or own in loaded
    assert not loaded & (others | ENGINES)


@pytest.mark.parametrize("module", ADVICE)
def test_a_library_that_is_missing(module, python):
    code = f"""
import sys
sys.modules["{LIBRARIES[module]}"] = None
try:
    import asterisk.integrations.{module}
except Exception as failure:
    print(type(failure).__name__, failure)
"""
    wanted = ADVICE[module]
    message = f"MissingPackage {wanted} is not installed; install it with: pip install {wanted}\n"
    assert python(code).stdout == message
