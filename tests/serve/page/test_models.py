"""The registry in a real browser: what is stored and in memory, pulling, removing."""

import functools
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from terazi.registry import Store
from terazi.registry.variant import make_variant

LISTED = "[...document.querySelectorAll('#stored-models h3')].map((node) => node.textContent)"


@pytest.fixture(scope="module")
def shop(start, two_layers, minilm, tmp_path_factory):
    """A server over a store with a small model, a variant of it, and a directory of another format."""
    store = Store(tmp_path_factory.mktemp("shop"))
    store.add(two_layers, "tiny:base", license="Apache-2.0", notes="<b>two layers</b>")
    make_variant("tiny:base-q2_k", store=store)
    store.add(minilm, "minilm:base", license="cc-by-nc-4.0")
    server = start("--context", 512, "--parallel", 1, environment={"TERAZI_HOME": str(store.root)})
    server.home = store.root
    return server


@pytest.fixture
def models(browser, shop):
    """The page of models, opened."""

    def begin(width=1280, height=900, **options):
        browser.open(shop.url + "/#models", width, height, **options)
        browser.until("document.querySelector('#stored-models h3')")
        return browser

    return begin


def card(browser, name):
    return browser.run(f"document.getElementById('model-{name}').innerText")


def press(browser, label):
    browser.run(f"document.querySelector('button[aria-label=\"{label}\"]').click()")


def test_stored_models_show_what_they_are(models):
    browser = models()
    assert browser.run(LISTED) == ["minilm:base", "tiny:base", "tiny:base-q2_k"]
    base, variant, other = (card(browser, name) for name in ("tiny:base", "tiny:base-q2_k", "minilm:base"))
    assert all(text in base for text in ("GGUF", "Q8_0", "Apache License 2.0", "Variants: tiny:base-q2_k"))
    assert all(text in variant for text in ("Q2_K", "made from tiny:base"))
    assert "HUGGINGFACE" in other
    browser.run("document.querySelector('[id=\"model-tiny:base\"] summary').click()")
    assert "<b>two layers</b>" in card(browser, "tiny:base")
    assert browser.run("document.querySelectorAll('dd b').length") == 0
    assert browser.complaints == []


def test_a_damaged_entry_does_not_hide_the_others(models, shop):
    ref = shop.home / "refs" / "broken" / "v1"
    ref.parent.mkdir()
    ref.write_bytes(b"\xff\x00")
    try:
        browser = models()
        assert browser.run(LISTED) == ["minilm:base", "tiny:base", "tiny:base-q2_k", "broken:v1"]
        assert "Damaged" in browser.run("document.getElementById('stored-models').innerText")
        assert len(json.loads(shop.get("/api/tags"))["models"]) == 2
        assert browser.complaints == []
    finally:
        ref.unlink()
        ref.parent.rmdir()


def test_search_and_filters(models):
    browser = models()

    def choose(field, value):
        browser.run(f"document.getElementById('{field}').value = '{value}'")
        browser.run(f"document.getElementById('{field}').dispatchEvent(new Event('input'))")
        return browser.run(LISTED)

    assert choose("search", "tiny q2_k") == ["tiny:base-q2_k"]
    assert choose("search", "") == ["minilm:base", "tiny:base", "tiny:base-q2_k"]
    assert choose("licence", "yes") == ["tiny:base", "tiny:base-q2_k"]
    assert choose("format", "huggingface") == []
    assert "No model matches" in browser.run("document.getElementById('stored-models').textContent")
    choose("licence", "")
    assert choose("format", "huggingface") == ["minilm:base"]


def test_a_lineage_link_leads_to_the_other_card(models):
    browser = models()
    browser.run("document.querySelector('[id=\"model-tiny:base-q2_k\"] .linklike').click()")
    assert browser.run("document.querySelector('.chosen').id") == "model-tiny:base"


def test_chatting_loads_and_unloading_frees(models, shop):
    browser = models()
    assert "nothing of" in browser.run("document.getElementById('budget').textContent")
    press(browser, "Chat with tiny:base")
    browser.until("document.activeElement.id === 'prompt'")
    browser.run("longest.value = 4")
    browser.press("Hello")
    browser.until("document.querySelector('.facts')?.textContent.includes('memory')")
    assert browser.run("document.querySelector('.pane select').value") == "tiny:base"
    browser.run("location.hash = '#models'")
    browser.until("document.querySelector('#loaded h3')")
    running = browser.run("document.getElementById('loaded').innerText")
    assert all(text in running for text in ("tiny:base", "MB of memory", "512 tokens", "leaves after 5 min"))
    assert len(shop.engines()) == 1
    press(browser, "Unload tiny:base")
    browser.until("!document.querySelector('#loaded h3')")
    browser.until("document.getElementById('budget').textContent.startsWith('nothing')")
    assert browser.complaints == []


@pytest.fixture
def site(two_layers):
    """A file server with the small model."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(two_layers.parent))
    handler_class = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(handler_class, directory=str(two_layers.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{two_layers.name}"
        server.shutdown()


def test_pulling_shows_progress_and_removing_asks(models, shop, site):
    browser = models()
    browser.run(
        "window.steps = []; new MutationObserver(() => steps.push(pulling.innerText))"
        ".observe(pulling, {subtree: true, childList: true, characterData: true})"
    )
    browser.run("document.getElementById('pull-name').focus()")
    browser.press(site)
    browser.until("pulling.innerText.includes('is here')")
    assert any("MB of" in step for step in browser.run("steps"))
    browser.until(f"{LISTED}.length === 4")
    (name,) = set(browser.run(LISTED)) - {"minilm:base", "tiny:base", "tiny:base-q2_k"}
    assert name in Store(shop.home)

    press(browser, f"Remove {name}")
    assert name in browser.run("document.getElementById('question').textContent")
    browser.key("Escape")
    browser.until("!document.getElementById('confirm').open")
    assert name in Store(shop.home)
    press(browser, f"Remove {name}")
    assert browser.run("document.activeElement.value") == "no"  # Enter alone removes nothing
    browser.run("document.querySelector('#confirm button[value=yes]').click()")
    browser.until(f"!document.getElementById('model-{name}')")
    assert name not in Store(shop.home)
    assert browser.complaints == []


def test_a_pull_that_fails_says_why(models):
    browser = models()
    browser.run("document.getElementById('pull-name').focus()")
    browser.press("file:/etc/passwd")
    browser.until("pulling.innerText.includes('cannot be pulled')")
    assert browser.run("document.getElementById('pull').textContent") == "Pull"


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone(models, dark):
    browser = models(360, 700, dark=dark)
    browser.run("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    press(browser, "Remove minilm:base")
    assert browser.overflow() <= 0
    assert (max(browser.colour("document.body", "backgroundColor")) < 64) == dark


def test_everything_is_reached_by_the_keyboard(models):
    browser = models()
    reached = set()
    for _ in range(25):
        browser.key("Tab")
        reached.add(browser.run("document.activeElement.id || document.activeElement.ariaLabel"))
    wanted = {"pull-name", "pull", "search", "format", "licence", "Chat with tiny:base", "Remove minilm:base"}
    assert wanted - reached == set()


def test_a_read_only_server_offers_no_changes(browser, start, shop):
    server = start("--read-only", environment={"TERAZI_HOME": str(shop.home)})
    browser.open(server.url + "/#models", 1000, 700)
    browser.until("document.querySelector('#stored-models h3')")
    labels = browser.run("[...document.querySelectorAll('button')].map((node) => node.ariaLabel)")
    assert not [label for label in labels if label and label.startswith("Remove")]
    assert browser.run("document.getElementById('getting').hidden")


def test_a_key_is_asked_for_once(browser, start, shop):
    server = start("--api-key", "sesame", environment={"TERAZI_HOME": str(shop.home)})
    browser.open(server.url + "/#models", 1000, 700)
    browser.until("document.getElementById('problem')?.textContent.includes('API key')")
    browser.run("document.getElementById('key').focus()")
    browser.press("sesame")
    browser.until("document.querySelector('#stored-models h3')")
    assert browser.run("document.getElementById('problem').hidden")
    browser.call("Page.reload")
    browser.until("document.querySelector('#stored-models h3')")
    assert json.loads(server.get("/terazi/models", Authorization="Bearer sesame"))["models"]
