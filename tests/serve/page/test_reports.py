"""Reports that `terazi optimize` left in the store, and that nothing gets out of their frame."""

import http.client
import json
import urllib.error
import urllib.request

import pytest

from terazi import devices, report
from terazi.evaluate.measurement import METRICS, Measurement
from terazi.registry.reports import keep_report, kept_reports
from terazi.registry.store import Store
from terazi.search import Candidate, recommend


def candidate(label, megabytes, **values):
    """A variant as a study measures it."""
    measurements = [
        Measurement(
            metric=metric,
            value=value,
            unit=METRICS[metric].unit,
            artifact="ab" * 32,
            device="this-machine",
            samples=1,
            conditions={"runtime": "llama.cpp", "threads": 1, "corpus": "a", "windows": 4, "context": 512},
        )
        for metric, value in values.items()
    ]
    return Candidate(
        label=label,
        size=megabytes * 1_000_000,
        bits_per_weight=8.0,
        memory_needed=megabytes * 2_000_000,
        token_bytes=megabytes * 1_000_000,
        types={label: 10},
        source=label == "F16",
        measurements=tuple(measurements),
    )


@pytest.fixture(scope="module")
def library(start, tmp_path_factory):
    """A server over a store in which publishing a judged series left its report."""
    home = tmp_path_factory.mktemp("library")
    found = recommend(
        [
            candidate("F16", 270, perplexity=20.0, decode_speed=20.0),
            candidate("Q8_0", 145, kl_divergence=0.01, agreement=0.98, decode_speed=30.0),
        ],
        devices.device("raspberry-pi-5"),
        devices.use_case("chat"),
        devices.Budget(),
        context=4096,
    )
    subject = report.Subject(
        name="<i>Small</i>",
        path="org/small:135m",
        digest="cd" * 32,
        format="gguf",
        architecture="llama",
        parameters=135_000_000,
        license="Apache-2.0",
        variant="instruct",
        context_length=8192,
        quantized=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERAZI_HOME", str(home))
        report.publish(found, subject, home / "out", pick=None)
    server = start(environment={"TERAZI_HOME": str(home)})
    server.home = home
    return server


@pytest.fixture
def reports(browser, library):
    """The page of reports, opened."""

    def begin(width=1280, height=900, **options):
        browser.open(library.url + "/#reports", width, height, **options)
        browser.until("document.querySelector('#report-list button')")
        return browser

    return begin


def listed(server):
    return json.loads(server.get("/terazi/reports"))["reports"]


def test_publishing_leaves_the_report_in_the_store(library):
    (kept,) = kept_reports(Store(library.home))
    written = json.loads((library.home / "out" / "report.json").read_text())
    assert kept.page.read_bytes() == (library.home / "out" / "report.html").read_bytes()
    assert kept.facts["model"] == "org/small:135m"
    assert kept.facts["pick"] == written["recommendation"]["pick"]
    (shown,) = listed(library)
    assert shown["name"] == kept.name
    assert shown["device"] == "Raspberry Pi 5 (8 GB)"


def test_the_same_question_replaces_and_another_adds(library, tmp_path):
    document = json.loads((library.home / "out" / "report.json").read_text())
    store = Store(tmp_path)
    first = keep_report(document, "<p>first</p>", store)
    assert keep_report(document, "<p>second</p>", store) == first
    assert [report.page.read_text() for report in kept_reports(store)] == ["<p>second</p>"]
    keep_report(document | {"context": 17}, "<p>other</p>", store)
    assert len(kept_reports(store)) == 2
    (first / "report.json").write_text("[[[")
    (tmp_path / "reports" / "stray.txt").write_text("no report")
    assert len(kept_reports(store)) == 1


@pytest.mark.parametrize("width", [1280, 360])
def test_a_report_opens_in_its_frame(reports, width):
    browser = reports(width, 800)
    browser.run("document.querySelector('#report-list button').click()")
    browser.until("document.getElementById('report-title').textContent.includes('Raspberry Pi 5')")
    browser.until(
        "document.querySelector('iframe').contentWindow.length === 0 && document.readyState === 'complete'"
    )
    assert browser.run("document.querySelector('iframe').contentDocument") is None  # another origin
    assert browser.overflow() <= 0
    assert browser.complaints == []


def test_a_report_on_its_own_page_shows_and_reaches_nothing(browser, library):
    (shown,) = listed(library)
    browser.open(library.url + shown["url"], 1000, 800)
    browser.until("document.querySelector('table.sortable')")
    assert browser.run("origin") == "null"
    assert browser.run("fetch('/terazi/models').then(() => 'reached', () => 'refused')") == "refused"
    assert (
        browser.run("(() => { try { return localStorage.length; } catch { return 'refused'; } })()")
        == "refused"
    )


@pytest.mark.parametrize(
    "path",
    [
        "/reports/../out/report.html",
        "/reports/..%2f..%2fout%2freport.html",
        "/reports/%2e%2e/report.html",
        "/reports/",
        "/reports/%00",
        "/reports/%C3%BC",
        "/page/../run.py",
        "/page/..%2frun.py",
        "/page/index.html",
    ],
)
def test_no_path_leads_out(library, path):
    host, port = library.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.putrequest("GET", path)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 404
    assert "error" in json.loads(answer.read())
    connection.close()


def test_a_name_is_no_address(library):
    (shown,) = listed(library)
    with pytest.raises(urllib.error.HTTPError) as refused:
        library.get(f"/reports/{shown['name']}")
    assert refused.value.code == 404
    refused.value.close()


def test_headers_keep_a_report_in(library):
    (shown,) = listed(library)
    with urllib.request.urlopen(library.url + shown["url"], timeout=10) as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert policy.startswith("sandbox allow-scripts;")
    assert "default-src 'none'" in policy
    assert "allow-same-origin" not in policy


def test_a_server_with_a_key_opens_reports_only_by_the_listed_address(browser, start, library):
    server = start("--api-key", "sesame", environment={"TERAZI_HOME": str(library.home)})
    with pytest.raises(urllib.error.HTTPError) as refused:
        listed(server)
    assert refused.value.code == 401
    refused.value.close()
    browser.open(server.url + "/#reports", 1000, 700)
    browser.until("document.getElementById('problem')?.textContent.includes('API key')")
    browser.run("document.getElementById('key').focus()")
    browser.press("sesame")
    browser.until("document.querySelector('#report-list button')")
    browser.run("document.querySelector('#report-list button').click()")
    assert "Raspberry Pi 5" in server.get(browser.run("document.querySelector('iframe').getAttribute('src')"))
