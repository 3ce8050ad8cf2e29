"""Chatting with one model and comparing two, in a real browser."""

import time

import pytest

from terazi.registry import Store

MODEL = "smollm2:135m"
ANSWERS = "[...document.querySelectorAll('.assistant')].map((box) => box.textContent)"
IDLE = "document.getElementById('send').textContent === 'Send'"
QUESTION = "Name the capital city of France."


@pytest.fixture
def chat(browser, server):
    """The chat page, ready to be typed into, with a deterministic answer of ten tokens."""

    def begin(width=1280, height=800, **options):
        browser.open(server.url + "/", width, height, **options)
        browser.until("document.querySelector('.pane select')?.options.length >= 1")
        browser.run(f"document.querySelector('.pane select').value = '{MODEL}'")
        browser.run("temperature.value = 0; longest.value = 10; document.getElementById('prompt').focus()")
        return browser

    return begin


@pytest.fixture
def twin(home):
    """Another name for the model."""
    Store(home).tag(MODEL, "twin:1")
    yield "twin:1"
    Store(home).remove("twin:1")


def text_of(browser, selector):
    return browser.run(f"document.querySelector('{selector}').textContent")


def test_an_answer_comes_with_its_speed_and_memory(chat):
    browser = chat()
    browser.press(QUESTION)
    browser.until(f"{IDLE} && document.querySelector('.assistant')")
    assert "Paris" in browser.run(ANSWERS)[0]
    assert "tokens/s" in text_of(browser, ".facts")
    assert "MB of memory" in text_of(browser, ".facts")
    browser.press("<img src=x onerror='document.title=1'> Say yes.")
    browser.until(f"{IDLE} && document.querySelectorAll('.assistant')[1]")
    assert browser.run("document.querySelectorAll('.log img').length") == 0
    assert browser.complaints == []


@pytest.mark.parametrize("in_turn", [True, False])
def test_the_same_model_twice_agrees_fully(chat, twin, in_turn):
    browser = chat()
    browser.run("temperature.value = 2; compare.click()")
    browser.run(f"document.getElementById('in-turn').checked = {str(in_turn).lower()}")
    browser.run(f"document.querySelectorAll('.pane select')[1].value = '{twin}'")
    browser.press(QUESTION)
    browser.until("agreement.textContent")
    assert text_of(browser, "#agreement").startswith("Agreement 100 %: both answers are the same")
    first, second = browser.run(ANSWERS)
    assert first == second
    assert "Paris" in first
    assert browser.run("document.querySelectorAll('mark').length") == 0
    facts = browser.run("[...document.querySelectorAll('.facts')].map((node) => node.textContent)")
    assert all("tokens/s" in fact and "MB of memory" in fact for fact in facts)
    assert browser.overflow() <= 0
    assert browser.complaints == []


def test_two_models_agree_up_to_the_first_different_word(chat, home, two_layers):
    Store(home).add(two_layers, "nonsense:1")
    browser = chat()
    browser.run("compare.click(); document.querySelectorAll('.pane select')[1].value = 'nonsense:1'")
    browser.press(QUESTION)
    browser.until("agreement.textContent")
    first, second = (answer.split() for answer in browser.run(ANSWERS))
    same = next(number for number, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    longest = max(len(first), len(second))
    expected = f"Agreement {same * 100 // longest} %: {same} of {longest} words until the first difference."
    assert text_of(browser, "#agreement") == expected
    marked = browser.run("[...document.querySelectorAll('mark')].map((node) => node.textContent)")
    assert [text.split() for text in marked] == [first[same:], second[same:]]
    Store(home).remove("nonsense:1")


@pytest.mark.parametrize("width", [390, 360, 320])
def test_on_a_phone_in_the_dark(chat, width):
    browser = chat(width, 700, dark=True)
    browser.run("compare.click()")
    assert browser.run("document.getElementById('send').getBoundingClientRect().bottom <= innerHeight")
    browser.run("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    assert browser.overflow() <= 0
    red, green, blue = browser.colour("document.body", "backgroundColor")
    assert max(red, green, blue) < 64
    assert min(browser.colour("document.body", "color")) > 192
    assert browser.complaints == []


def test_everything_is_reached_by_the_keyboard(chat, server):
    browser = chat()
    browser.run("document.activeElement.blur(); compare.click(); settings.open = true")
    reached, outlined = [], []
    for _ in range(25):
        browser.key("Tab")
        tag, name, outline = browser.run(
            "(({tagName, id, hash, ariaLabel}) => [tagName, id || hash || ariaLabel || '', "
            "getComputedStyle(document.activeElement).outlineStyle])(document.activeElement)"
        )
        if tag != "BODY":  # between the last and the first the browser's own buttons have their turn
            reached.append(name or tag)
            outlined.append(outline)
    wanted = (
        "#chat",
        "#models",
        "#reports",
        "compare",
        "in-turn",
        "system",
        "longest",
        "clear",
        "prompt",
        "send",
    )
    assert [name for name in wanted if name not in reached] == []
    assert browser.run("document.querySelectorAll('.pane select').length") == 2
    assert reached.count("Model") >= 2
    assert set(outlined) == {"solid"}
    browser.run("compare.click(); settings.open = false; longest.value = 400")
    browser.run("document.getElementById('prompt').focus()")
    browser.press("Tell a long story.")
    browser.until("document.querySelector('.assistant')?.textContent.length > 20")
    browser.key("Escape")
    browser.until(IDLE, 5)
    deadline = time.monotonic() + 5
    while server.metric("terazi_requests_active", model=MODEL):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    unnamed = browser.run(
        "[...document.querySelectorAll('input, select, textarea, button')].filter((node) => "
        "!(node.ariaLabel || node.labels?.length || node.textContent.trim())).map((node) => node.outerHTML)"
    )
    assert unnamed == []


def test_a_problem_is_shown(chat):
    browser = chat()
    browser.press("word " * 4000)  # more than any context that earlier tests asked for
    browser.until("document.querySelector('.assistant.failed')")
    assert "context size" in text_of(browser, ".assistant.failed")


def test_it_loads_nothing_from_elsewhere(chat, server):
    browser = chat()
    browser.run("location.hash = '#models'")
    browser.until("document.getElementById('stored').textContent")
    browser.run("location.hash = '#reports'")
    browser.until("!document.getElementById('no-reports').hidden")
    assert len(browser.requested) >= 8
    assert [url for url in browser.requested if not url.startswith((server.url + "/", "data:"))] == []
    assert browser.complaints == []
