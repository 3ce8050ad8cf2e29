"""Downloads end with the right bytes or with an error, whatever the network does."""

import hashlib
import json
import random

import pytest

from terazi.errors import DownloadError, NotFoundError
from terazi.registry import download as module
from terazi.registry.download import download


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Many pieces from little data, and no waiting."""
    monkeypatch.setattr(module, "_PIECE", 64 << 10)
    monkeypatch.setattr(module, "_PATIENCE", 0.01)


DATA = random.Random(0).randbytes(1_000_003)
SHA = hashlib.sha256(DATA).hexdigest()
OTHER = random.Random(1).randbytes(1_000_003)


def leftovers(target):
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def test_in_parallel_pieces_with_progress(serve, tmp_path):
    site = serve(files={"/m": DATA})
    seen = []
    target = download(
        f"{site.url}/m",
        tmp_path / "m",
        sha256=SHA,
        size=len(DATA),
        progress=lambda task, done, total, unit="": seen.append((done, total)),
    )
    assert target.read_bytes() == DATA
    assert len([1 for _, headers in site.requests if "Range" in headers]) == 17
    assert seen == sorted(seen)
    assert seen[-1] == (len(DATA), len(DATA))
    assert leftovers(target) == []


@pytest.mark.parametrize("seed", range(6))
def test_connections_that_break_at_random_bytes(serve, tmp_path, seed):
    site = serve(files={"/m": DATA}, breaks=30, busy=3)
    site.dice.seed(seed)
    target = download(f"{site.url}/m", tmp_path / "m", sha256=SHA)
    assert target.read_bytes() == DATA
    assert site.breaks == 0
    assert leftovers(target) == []


def test_an_interrupted_download_continues(serve, tmp_path):
    """Ctrl-C in the middle; the second run asks for the rest only."""
    site = serve(files={"/m": DATA})

    def interrupt(task, done, total, unit=""):
        if done > 600_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(f"{site.url}/m", tmp_path / "m", sha256=SHA, progress=interrupt, connections=2)
    assert leftovers(tmp_path / "m") == ["m.part", "m.part.json"]
    site.sent = 0
    assert download(f"{site.url}/m", tmp_path / "m", sha256=SHA).read_bytes() == DATA
    assert 0 < site.sent < 500_000


def test_a_server_that_goes_away_leaves_something_to_continue(serve, tmp_path):
    site = serve(files={"/m": DATA}, breaks=10_000)
    site.dice.randrange = lambda cut: 1000 if cut > 1000 else 0
    site.on_request = lambda path: len(site.requests) > 60 and site.files.clear()
    with pytest.raises((DownloadError, NotFoundError)):
        download(f"{site.url}/m", tmp_path / "m", sha256=SHA)
    assert json.loads((tmp_path / "m.part.json").read_text())["done"]
    site.on_request, site.breaks, site.files["/m"], site.sent = None, 0, DATA, 0
    assert download(f"{site.url}/m", tmp_path / "m", sha256=SHA).read_bytes() == DATA
    assert site.sent < len(DATA)


def test_a_version_that_changes_in_the_middle(serve, tmp_path):
    site = serve(files={"/m": OTHER})

    def change(path):
        if len(site.requests) == 6:
            site.files["/m"] = DATA

    site.on_request = change
    assert download(f"{site.url}/m", tmp_path / "m").read_bytes() == DATA


def test_a_version_that_changes_between_two_runs(serve, tmp_path):
    site = serve(files={"/m": OTHER})

    def interrupt(task, done, total, unit=""):
        if done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(f"{site.url}/m", tmp_path / "m", progress=interrupt)
    site.files["/m"] = DATA
    assert download(f"{site.url}/m", tmp_path / "m").read_bytes() == DATA


def test_a_version_that_changes_for_ever(serve, tmp_path):
    site = serve(files={"/m": DATA})
    site.on_request = lambda path: site.versions.update({"/m": str(len(site.requests))})
    with pytest.raises(DownloadError, match="keeps changing"):
        download(f"{site.url}/m", tmp_path / "m")


@pytest.mark.parametrize("etags", [True, False])
def test_a_server_without_ranges(serve, tmp_path, etags):
    """It answers 200 where 206 was asked for."""
    site = serve(files={"/m": DATA}, ranges=False, breaks=2, etags=etags)
    assert download(f"{site.url}/m", tmp_path / "m", sha256=SHA).read_bytes() == DATA


def test_a_server_that_stops_serving_ranges(serve, tmp_path):
    site = serve(files={"/m": DATA})
    site.on_request = lambda path: setattr(site, "ranges", len(site.requests) < 4)
    assert download(f"{site.url}/m", tmp_path / "m", sha256=SHA).read_bytes() == DATA


def test_wrong_bytes_are_never_kept(serve, tmp_path):
    site = serve(files={"/m": OTHER})
    with pytest.raises(DownloadError, match="SHA-256"):
        download(f"{site.url}/m", tmp_path / "m", sha256=SHA)
    assert list(tmp_path.iterdir()) == []


def test_damage_of_what_an_earlier_run_left_is_repaired(serve, tmp_path):
    site = serve(files={"/m": DATA})

    def interrupt(task, done, total, unit=""):
        if done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(f"{site.url}/m", tmp_path / "m", sha256=SHA, progress=interrupt)
    start = json.loads((tmp_path / "m.part.json").read_text())["done"][0][0]
    with (tmp_path / "m.part").open("r+b") as part:
        part.seek(start)
        part.write(b"damage!")
    assert download(f"{site.url}/m", tmp_path / "m", sha256=SHA).read_bytes() == DATA


@pytest.mark.parametrize(
    "journal", ["", "[]", '{"size": 1}', '{"size": 1000003, "validator": 3, "done": [[1]]}']
)
def test_a_damaged_journal_is_ignored(serve, tmp_path, journal):
    site = serve(files={"/m": DATA})
    (tmp_path / "m.part").write_bytes(b"x" * 100)
    (tmp_path / "m.part.json").write_text(journal)
    assert download(f"{site.url}/m", tmp_path / "m", sha256=SHA).read_bytes() == DATA


def test_a_size_that_is_not_as_promised(serve, tmp_path):
    site = serve(files={"/m": DATA})
    with pytest.raises(DownloadError, match="has 1000003 bytes, expected 5"):
        download(f"{site.url}/m", tmp_path / "m", size=5)


def test_a_finished_file_is_not_fetched_again(serve, tmp_path):
    (tmp_path / "m").write_bytes(DATA)
    site = serve(files={"/m": OTHER})
    download(f"{site.url}/m", tmp_path / "m", sha256=SHA)
    assert site.requests == []


def test_an_empty_file(serve, tmp_path):
    site = serve(files={"/m": b""})
    assert download(f"{site.url}/m", tmp_path / "m").read_bytes() == b""


def test_credentials_stay_with_the_first_host(serve, tmp_path):
    elsewhere = serve(files={"/m": DATA})
    site = serve(redirects={"/old": "/moved", "/moved": f"{elsewhere.url}/m?signed=1"})
    headers = {"Authorization": "Bearer secret", "X-Token": "secret"}
    target = download(f"{site.url}/old", tmp_path / "m", sha256=SHA, headers=headers)
    assert target.read_bytes() == DATA
    assert all(sent["Authorization"] == "Bearer secret" for _, sent in site.requests)
    assert elsewhere.requests
    for _, sent in elsewhere.requests:
        assert "secret" not in str(sent)
        assert "Range" in sent


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/m"])
def test_redirects_to_anything_but_the_web(serve, tmp_path, target):
    site = serve(redirects={"/m": target})
    with pytest.raises(DownloadError, match=r"unsafe address|without end"):
        download(f"{site.url}/m", tmp_path / "m")


def test_what_is_not_there(serve, tmp_path):
    with pytest.raises(NotFoundError, match="has no /absent"):
        download(f"{serve().url}/absent", tmp_path / "m")


def test_nobody_listens(tmp_path):
    with pytest.raises(DownloadError, match="refused"):
        download("http://127.0.0.1:9/m", tmp_path / "m")


def test_a_full_disk_is_noticed_before(serve, tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match="the disk has 1000 left"):
        download(f"{serve(files={'/m': DATA}).url}/m", tmp_path / "m")
