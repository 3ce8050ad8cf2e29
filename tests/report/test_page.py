"""The page: escaped, self-contained, and alive in a real browser."""

import base64
import hashlib
import json
import re
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest

from terazi import devices, report
from terazi.devices import Budget
from terazi.search import recommend

VOID = {"meta", "link", "br", "img", "input", "hr", "line", "rect", "circle", "path"}


class Outline(HTMLParser):
    """Counts elements and checks that they nest."""

    def __init__(self):
        super().__init__()
        self.stack, self.names, self.addresses, self.handlers = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "srcset"):
                self.addresses.append(value)
            if name.startswith("on"):
                self.handlers.append((tag, name))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.append(tag)

    def handle_endtag(self, tag):
        assert self.stack, tag
        assert self.stack.pop() == tag


@pytest.fixture(scope="module")
def html(document):
    return report.page(document)


def test_it_nests_and_needs_nothing_from_elsewhere(html):
    outline = Outline()
    outline.feed(html)
    assert outline.stack == []
    assert outline.addresses == ["data:,"]
    assert outline.handlers == []
    assert outline.names.count("script") == 1
    assert outline.names.count("svg") == 3  # the sign and two pictures
    assert "url(" not in html.split("</style>")[0]
    assert "@import" not in html


def test_texts_of_models_stay_text(html):
    assert "<script>document" not in html
    assert "<img" not in html
    assert "&lt;script&gt;document.title=&#39;owned&#39;" in html
    assert "{{7*7}}" in html


def test_the_policy_allows_this_script_only(html):
    script = re.search(r"<script>(.*)</script>", html, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


def test_it_says_what_matters(html):
    for words in (
        "Raspberry Pi 5",
        "The reference is itself quantized",
        "Why not the next",
        "medium precision",
        "below the floor",
        "an estimate from memory bandwidth",
        "terazi run model.gguf",
        "model:135m for chat",
    ):
        assert words in html, words


def test_nothing_fits(recommendation, subject):
    candidates = [entry.candidate for entry in recommendation.ranked]
    none = recommend(candidates, recommendation.device, devices.use_case("chat"), Budget(max_size=1_000_000))
    page = report.page(report.document(none, subject))
    assert "Nothing fits" in page
    assert "would need a size limit of" in page


def browse(chromium, url, *options):
    return subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--virtual-time-budget=3000",
            *options,
            url,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


PROBE = """
const table = document.querySelector("table");
const heads = [...table.tHead.rows[0].cells];
const file = heads.findIndex((head) => head.textContent.trim() === "File");
const order = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[file].dataset.value));
const click = () => { heads[file].querySelector("button").click(); return order(); };
const up = click(); const down = click();
const sorted = (list, sign) => list.every((v, i) => i === 0 || sign * (v - list[i - 1]) >= 0);
const overlaps = [...document.querySelectorAll("figure svg")].some((svg) => {
  const boxes = [...svg.querySelectorAll(".label")].map((label) => label.getBoundingClientRect());
  return boxes.some((a, i) => boxes.slice(i + 1).some((b) =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2));
});
const edge = document.documentElement.clientWidth;
const inScroller = (e) => e.closest(".scroll, pre, .stack");
const beyond = [...document.querySelectorAll("body *")]
  .filter((e) => !inScroller(e) && e.getBoundingClientRect().right > edge + 0.5)
  .map((e) => e.outerHTML.slice(0, 60));
const result = {
  beyond,
  up: sorted(up, 1), down: sorted(down, -1), aria: heads[file].getAttribute("aria-sort"), overlaps,
  title: document.title, copy: !document.querySelector("button[data-copy]").hidden,
  wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
};
parent.postMessage(JSON.stringify(result), "*");
"""

# Headless windows have a least width, a frame has not.
FRAME = """<!doctype html><body><iframe src="probed.html" width="{width}" height="800"></iframe>
<script>addEventListener("message", (e) => document.body.setAttribute("data-result", e.data));</script>"""


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_in_a_browser(chromium, html, tmp_path, width):
    """Sorting works, nothing hostile ran, labels keep apart and the page does not scroll sideways."""
    # The page's own policy refuses foreign scripts, so the probe needs a page without one.
    probed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    (tmp_path / "probed.html").write_text(probed.replace("</body>", f"<script>{PROBE}</script></body>"))
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    dom = browse(chromium, (tmp_path / "frame.html").as_uri(), "--dump-dom").stdout
    found = re.search(r'data-result="([^"]*)"', dom)
    assert found is not None
    result = json.loads(unescape(found.group(1)))
    assert result["up"]
    assert result["down"]
    assert result["aria"] == "descending"
    assert result["copy"]
    assert not result["overlaps"]
    assert result["wide"] <= 0, result["beyond"]
    assert result["title"] == "model:135m for chat on Raspberry Pi 5 (8 GB) | Terazi"


def test_the_policy_lets_the_page_work(chromium, html, tmp_path):
    (tmp_path / "report.html").write_text(html)
    done = browse(chromium, (tmp_path / "report.html").as_uri(), "--dump-dom", "--enable-logging=stderr")
    assert "Refused to" not in done.stderr
    assert 'data-copy="" hidden' not in done.stdout
    assert "data-copy" in done.stdout


def test_operators_before_and_after(recommendation, subject):
    """Counts of every graph beside those of the export; what no graph changed is only in the sum."""
    made = replace(
        recommendation.ranked[0].candidate,
        format="onnx",
        level="medium",
        operators={"MatMul": 1, "Constant": 5, "MatMulInteger": 4},
        exported={"MatMul": 5, "Constant": 5, "<script>alert(1)</script>": 2},
    )
    others = [entry.candidate for entry in recommendation.ranked[1:]]
    found = recommend([made, *others], recommendation.device, recommendation.use_case, Budget())
    text = report.page(report.document(found, subject))
    table = text.split("Operators of the ONNX graphs")[1].split("</table>")[0]
    rows = [re.findall(r">([^<>]*)</t[hd]>", row) for row in table.split("<tr>")[1:]]
    assert ["MatMulInteger", "–", "4"] in rows
    assert ["MatMul", "5", "1"] in rows
    assert ["all", "12", "10"] in rows
    assert not any("Constant" in row for row in rows)
    assert "<script>" not in table
    outline = Outline()
    outline.feed(text)
    assert outline.stack == []
