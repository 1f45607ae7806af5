"""transformers.js in Chromium, which reaches this machine and nothing else.

`set_up_browser.py` installs both. What a hub folder's model card says for transformers.js is pasted
into a page and run; the page in `examples/browser` is used as a person does.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import ROOT

from asterisk.exporters import thresholds
from asterisk.exporters.hub_folder import TEXTS

from .conftest import MODELS
from .test_loaders import hold

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1_800)]
EXAMPLE = ROOT / "examples" / "browser"
FORMS = {"fp32": "fp32", "int8": "q8"}
PAGE = """<!doctype html><link rel="icon" href="data:,"><script type="importmap">
{"imports": {"@huggingface/transformers": "/transformers/transformers.min.js"}}</script>"""
# Nothing is asked of the library but to take its files, and the model's, from this server.
LOCAL = """import { env } from "@huggingface/transformers";
Object.assign(env, { allowLocalModels: true, allowRemoteModels: false, useBrowserCache: false });
const wasm = `${location.origin}/onnxruntime/ort-wasm-simd-threaded.asyncify`;
env.backends.onnx.wasm.wasmPaths = { mjs: `${wasm}.mjs`, wasm: `${wasm}.wasm` };
"""


@pytest.fixture(scope="module", autouse=True)
def _the_library_is_there():
    if not (EXAMPLE / "lib").is_dir():
        pytest.skip("no transformers.js: python tests/loaders/set_up_browser.py")


def paste(page, address, hub, form):
    """Run the piece of JavaScript in the model card; return what embeds a list of texts."""
    (code,) = re.findall(r"```js\n(.*?)```", hub.card, re.S)
    assert '{ dtype: "q8" }' in code
    assert TEXTS in code
    code = code.replace('"q8"', f'"{FORMS[form]}"').replace(TEXTS, "texts")
    lines = code.splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if "texts" in line)
    opened, embedding = "".join(lines[:first]), "".join(lines[first:])
    page.goto(address)
    page.add_script_tag(
        type="module",
        content=f"{LOCAL}{opened}window.embed = async (texts) => {{ {embedding} return vectors; }}",
    )
    page.wait_for_function("Boolean(window.embed)", timeout=120_000)

    def embed(texts):
        return np.array(page.evaluate("texts => window.embed(texts)", texts), np.float32)

    return embed


# float32 on one thread of WebAssembly takes MiniLM minutes; the made-up model has its shape.
PAIRS = [(model, form) for model in (*MODELS, "asterisk-256") for form in FORMS]
PAIRS.remove(("all-MiniLM-L6-v2", "fp32"))


@pytest.mark.parametrize(("model", "form"), PAIRS)
def test_the_model_card_in_a_page(model, form, hub_of, site, page):
    hub, (folder, address) = hub_of(model), site
    (folder / "index.html").write_text(PAGE)
    modules = EXAMPLE / "node_modules"
    (folder / "transformers").symlink_to(modules / "@huggingface" / "transformers" / "dist")
    (folder / "onnxruntime").symlink_to(modules / "onnxruntime-web" / "dist")
    (folder / "models").mkdir()
    (folder / "models" / hub.checkpoint.name).symlink_to(hub.folder)
    embed = paste(page, address, hub, form)
    limits = thresholds(form, hub.checkpoint.config.num_layers)
    assert len(hub.short) > 180
    hold(hub, embed, limits, hub.short)
    # transformers.js cuts a long text with the special token at its end, see docs/browser.md.
    cut = sorted(set(range(len(hub.some))) - set(hub.short))
    truth, vectors = hub.truth[cut], embed([hub.some[place] for place in cut])
    lengths = np.linalg.norm(truth, axis=1) * np.linalg.norm(vectors, axis=1)
    assert ((truth * vectors).sum(1) / lengths).min() > 0.98


PASSAGES = {
    "how do plants make food from sunshine": "Photosynthesis turns light, water and carbon dioxide "
    "into sugar. It happens in the green parts of leaves.",
    "repairing a bicycle puncture": "Take the wheel off, pull the inner tube out, find the hole "
    "and glue a patch over it. Pump the tyre up again.",
    "my computer does not start any more": "If the machine stays dark when you press the power "
    "button, check the cable first, then the supply unit.",
    "javascript that runs in a web page": '<script>document.title = "taken"</script><img src=x '
    "onerror=\"document.title='taken'\"> is a piece of code for browsers.",
    "when to see a doctor about a cough": "A cold goes away within ten days. With fever, or pain "
    "in the chest, ask a physician sooner.",
}


@pytest.fixture
def example(site, page, hub_of):
    """The page of the example, its model loaded, and then cut off from its server too."""
    folder, address = site
    for name in ("index.html", "search.js", "lib"):
        (folder / name).symlink_to(EXAMPLE / name)
    (folder / "asterisk-256-wp-hub").symlink_to(hub_of("asterisk-256-wp").folder)
    page.goto(address)
    page.wait_for_selector("#index:enabled", timeout=60_000)
    page.context.set_offline(True)
    return page


def index(page, text):
    page.fill("#text", text)
    page.press("#text", "Control+Enter")
    page.wait_for_selector("#query:enabled")


def test_the_example_finds_by_meaning_without_a_network(example, hub_of):
    from playwright.sync_api import expect

    index(example, "\n\n".join(PASSAGES.values()))
    expect(example.locator("#status")).to_have_text("5 passages indexed.")
    runtime = hub_of("asterisk-256-wp").runtime
    for query, passage in PASSAGES.items():
        example.fill("#query", query)
        first = example.locator("#results li").first
        expect(first.locator("span")).to_have_text(passage)
        wanted = float(runtime.encode([query])[0] @ runtime.encode([passage])[0])
        assert float(first.locator("b").inner_text()) == pytest.approx(wanted, abs=0.02)
    # HTML in the pasted text is shown and not run.
    assert example.title() == "Search what you paste"
    assert example.locator("#results img, #results script").count() == 0


def test_the_example_by_keyboard_alone(example):
    from playwright.sync_api import expect

    sentences, last = " ".join(PASSAGES.values()), "A last paragraph about trains that are late."
    pasted = f"{sentences} {sentences.replace('.', ',')}\n\n{last}"
    index(example, pasted)
    example.keyboard.type("delayed railway")  # the search field has the focus after indexing
    passages = example.locator("#results li span")
    expect(passages.first).to_have_text(last)
    found = passages.all_inner_texts()
    assert 4 <= len(found) < 10  # of which ten are shown: the long paragraph is in parts
    assert all(text in pasted and len(text) <= 400 for text in found)
    assert sum(len(text) for text in "".join(found).split()) == sum(map(len, pasted.split()))
    example.keyboard.press("ArrowDown")
    example.keyboard.press("Enter")
    chosen = "text.value.slice(text.selectionStart, text.selectionEnd)"
    assert example.evaluate(chosen) == last


@pytest.mark.parametrize(
    ("there", "line"),
    [
        ((), "lib/ is not beside this page: npm run setup puts it there"),
        (("lib",), "asterisk-256-wp-hub/ is not beside this page, or is no hub folder"),
    ],
    ids=["the library", "the model"],
)
def test_what_the_example_lacks_is_one_line(there, line, site, page):
    folder, address = site
    for name in ("index.html", "search.js", *there):
        (folder / name).symlink_to(EXAMPLE / name)
    page.goto(address)
    page.wait_for_selector("#progress", state="hidden")
    assert page.inner_text("#status") == f"The model did not load: {line}"
    assert page.is_disabled("#index")
