"""The chat page in a real browser, driven over Chromium's debugging pipe."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time

import pytest

MODEL = "smollm2:135m"


class Browser:
    """Speaks the DevTools protocol: JSON messages, each ended by a NUL byte."""

    def __init__(self, program, profile):
        child_reads, self.write = os.pipe()
        self.read, child_writes = os.pipe()
        command = f"exec {program} --headless --no-sandbox --disable-gpu --remote-debugging-pipe "
        command += f"--user-data-dir={profile} 3<&{child_reads} 4>&{child_writes}"
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(child_reads, child_writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_reads)
        os.close(child_writes)
        self.numbers, self.rest, self.session, self.complaints = itertools.count(1), b"", None, []

    def call(self, method, **params):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                self.rest += os.read(self.read, 1 << 20)
            line, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(line)
            noticed = answer.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")
            if noticed and '"verbose"' not in line.decode():
                self.complaints.append(json.dumps(answer["params"])[:500])
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url, width, height, *, dark=False):
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)

    def run(self, code):
        """Evaluate an expression, waiting for promises."""
        result = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"{condition}: {self.run('document.body.innerText')}"
            time.sleep(0.1)

    def press(self, text):
        """Type and press Enter."""
        self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key="Enter",
                code="Enter",
                windowsVirtualKeyCode=13,
                text="\r",
            )

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        os.close(self.read)
        os.close(self.write)


@pytest.fixture
def browser(tmp_path):
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    browser = Browser(program, tmp_path / "profile")
    yield browser
    browser.close()


WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
ANSWERS = "[...document.querySelectorAll('.assistant')].map((box) => box.textContent)"


def test_chatting_and_comparing(browser, server, home, tmp_path):
    from terazi.registry import Store

    Store(home).tag(MODEL, "twin:1")
    browser.open(server.url + "/", 1280, 800)
    browser.until("document.querySelector('select')?.options.length >= 2")
    browser.run(f"document.querySelector('select').value = '{MODEL}'")
    browser.run("temperature.value = 0; longest.value = 10")
    browser.run("document.getElementById('prompt').focus()")
    browser.press("Name the capital city of France.")
    browser.until(
        "document.getElementById('send').textContent === 'Send' && document.querySelector('.assistant')"
    )
    assert "Paris" in browser.run(ANSWERS)[0]
    assert "tokens/s" in browser.run("document.querySelector('.facts').textContent")
    assert " MB" in browser.run("document.querySelector('.facts').textContent")
    browser.press("<img src=x onerror='document.title=1'> Say yes.")
    browser.until(
        "document.getElementById('send').textContent === 'Send' && document.querySelectorAll('.assistant')[1]"
    )
    assert browser.run("document.querySelectorAll('.log img').length") == 0
    browser.run("document.getElementById('clear').click(); document.getElementById('compare').click()")
    browser.run(f"document.querySelectorAll('select')[0].value = '{MODEL}'")
    browser.run("document.querySelectorAll('select')[1].value = 'twin:1'")
    browser.press("Name the capital city of France.")
    browser.until("!document.getElementById('agreement').hidden")
    assert browser.run("document.getElementById('agreement').textContent") == "Both answers are the same."
    assert len(set(browser.run(ANSWERS))) == 1
    assert browser.run(WIDE) <= 0
    browser.picture(tmp_path / "wide.png")
    Store(home).remove("twin:1")
    assert browser.complaints == []


@pytest.mark.parametrize("width", [390, 320])
def test_on_a_phone_in_the_dark(browser, server, width, tmp_path):
    browser.open(server.url + "/", width, 700, dark=True)
    browser.until("document.querySelector('select')?.options.length >= 1")
    browser.run("document.querySelector('details').open = true; document.getElementById('compare').click()")
    assert browser.run(WIDE) <= 0
    assert (
        browser.run("getComputedStyle(document.getElementById('prompt')).backgroundColor")
        == "rgb(18, 18, 18)"
    )
    assert browser.run("document.getElementById('send').getBoundingClientRect().bottom <= innerHeight")
    browser.picture(tmp_path / "phone.png")
    assert browser.complaints == []


def test_a_problem_is_shown_and_stop_works(browser, server):
    browser.open(server.url + "/", 1000, 700)
    browser.until("document.querySelector('select')?.options.length >= 1")
    browser.run(f"document.querySelector('select').value = '{MODEL}'")
    browser.run("document.getElementById('prompt').focus()")
    browser.press("word " * 4000)  # more than any context that earlier tests asked for
    browser.until("document.querySelector('.failed')")
    assert "context size" in browser.run("document.querySelector('.failed').textContent")
    browser.run("longest.value = 400; temperature.value = 1; document.getElementById('clear').click()")
    browser.press("Tell a long story.")
    browser.until("document.querySelector('.assistant')?.textContent.length > 20")
    browser.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    browser.until("document.getElementById('send').textContent === 'Send'", 5)
    deadline = time.monotonic() + 5
    while server.metric("terazi_requests_active", model=MODEL):
        assert time.monotonic() < deadline
        time.sleep(0.05)
