"""A real browser, driven over Chromium's debugging pipe."""

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import time

import pytest


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
        self.numbers, self.rest, self.session = itertools.count(1), b"", None
        self.complaints, self.requested = [], []

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
            if answer.get("method") == "Network.requestWillBeSent":
                self.requested.append(answer["params"]["request"]["url"])
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
        for domain in ("Page", "Runtime", "Log", "Network"):
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
        self.key("Enter", text="\r")

    def key(self, name, **more):
        code = {"Enter": 13, "Tab": 9, "Escape": 27}[name]
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **more
            )

    def overflow(self):
        """By how many pixels the page, or a part that scrolls, is wider than its place."""
        return self.run(
            "Math.max(...[...document.querySelectorAll('html, main, .log, dialog')]"
            ".map((node) => node.scrollWidth - node.clientWidth))"
        )

    def colour(self, node, name):
        """Red, green and blue, 0 to 255, of a node's computed style."""
        text = self.run(f"getComputedStyle({node}).{name}")
        return [int(part) for part in re.findall(r"\d+", text)[:3]]

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
